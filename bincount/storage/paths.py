"""Files that are always on this machine, by their path."""

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from bincount.errors import BadInput


def folder(address: str) -> Path:
    """The folder that ``address`` names. Raises BadInput for what is not on this machine."""
    if "://" in address:
        raise BadInput(f"{address} is not a folder: only folders on this machine can be read and written")
    try:
        return Path(address).expanduser()
    except RuntimeError as error:  # ~name of nobody
        raise BadInput(f"{address}: {error}") from None


def existing_folder(address: str, what: str) -> Path:
    """Like :func:`folder`; raises BadInput, naming ``what`` was asked for, where there is none."""
    path = folder(address)
    if not path.exists():
        raise BadInput(f"{what}: there is no folder {path}")
    if not path.is_dir():
        raise BadInput(f"{what}: {path} is a file, and a folder is needed")
    return path


def files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files of a folder that end in one of ``suffixes``, hidden ones left out, by name."""
    return sorted(path for path in folder.iterdir() if is_one_of(path, suffixes))


def is_one_of(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether ``path`` is a file, not hidden, that ends in one of ``suffixes`` in any case."""
    return path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()


def read_range(path: Path, offset: int, length: int) -> bytes:
    """Read ``length`` bytes from ``offset``; fewer only where the file ends before."""
    with path.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), length, offset)


def sha256(path: Path) -> str:
    """The file's digest, as ``sha256:<hex>``."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a name to write to beside ``path``; it becomes ``path`` when all went well.

    Readers see the old file or the whole new one, whenever the writer is killed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not the process's number, which is the same in many a container that shares this folder.
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(path: Path, otherwise: str) -> Iterator[None]:
    """Keep the lock ``path`` for this process; raises BadInput, saying ``otherwise``, where another has it.

    It goes with the process, however that ends, and is not handed to those that are forked from it. Where the
    file system knows no locks nobody is kept out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise BadInput(otherwise) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
                raise
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def write_durably(path: Path, content: bytes | memoryview, before: Callable[[], None] | None = None) -> None:
    """Write a file whole or not at all, so that it is there after a loss of power, too.

    ``before`` is called when all is on the disk, and the file does not have its name yet.
    """
    with written_whole(path) as partial:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if before is not None:
            before()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all; what is no Unicode, as a file name may be, is escaped."""
    with written_whole(path) as partial:
        partial.write_bytes(text.encode("utf-8", errors="backslashreplace"))
