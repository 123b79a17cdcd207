"""A run's checkpoints in a second place, S3 or another folder, from where another machine can go on.

A process of its own does it (`python -m bincount.training.copies`): training does not wait for it, it ends
its work where training is killed, and its connections never meet the forks of the loaders.
"""

import contextlib
import logging
import subprocess
import sys
from pathlib import Path

from bincount import run, storage
from bincount.errors import BincountError, one_line

log = logging.getLogger(__name__)


class Copies:
    """Keeps a copy of files of the run ``folder`` at ``address``, under the names that they have there."""

    def __init__(self, folder: Path, address: str):
        self._folder, self.address = folder, address
        self._waiting: set[str] = set()
        self._copied: set[str] = set()
        self._process: subprocess.Popen[str] | None = None
        self._failure: str | None = None

    def put(self, path: Path) -> None:
        """Copy a file of the run. While others are copied it waits, and goes with its newest content then."""
        self._waiting.add(path.relative_to(self._folder).as_posix())
        if self._process is None or self._process.poll() is not None:
            self._settle()
            self._start()

    def finish(self) -> None:
        """Wait until all is copied. Raises BincountError where that failed in the end."""
        self._settle()
        if self._waiting:
            self._start()
            self._settle()
        if self._failure:
            raise BincountError(f"trainer.checkpoint_copy: {self._folder} is not all copied: {self._failure}")

    def __enter__(self) -> "Copies":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Finish. Where something failed already, that is what people are to be told."""
        with contextlib.suppress(*[BincountError] if error else []):
            self.finish()

    def fetch(self) -> None:
        """Bring the checkpoints that there are from the copy. Raises BincountError."""
        done = subprocess.run(self._command("get"), stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise BincountError(f"trainer.checkpoint_copy: {done.stderr.strip()}")

    def _start(self) -> None:
        self._copied, self._waiting = self._waiting, set()
        self._process = subprocess.Popen(
            self._command("put", *sorted(self._copied)),
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # who ends the training's processes leaves it to its work
        )

    def _settle(self) -> None:
        """Wait for what is under way, and see how it went."""
        if self._process is None:
            return
        told = self._process.communicate()[1].strip()
        self._failure = told if self._process.returncode else None
        self._process = None
        if self._failure:
            self._waiting |= self._copied
            log.warning("a checkpoint is not copied, and will be with the next: %s", self._failure)

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", __name__, self.address, str(self._folder), *words]


def main(address: str, folder: str, action: str, *names: str) -> None:
    """What the process does: ``put`` the files of these names, or ``get`` the checkpoints."""
    store, here = storage.open_store(address), Path(folder)
    if action == "get":
        for name in (run.BEST.as_posix(), run.LAST.as_posix()):  # the last says that all is there
            if store.has(name):
                storage.write_durably(here / name, store.read(name))
    for name in names:
        content = (here / name).read_bytes()
        if isinstance(store, storage.Folder):
            storage.write_durably(store.path / name, content)
        else:
            store.write(name, content)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (BincountError, OSError) as error:
        sys.exit(one_line(error))
