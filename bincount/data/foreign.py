"""Shards made elsewhere: what any WebDataset writer may have put in a tar file."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from bincount import progress
from bincount.data.allotment import too_many
from bincount.data.images import UnreadablePhoto, jpeg_size
from bincount.data.index import SPLITS, UNLABELLED, IndexedSample
from bincount.data.records import MAX_COUNT
from bincount.data.shards import Sample
from bincount.data.skipped import Skipped
from bincount.errors import BadInput, one_line

JPEG_SUFFIXES = ("jpg", "jpeg")


def find_shards(root: Path) -> list[str]:
    """Names of the shards ``<split>/*.tar`` below ``root``. Raises BadInput where there is none."""
    shards = sorted(f"{split}/{path.name}" for split in SPLITS for path in (root / split).glob("*.tar"))
    if not shards:
        wanted = ", ".join(f"{split}/*.tar" for split in SPLITS)
        raise BadInput(f"out={root}: there are no shards in it: put them in {wanted}")
    return shards


def index_samples(
    root: Path, shards: list[str], max_count: int, overflow: str
) -> tuple[list[IndexedSample], list[Skipped]]:
    """The samples of the shards where they lie, and what cannot be used.

    ``overflow`` as in the configuration. Raises BadInput for a file that is no whole tar.
    """
    indexed: dict[str, IndexedSample] = {}
    skipped: list[Skipped] = []
    for name in progress.track(shards, "indexing shards", len(shards)):
        split = name.partition("/")[0]
        for found in _samples(root, name):
            if not isinstance(found, Sample):
                skipped.append(Skipped(found[0], name, found[1]))
            elif found.id in indexed:
                before = indexed[found.id].sample.shard
                skipped.append(Skipped(found.id, name, f"the id again, as in {before}"))
            elif found.count is None or found.count <= max_count or overflow == "class":
                indexed[found.id] = IndexedSample(found, split, found.id)
            elif overflow == "unlabelled":
                indexed[found.id] = IndexedSample(replace(found, count=None), UNLABELLED, found.id)
            else:
                skipped.append(Skipped(found.id, name, too_many(found.count, max_count)))
    return list(indexed.values()), skipped


def _samples(root: Path, shard: str) -> Iterator[Sample | tuple[str, str]]:
    try:
        yield from read_samples(root, shard)
    except tarfile.TarError as error:
        raise BadInput(f"{root / shard} is no whole tar file: {one_line(error)}") from None


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
