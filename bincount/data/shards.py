"""Shards: WebDataset tar files whose every byte is settled by what they hold.

A sample is two members, ``ID.jpg`` and ``ID.json`` (``{"id", "count", ...}``), in that order.
"""

import io
import tarfile
from dataclasses import dataclass

import orjson


@dataclass(frozen=True, slots=True)
class Sample:
    """Where one photo lies in a shard. Offsets and lengths in bytes; the whole sample with its headers."""

    id: str
    count: int | None
    shard: str
    offset: int
    length: int
    jpeg_offset: int
    jpeg_length: int
    width: int
    height: int


class ShardWriter:
    """Builds the shard ``name`` in memory."""

    def __init__(self, name: str):
        self._name, self._file = name, io.BytesIO()
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115

    def write(self, id: str, count: int | None, jpeg: bytes, width: int, height: int) -> Sample:
        """Append one photo, ``width`` x ``height`` pixels; ``count`` None where it has no label."""
        start = self._tar.offset
        jpeg_offset = _add(self._tar, f"{id}.jpg", jpeg)
        _add(self._tar, f"{id}.json", orjson.dumps({"id": id, "count": count}))
        length = self._tar.offset - start
        return Sample(id, count, self._name, start, length, jpeg_offset, len(jpeg), width, height)

    def finish(self) -> bytes:
        """The whole tar file."""
        self._tar.close()
        return self._file.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Add a member and return the offset of its content. An integer time keeps the header at one block."""
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = len(content), 0, 0o644
    tar.addfile(member, io.BytesIO(content))
    return int(tar.offset) - -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
