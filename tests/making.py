"""Photos, records and shards for tests, made on the spot."""

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from PIL import Image

from bincount import cli
from bincount.data.images import Pixels
from bincount.data.index import Counts, ImageSize, Index, IndexedSample, rows_of, write_index
from bincount.data.shards import Sample, ShardWriter
from bincount.storage import Folder, sha256

T = TypeVar("T")

DRAWN = ["source.photos=40", "source.width=48", "source.height=40", "photos_per_shard=7"]
KNOWN = {f"{n:05d}": n % 6 for n in range(1, 31)}


def photo(width: int = 40, height: int = 32, seed: int = 0) -> Pixels:
    """A smooth photo of random colours, another for each seed: uint8 (height, width, 3)."""
    patches = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.array(Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC))


def encoded(image: Pixels | Image.Image, format: str = "JPEG", **how: Any) -> bytes:
    """The image as the bytes of a file; ``how`` as Pillow's ``save`` takes it."""
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, format, **how)
    return file.getvalue()


def jpeg(width: int = 40, height: int = 32, seed: int = 0, **how: Any) -> bytes:
    """The bytes of a JPEG of :func:`photo`."""
    return encoded(photo(width, height, seed), **how)


def declaring(jpeg: bytes, width: int, height: int) -> bytes:
    """The baseline JPEG with another size in its header."""
    place = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:place] + height.to_bytes(2) + width.to_bytes(2) + jpeg[place + 4 :]


def write_photos(folder: Path, ids: Sequence[str], width: int = 40, height: int = 32) -> Path:
    """Write ``ID.jpg`` for each id, no two alike; gives the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, id in enumerate(ids):
        (folder / f"{id}.jpg").write_bytes(jpeg(width, height, seed))
    return folder


def record(count: Any, asin: str = "A") -> dict[str, Any]:
    """An ABID record of ``count`` items, all of one product; of none where the bin is empty."""
    item = {"asin": asin, "name": f"thing {asin}", "quantity": count}
    return {"BIN_FCSKU_DATA": {asin: item} if count else {}, "EXPECTED_QUANTITY": count}


def write_records(folder: Path, counts: Mapping[str, Any]) -> Path:
    """Write ``ID.json`` for each id, each bin with a product of its own; gives the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for id, count in counts.items():
        (folder / f"{id}.json").write_text(json.dumps(record(count, f"ASIN-{id}")))
    return folder


def write_data(
    root: Path, counts: Mapping[str, int], *, split: str = "train", per_shard: int = 8, more: bool = False
) -> Index:
    """A data set of one split with the photos ``id: count``, written without `prepare`."""
    photos = {
        id: (count, jpeg(40 + seed % 7, 32 + seed % 5, seed), 40 + seed % 7, 32 + seed % 5)
        for seed, (id, count) in enumerate(counts.items())
    }
    samples = [
        IndexedSample(sample, split, sample.id) for sample in write_shards(root, split, photos, per_shard)
    ]
    digests = {each.sample.shard: sha256(root / each.sample.shard)[7:] for each in samples}
    overflow = "class" if more else "skip"
    counts_of_data = Counts(5, more)
    size = ImageSize(None, None)
    write_index(Folder(root), rows_of(samples), digests, counts_of_data, overflow, size, {"name": "test"})
    return Index.open(str(root))


def write_shards(
    root: Path, split: str, photos: Mapping[str, tuple[int | None, bytes, int, int]], per_shard: int
) -> list[Sample]:
    """Write shards of ``id: (count, JPEG, width, height)`` below ``root``; gives where each photo lies."""
    samples = []
    for number, of_shard in enumerate(batched(photos.items(), per_shard)):
        name = f"{split}/bins-{number:06d}.tar"
        shard = ShardWriter(name)
        samples += [shard.write(id, *photo) for id, photo in of_shard]
        Folder(root).write(name, shard.finish())
    return samples


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size`` items, the last perhaps shorter; itertools has it from Python 3.12 on."""
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch


def prepare(out: Path, *words: str) -> int:
    """Run `bincount prepare` without worker processes, unless said; gives its exit code."""
    return cli.main(["prepare", f"out={out}", "workers=0", *words])


class Complaint:
    """Runs commands that must end badly: exit code 2, one line, nothing left behind."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]):
        self._out, self._capsys = folder / "new" / "out", capsys

    def __call__(self, *words: str, out: Path | None = None) -> str:
        self._capsys.readouterr()
        assert prepare(out or self._out, *words) == 2
        assert not self._out.exists()
        assert not self._out.with_name(".out.partial").exists()
        told = self._capsys.readouterr()
        assert told.out == ""
        assert told.err.count("\n") == 1
        assert told.err.startswith("bincount: ")
        return told.err.removeprefix("bincount: ").strip()
