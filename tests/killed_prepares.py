"""Runs `bincount prepare` in child processes that are killed, each at another moment of its work.

`python killed_prepares.py FOLDER`: each ``FOLDER/<moment>/fresh`` is new, and each ``…/again`` holds a data
set of seed 1 that the killed command was to replace by one of seed 2.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from bincount import cli, compose
from bincount.data.shards import ShardWriter
from bincount.storage import Folder

WORDS = ["source.photos=12", "source.width=32", "source.height=32", "photos_per_shard=5"]
WORDS += ["overwrite=true", "workers=0"]

#: What is written, and as which of all writes.
WRITTEN = {"arguments": 1, "catalogue": 2, "shard": 3, "note": 4, "skipped": 11, "rows": 12, "index": 13}

#: moment: (whose function, its name, at which of its calls)
MOMENTS: dict[str, tuple[Any, str, int]] = {
    "at the first photo": (ShardWriter, "write", 1),
    "in the middle of a shard": (ShardWriter, "write", 7),
    "at the last photo": (ShardWriter, "write", 12),
    **{f"before {what} is written": (Folder, "write", n) for what, n in WRITTEN.items()},
    **{f"when {what} gets its name": (os, "replace", WRITTEN[what]) for what in ("shard", "note", "index")},
    "before the notes are taken away": (Folder, "delete", 3),
    "amid the notes": (Path, "unlink", 17),
    "before the folder gets its name": (Path, "rename", 1),
    "between the renames": (Path, "rename", 2),
    "before the last note is taken away": (Folder, "delete", 4),
}

#: Moments at which a new data set has its name already.
NAMED = {"between the renames", "before the last note is taken away"}


def kill_at(owner: Any, name: str, call: int) -> None:
    """Kill this process at a call of ``owner.name``, before it does anything."""
    function, calls = getattr(owner, name), 0

    def killing(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    setattr(owner, name, killing)


def run(out: Path, seed: int, moment: str | None = None) -> int:
    """Run the command in a child; gives its exit code, or the signal that ended it below 0."""
    child = os.fork()
    if child == 0:
        if moment:
            kill_at(*MOMENTS[moment])
        os._exit(cli.main(["prepare", *WORDS, f"seed={seed}", f"out={out}"]))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder: Path) -> None:
    compose.groups("prepare")  # imported here, not by each child
    for moment in MOMENTS:
        run(folder / moment / "fresh", 2, moment)
        assert run(folder / moment / "again", 1) == 0
        run(folder / moment / "again", 2, moment)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
