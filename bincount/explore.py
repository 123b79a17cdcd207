"""`bincount explore`: what is in a data set; with `against=RUN`, whether photos have changed since then."""

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich import box
from rich.markup import escape as plain
from rich.table import Table

from bincount import progress, run, storage
from bincount.config import ExploreConfig
from bincount.data.index import Index
from bincount.errors import BadInput, BincountError
from bincount.exploring.database import open_database
from bincount.exploring.sections import show, write

if TYPE_CHECKING:  # as torch takes seconds, which the rest need not wait for
    from bincount.counter import Counter
    from bincount.exploring.known import Traits

#: The page, where no name is given.
PAGE = "explore.html"

#: Rows of an answer that are printed.
MOST_ROWS = 100


def explore(config: ExploreConfig) -> None:
    """Print what is in a data set and write a page of it, answer SQL, or compare photos with a run's.

    Raises BincountError with ``fail`` where photos have changed.
    """
    if config.photos is not None and config.against is None:
        raise BadInput(
            "photos=…: against=RUN tells what they are compared with; `bincount predict` counts them"
        )
    if config.kept is not None and config.against is None:
        raise BadInput("kept=…: against=RUN tells what they are compared with: the run that was served")
    if config.kept is not None and config.photos is not None:
        raise BadInput("photos=… are photos, and kept=… is what a service kept of photos: give one of them")
    if config.sql is not None and config.against is not None:
        raise BadInput("sql=… asks a data set, and against=RUN compares photos: give one of them")
    if config.sql is not None:
        _answer(config.sql, config.data.root, config.out)
    elif config.against is not None:
        _compare(config, config.against)
    else:
        _tell(config.data.root, config.out)


def _tell(root: str, name: str | None) -> None:
    from bincount.exploring import (
        facts,
        telling,
    )  # here, as matplotlib takes a second, which SQL need not wait

    out = _page(name)
    found = facts.gather(open_database(root))
    sections = list(telling.sections(found))
    show(progress.out, sections)
    write(out, f"Data set {found.address}", sections)
    progress.out.print(f"\npage: {out}", soft_wrap=True)


def _compare(config: ExploreConfig, name: str) -> None:
    out = _page(config.out)
    folder = run.find(name, config.runs)
    from bincount.counter import load  # here, as torch takes seconds, which the rest need not wait for
    from bincount.exploring import comparing
    from bincount.exploring.known import known

    named, measured = _compared(config)
    counter = load(folder)
    before = known(folder, counter)
    now = measured(counter)
    finding = comparing.compare(before, now)
    sections = list(comparing.sections(before, now, finding))
    show(progress.out, sections)
    write(out, f"{named} against run {folder.parent.name}/{folder.name}", sections)
    progress.out.print(f"\npage: {out}", soft_wrap=True)
    if config.fail and finding.changed:
        raise BincountError(f"{named}: {comparing.verdict(finding)}")


def _compared(config: ExploreConfig) -> "tuple[str, Callable[[Counter], Traits]]":
    """What the photos that are compared are called, and how their traits are found."""
    from bincount.exploring import kept
    from bincount.exploring.known import measure, version

    if config.kept is not None:
        files = kept.find(config.kept)
        return f"kept={config.kept}", lambda counter: kept.read(
            files, version(counter), config.sample, config.seed
        )
    number, photos, named = _photos(config)

    def measured(counter: "Counter") -> "Traits":
        found = measure(counter, photos, number, "the photos")
        if not len(found):
            raise BadInput(f"{named}: none of its {number:,} photos could be read")
        return found

    return named, measured


def _photos(config: ExploreConfig) -> tuple[int, Iterator[bytes | str], str]:
    """How many photos are compared, each encoded or why it cannot be read, and what they are called."""
    from bincount.data.found import find_photos, read_photos
    from bincount.exploring.known import chosen, places

    if config.photos is None:
        index = Index.open(config.data.root)
        there = places(index, index.splits, config.sample, config.seed)
        return len(there), index.store.read_ranges(there), f"data.root={config.data.root}"
    photos = chosen(find_photos(config.photos), config.sample, config.seed)
    named = config.photos if isinstance(config.photos, str) else ",".join(config.photos)
    return len(photos), (encoded for _, encoded in read_photos(photos)), f"photos={named}"


def _page(name: str | None) -> Path:
    out = storage.folder(name or PAGE)
    if out.suffix.lower() not in (".html", ".htm"):
        raise BadInput(f"out={name}: the page's name must end in .html")
    return out


def _answer(question: str, root: str, name: str | None) -> None:
    """Print what the data set answers to SQL, or write it to a file."""
    out = None if name is None else storage.folder(name)
    if out and out.suffix.lower() not in (".csv", ".parquet"):
        raise BadInput(f"out={name}: an answer is written as .csv or .parquet")
    answer = open_database(root).ask(question)
    rows = list(zip(*(column.to_pylist() for column in answer.columns), strict=True))
    if out is None:
        progress.out.print(_shown(answer, rows[:MOST_ROWS]))
        if len(rows) > MOST_ROWS:
            told = f"{MOST_ROWS} of {len(rows):,} rows; out=FILE.csv has them all"
            progress.out.print(told, soft_wrap=True)
        return
    if out.suffix.lower() == ".csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([answer.column_names, *rows])
        storage.write_text(out, text.getvalue())
    else:
        with storage.written_whole(out) as partial:
            pq.write_table(answer, partial, compression="zstd")
    progress.out.print(f"{len(rows):,} rows in {out}", soft_wrap=True)


def _shown(answer: pa.Table, rows: list[tuple[Any, ...]]) -> Table:
    """The rows of an answer for a terminal or a log, a line each: texts that are too long are cut."""
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for field in answer.schema:
        text = pa.types.is_string(field.type) or pa.types.is_nested(field.type)
        shown.add_column(plain(field.name), justify="left" if text else "right", no_wrap=True)
    for row in rows:
        shown.add_row(*(plain(_cell(value)) for value in row))
    return shown


def _cell(value: Any) -> str:
    if value is None:
        return "null"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
