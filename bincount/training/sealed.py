"""Checkpoint files that are whole, or known not to be.

A checkpoint is a zip archive, as torch writes it, whose comment is the SHA-256 of all before the comment:
`unzip -z last.ckpt` shows it, and `torch.load` does not mind it. One file, so that digest and content can
never be of two different saves. It is written under another name, flushed to the disk, and renamed.
"""

import hashlib
import io
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric.plugins import CheckpointIO
from torch import distributed

from bincount import run, storage
from bincount.errors import BincountError, one_line

log = logging.getLogger(__name__)

Checkpoint = dict[str, Any]

_MARK = b"bincount sha256 "
_COMMENT = len(_MARK) + 64


class Damaged(BincountError):
    """A checkpoint that is torn, or was changed since it was written."""


def sealed(checkpoint: Checkpoint) -> memoryview:
    """The checkpoint as the bytes of a file."""
    file = io.BytesIO()
    torch.save(checkpoint, file)
    file.seek(-2, os.SEEK_END)  # where an archive says how long its comment is
    file.write(_COMMENT.to_bytes(2, "little"))
    digest = hashlib.sha256(file.getbuffer()).hexdigest()
    file.write(_MARK + digest.encode())
    return file.getbuffer()


def opened(content: bytes, name: str) -> Checkpoint:
    """The checkpoint that :func:`sealed` gave. Raises Damaged, naming it."""
    comment = content[-_COMMENT:]
    if not comment.startswith(_MARK):
        raise Damaged(f"{name} has no SHA-256 at its end: it is torn")
    if hashlib.sha256(memoryview(content)[:-_COMMENT]).hexdigest().encode() != comment[len(_MARK) :]:
        raise Damaged(f"{name} does not fit its SHA-256: it is damaged")
    try:
        checkpoint: Checkpoint = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch tells in many ways that it does not know the content
        raise Damaged(f"{name} cannot be read: {one_line(error)}") from None
    return checkpoint


def read(path: Path) -> Checkpoint:
    """A checkpoint from its file. Raises Damaged."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {error.strerror}") from None
    return opened(content, str(path))


def newest(folder: Path) -> tuple[Path, Checkpoint] | None:
    """The run's last whole checkpoint; None where there is none yet. Raises Damaged where none is whole.

    A damaged one is put aside, so that it cannot take the place of the one before it.
    """
    for leftover in (folder / run.LAST.parent).glob(".*.partial"):  # of a run killed while saving
        leftover.unlink()
    damaged: Damaged | None = None
    for path in (folder / run.LAST, folder / run.PREVIOUS):
        if not path.exists():
            continue
        try:
            return path, read(path)
        except Damaged as error:
            damaged = error
            path.replace(path.with_name("damaged.ckpt"))
            log.warning("%s: put aside as damaged.ckpt, to go on from the checkpoint before it", error)
    if damaged:
        raise Damaged(f"{damaged}, and there is none before it: start a new run")
    return None


class SealedIO(CheckpointIO):
    """How Lightning writes and reads checkpoints, whoever asks it to: ``trainer.save_checkpoint(path)``.

    ``last.ckpt`` becomes ``previous.ckpt`` when a new one takes its place. A save that fails is told in the
    log and leaves the checkpoints as they are; what is still unsaved at the end, :meth:`finish` raises.
    ``device`` is what collectives take tensors from. ``written`` is called with the path of each file saved.
    """

    def __init__(self, device: str = "cpu", written: Callable[[Path], None] | None = None):
        self._device, self._written = torch.device(device), written
        self._unsaved: dict[Path, str] = {}

    def save_checkpoint(
        self, checkpoint: Checkpoint, path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        place = Path(path)
        try:
            storage.write_durably(place, sealed(checkpoint), lambda: _keep_previous(place))
        except OSError as error:
            reason = f"{place} of step {checkpoint['global_step']} cannot be saved: {error.strerror or error}"
            self._unsaved[place] = reason
            log.error("%s; training goes on, the checkpoints before it are whole", reason)
        else:
            self._unsaved.pop(place, None)
            if self._written is not None:
                self._written(place)

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = None
    ) -> Checkpoint:
        """Rank 0 reads the file; the others, which may be on other machines, get what it read."""
        if not distributed.is_initialized():
            return read(Path(path))
        first = distributed.get_rank() == 0
        content = np.fromfile(path, np.uint8) if first else np.empty(0, np.uint8)
        length = torch.tensor([len(content)], device=self._device)
        distributed.broadcast(length, 0)
        sent = torch.from_numpy(content) if first else torch.empty(int(length), dtype=torch.uint8)
        sent = sent.to(self._device)
        distributed.broadcast(sent, 0)
        return opened(sent.cpu().numpy().tobytes(), str(path))

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        Path(path).unlink(missing_ok=True)

    def finish(self) -> None:
        """Raise BincountError where the newest save of a checkpoint failed."""
        if self._unsaved:
            raise BincountError(f"{'; '.join(self._unsaved.values())}: make room and resume the run")


def _keep_previous(path: Path) -> None:
    if path.name == run.LAST.name and path.exists():
        path.replace(path.parent / run.PREVIOUS.name)
