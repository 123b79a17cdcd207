"""Progress of long work: a bar on a terminal, a plain line now and then in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

#: Columns of what goes to a file or a pipe.
LOG_WIDTH = 120

#: Where commands tell people what they do. Results go to standard output, progress to standard error.
out = Console(highlight=False, width=None if sys.stdout.isatty() else LOG_WIDTH)
err = Console(stderr=True, highlight=False)

#: Seconds between two lines in a log.
EVERY = 10.0

T = TypeVar("T")


def track(work: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Yield from ``work``, showing how many of ``total`` are done."""
    if err.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=err, transient=True) as progress:
            yield from progress.track(work, total=total, description=what)
        return
    start = told = time.monotonic()
    for done, each in enumerate(work, start=1):
        yield each
        now = time.monotonic()
        if now - told >= EVERY:
            told = now
            err.print(f"{what}: {done:,} of {total:,}, {done / (now - start):,.0f}/s", soft_wrap=True)
