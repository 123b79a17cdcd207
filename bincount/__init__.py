"""bincount counts the items in a warehouse bin from one photo.

From Python, a trained run is a function of photos::

    from bincount import load

    counter = load("runs/latest")
    answer = counter("photo.jpg")
    print(answer.count, answer.probabilities)

Importing this package is quick: torch is imported when a run is loaded.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

from bincount.errors import BadInput, BincountError

if TYPE_CHECKING:
    from bincount.answer import Answer
    from bincount.counter import Counter
    from bincount.data.images import UnreadablePhoto

__version__ = "0.1.0"

__all__ = ["Answer", "BadInput", "BincountError", "Counter", "UnreadablePhoto", "__version__", "load"]

#: Names that are worth a second of importing only where they are used, each with its module.
_LATER = {
    "Answer": "bincount.answer",
    "Counter": "bincount.counter",
    "UnreadablePhoto": "bincount.data.images",
}


def load(
    name: str | os.PathLike[str] = "latest",
    *,
    runs: str | os.PathLike[str] = "runs",
    device: str | None = None,
    decoding: str | None = None,
) -> "Counter":
    """A trained run that counts photos: its best checkpoint, calibrated as it was on validation.

    ``name``: the run's folder, its path below ``runs``, or ``latest``, as on the command line.
    ``device``: ``cpu``, ``cuda`` …; None: a GPU where there is one. ``decoding``: how probabilities become a
    count, ``mode``, ``median`` or ``mean``; None: as was best on validation.

    Raises BadInput, in one line, for what is no run, has no checkpoint or cannot be loaded so.
    """
    from bincount import counter, run

    return counter.load(run.find(os.fspath(name), os.fspath(runs)), device, decoding)


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'bincount' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
