"""A folder on this machine as a store."""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from bincount.errors import BadInput, BincountError
from bincount.storage import paths
from bincount.storage.store import NotThere, Range, Store


class Folder(Store):
    """Names are paths below ``path``. Missing folders are made when something is written."""

    def __init__(self, path: Path):
        self.path, self.address = path, str(path)

    def below(self, folder: str) -> "Folder":
        return Folder(self.path / folder)

    def held(self) -> set[str]:
        with self._told(""):
            return {path.name for path in self.path.iterdir()} if self._is_there() else set()

    def names(self, *, deep: bool = False) -> list[str]:
        with self._told(""):
            return sorted(_names(self.path, "", deep)) if self._is_there() else []

    def first(self) -> str | None:
        with self._told(""):
            return next(_names(self.path, "", True), None) if self._is_there() else None

    def has(self, name: str) -> bool:
        with self._told(name):
            return (self.path / name).exists()

    def read(self, name: str) -> bytes:
        with self._told(name):
            return (self.path / name).read_bytes()

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        with self._told(name):
            return paths.read_range(self.path / name, offset, length)

    def read_many(self, names: Iterable[str]) -> Iterator[bytes | str]:
        # One name is as good as another here: what is wrong with a file says nothing about the folder.
        for name in names:
            try:
                with open(f"{self.path}/{name}", "rb", buffering=0) as file:
                    content = file.read()
            except OSError as error:
                yield f"cannot be read: {error.strerror}"
            else:
                yield content

    def read_ranges(self, ranges: Iterable[Range]) -> Iterator[bytes | str]:
        for name, offset, length in ranges:
            try:
                content = paths.read_range(self.path / name, offset, length)
            except OSError as error:
                yield (
                    "is not there"
                    if isinstance(error, FileNotFoundError)
                    else f"cannot be read: {error.strerror}"
                )
            else:
                yield content

    def write(self, name: str, content: bytes) -> None:
        with self._told(name), paths.written_whole(self.path / name) as partial:
            partial.write_bytes(content)

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            path = self.path / name
            with self._told(name):
                path.unlink(missing_ok=True)
            # Objects have no folders: one that has nothing left goes, too.
            for folder in path.parents:
                if folder == self.path or not folder.is_dir() or any(folder.iterdir()):
                    break
                folder.rmdir()

    def clear(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def draft(self) -> "Folder":
        """The hidden ``.<name>.partial`` beside it."""
        path = self.path.resolve()
        return Folder(path.with_name(f".{path.name}.partial"))

    def publish(self, draft: Store) -> None:
        """Rename the draft, and the old folder out of its way.

        Killed between the two renames, the old folder lies beside its place as ``.<name>.replaced``; the next
        :meth:`restore` puts it back.
        """
        assert isinstance(draft, Folder)
        path, replaced = self.path.resolve(), self._replaced()
        with self._told(""):
            for killed in draft.path.rglob(".*.partial"):
                killed.unlink()
            if path.exists():
                path.rename(replaced)
            draft.path.rename(path)
            shutil.rmtree(replaced, ignore_errors=True)

    def restore(self) -> None:
        """Put back what a killed :meth:`publish` moved out of the way."""
        path, replaced = self.path.resolve(), self._replaced()
        with self._told(""):
            if replaced.exists() and not path.exists():
                replaced.rename(path)
        shutil.rmtree(replaced, ignore_errors=True)

    def _is_there(self) -> bool:
        if self.path.exists() and not self.path.is_dir():
            raise BadInput(f"{self.path} is a file: name a folder")
        return self.path.exists()

    def _replaced(self) -> Path:
        path = self.path.resolve()
        return path.with_name(f".{path.name}.replaced")

    @contextlib.contextmanager
    def _told(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise NotThere(f"there is no {self.path / name}") from None
        except OSError as error:
            raise BincountError(f"{self.path / name}: {error.strerror or error}") from None


def _names(folder: Path, before: str, deep: bool) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_file():
                yield before + entry.name
            elif deep and entry.is_dir():
                yield from _names(folder / entry.name, f"{before}{entry.name}/", deep)
