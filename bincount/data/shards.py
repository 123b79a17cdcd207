"""Shards: WebDataset tar files whose every byte is settled by what they hold.

A sample is two members, ``ID.jpg`` and ``ID.json`` (``{"id", "count", ...}``), in that order.
"""

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson

from bincount.data.images import UnreadablePhoto, jpeg_size
from bincount.data.records import MAX_COUNT

JPEG_SUFFIXES = ("jpg", "jpeg")


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
    """Writes the samples of one split to ``<root>/<split>/bins-000000.tar`` and on."""

    def __init__(self, root: Path, split: str, photos_per_shard: int):
        self._root, self._split, self._photos_per_shard = root, split, photos_per_shard
        self._written = 0
        self._tar: tarfile.TarFile | None = None
        self._name = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tar is not None:
            self._tar.close()

    def write(self, id: str, count: int | None, jpeg: bytes, width: int, height: int) -> Sample:
        """Append one photo, ``width`` x ``height`` pixels; ``count`` None where it has no label."""
        tar = self._shard_with_room()
        start = tar.offset
        jpeg_offset = _add(tar, f"{id}.jpg", jpeg)
        _add(tar, f"{id}.json", orjson.dumps({"id": id, "count": count}))
        self._written += 1
        return Sample(id, count, self._name, start, tar.offset - start, jpeg_offset, len(jpeg), width, height)

    def _shard_with_room(self) -> tarfile.TarFile:
        shard, place = divmod(self._written, self._photos_per_shard)
        if self._tar is None or place == 0:
            if self._tar is not None:
                self._tar.close()
            self._name = f"{self._split}/bins-{shard:06d}.tar"
            path = self._root / self._name
            path.parent.mkdir(parents=True, exist_ok=True)
            self._tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 closed in __exit__
        return self._tar


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Add a member and return the offset of its content. An integer time keeps the header at one block."""
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = len(content), 0, 0o644
    tar.addfile(member, io.BytesIO(content))
    return int(tar.offset) - -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


@dataclass(slots=True)
class _Members:
    """The members of one sample, as they are met; their names up to the first dot are its ``key``."""

    key: str
    start: int
    end: int = 0
    jpeg: tarfile.TarInfo | None = None
    count: int | None = None
    id: str | None = None


def read_samples(root: Path, shard: str) -> Iterator[Sample | tuple[str, str]]:
    """Find the samples of a shard that any WebDataset writer made, in one pass over its headers.

    Yields a Sample, or (key, reason) for one that cannot be used: it has no JPEG, no count in
    ``.json`` ("count") or ``.cls``, or a broken header of its JPEG. Raises tarfile.TarError for a
    file that is no tar.
    """
    with tarfile.open(root / shard, "r:") as tar:
        sample: _Members | None = None
        for member in tar:
            if not member.isfile():
                continue
            folder, slash, name = member.name.rpartition("/")
            name, _, suffix = name.partition(".")
            if not name:
                continue  # a hidden file: other WebDataset readers pass over it, too
            key = f"{folder}{slash}{name}"
            if sample is None or sample.key != key:
                if sample is not None:
                    yield _finish(tar, shard, sample)
                sample = _Members(key, member.offset)
            sample.end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            _take(tar, member, suffix.lower(), sample)
        if sample is not None:
            yield _finish(tar, shard, sample)


def _take(tar: tarfile.TarFile, member: tarfile.TarInfo, suffix: str, sample: _Members) -> None:
    if suffix in JPEG_SUFFIXES:
        sample.jpeg = member
    elif suffix == "cls":
        sample.count = _whole_number(_content(tar, member))
    elif suffix == "json":
        try:
            fields = orjson.loads(_content(tar, member))
        except orjson.JSONDecodeError:
            return
        if isinstance(fields, dict):
            id = fields.get("id")
            sample.id = str(id) if isinstance(id, str | int) and not isinstance(id, bool) else None
            count = _whole_number(fields.get("count"))
            sample.count = sample.count if count is None else count


def _finish(tar: tarfile.TarFile, shard: str, sample: _Members) -> Sample | tuple[str, str]:
    if sample.jpeg is None:
        return sample.key, "has no .jpg member"
    if sample.count is None:
        return sample.key, 'has no count: neither "count" in a .json member nor a .cls member'
    try:
        width, height = jpeg_size(_content(tar, sample.jpeg))
    except UnreadablePhoto as error:
        return sample.key, str(error)
    return Sample(
        id=sample.id or sample.key.rpartition("/")[2],
        count=sample.count,
        shard=shard,
        offset=sample.start,
        length=sample.end - sample.start,
        jpeg_offset=sample.jpeg.offset_data,
        jpeg_length=sample.jpeg.size,
        width=width,
        height=height,
    )


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return b"" if file is None else file.read()


def _whole_number(value: object) -> int | None:
    """A count of 0 or more, from a number or its digits as text or bytes."""
    if isinstance(value, bytes | str):
        digits = value.strip()
        value = int(digits) if digits.isdigit() and digits.isascii() and len(digits) <= 10 else None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_COUNT:
        return None
    return value
