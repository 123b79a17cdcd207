"""What the photos of a run were like: measured once on a sample, and kept in the run's ``traits.parquet``.

What cameras do is measured on the photos that the run was trained on. What the model tells is taken of
``val``, which it never learnt from: of its training photos it is surer than of any others.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from bincount import progress, run, storage
from bincount.counter import Counter
from bincount.data.images import Pixels, UnreadablePhoto, read_photo, shrink, stored_jpeg
from bincount.data.index import Index
from bincount.data.pixels import fit
from bincount.errors import BadInput, BincountError
from bincount.exploring.traits import CAMERA, TRAITS, Values, camera_traits, columns
from bincount.model.decoding import decode
from bincount.storage import Range
from bincount.training.checkpoints import FACTS

#: Photos of each split that are measured, at the most, and what settles which.
SAMPLE, SEED = 1000, 0

#: Photos that are counted at once.
BATCH = 64

FILE = Path("traits.parquet")

#: Splits that tell what the model makes of photos; the first that there is.
HELD_OUT = ("val", "test", "train")

_NOTE = b"bincount"

T = TypeVar("T")


@dataclass(frozen=True)
class Traits:
    """The traits of photos, float64 (photos,) each, and how many photos could not be read."""

    values: dict[str, Values]
    unreadable: int = 0

    def __len__(self) -> int:
        return len(next(iter(self.values.values()), ()))


@dataclass(frozen=True)
class Known:
    """A run's photos: the traits CAMERA of the training photos, and all traits of those of ``held_out``.

    ``data``: where they came from.
    """

    trained: Traits
    told: Traits
    held_out: str
    data: str


def known(folder: Path, counter: Counter) -> Known:
    """What a run's photos were like, measured where that is not kept. Raises BadInput where it cannot be.

    It is measured anew where the run was trained or calibrated since, which changes what the model tells.
    """
    path, now = folder / FILE, version(counter)
    if path.is_file():
        kept = pq.read_table(path)
        note = json.loads(kept.schema.metadata[_NOTE])
        if note["counter"] == now:
            return _known(kept, note)
    root = run.saved_config(folder).data.root
    index = _its_data(folder, root)
    split = next(name for name in HELD_OUT if name in index.splits)
    measured = {}
    for name in dict.fromkeys(("train", split)):
        photos = places(index, (name,), SAMPLE, SEED)
        measured[name] = measure(counter, index.store.read_ranges(photos), len(photos), f"the run's {name}")
    if not all(map(len, measured.values())):
        raise BadInput(f"data.root={root}: of the photos that the run was trained on none can be read")
    note = {"counter": now, "data": root, "split": split}
    tables = [pa.table({**each.values, "split": [name] * len(each)}) for name, each in measured.items()]
    rows = pa.concat_tables(tables).replace_schema_metadata({_NOTE: json.dumps(note).encode()})
    try:
        with storage.written_whole(path) as partial:
            pq.write_table(rows, partial, compression="zstd")
    except OSError as error:
        told = f"what the run's photos are like is not kept: {path}: {error.strerror or error}"
        progress.err.print(told, soft_wrap=True, markup=False)
    return _known(rows, note)


def _its_data(folder: Path, root: str) -> Index:
    """The data set that the run was trained on. Raises BadInput where it is gone, or is another one now."""
    told = f"the run's own photos must be seen once; {folder / FILE} then keeps what they are like"
    try:
        index = Index.open(root)
    except BincountError as error:
        raise BadInput(f"{error}; {told}") from None
    facts = torch.load(run.weights(folder), map_location="cpu", weights_only=True)[FACTS]
    if facts["index_digest"] != index.digest:
        raise BadInput(f"data.root={root}: it was prepared anew since the run was trained on it; {told}")
    return index


def version(counter: Counter) -> str:
    """What changes when the counter tells anything else."""
    digest = hashlib.sha256(repr((counter.temperature, counter.decoding, counter.mirror)).encode())
    for values in counter.model.state_dict().values():
        digest.update(values.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _known(rows: pa.Table, note: dict[str, str]) -> Known:
    def of(split: str, names: Iterable[str]) -> Traits:
        held = rows.filter(pc.field("split") == split)
        return Traits({name: held[name].to_numpy() for name in names})

    return Known(of("train", CAMERA), of(note["split"], TRAITS), note["split"], note["data"])


def places(index: Index, splits: Iterable[str], sample: int, seed: int) -> list[Range]:
    """Where at most ``sample`` photos of these splits lie, in the order of their shards."""
    rows = index.rows().filter(pc.field("split").isin(list(splits)))
    rows = rows.sort_by([("shard", "ascending"), ("jpeg_offset", "ascending")])
    columns = (rows[name].to_pylist() for name in ("shard", "jpeg_offset", "jpeg_length"))
    return chosen([Range(*place) for place in zip(*columns, strict=True)], sample, seed)


def chosen(photos: list[T], sample: int, seed: int) -> list[T]:
    """At most ``sample`` of the photos, drawn evenly, in their order."""
    if len(photos) <= sample:
        return photos
    drawn = np.random.default_rng(seed).choice(len(photos), sample, replace=False)
    return [photos[place] for place in sorted(drawn.tolist())]


def measure(counter: Counter, photos: Iterable[bytes | str], number: int, what: str) -> Traits:
    """The traits of encoded photos, each brought to the form that the run's were stored in.

    In place of a photo there may be the reason why it cannot be read.
    """
    rows: list[dict[str, float]] = []
    batch: list[tuple[dict[str, float], Tensor]] = []
    unreadable = 0
    for place, encoded in enumerate(progress.track(photos, f"measuring {what}", number), start=1):
        try:
            photo = as_stored(counter, encoded)
            batch.append((camera_traits(photo), fit(photo, counter.image_size)))
        except UnreadablePhoto:
            unreadable += 1
        if batch and (len(batch) == BATCH or place == number):
            rows += _with_told(counter, batch)
            batch = []
    return Traits(columns(rows), unreadable)


def as_stored(counter: Counter, encoded: bytes | str) -> Pixels:
    """A photo in the form that the run's were stored in. Raises UnreadablePhoto."""
    if isinstance(encoded, str):
        raise UnreadablePhoto(encoded)
    stored = counter.stored
    if stored.quality is not None:
        encoded, _, _ = stored_jpeg(encoded, stored.shortest_side, stored.quality)
    return shrink(read_photo(encoded), stored.shortest_side)


def _with_told(counter: Counter, batch: list[tuple[dict[str, float], Tensor]]) -> Iterator[dict[str, float]]:
    """The traits of each photo of a batch, with what the model tells of it."""
    probabilities = counter.probabilities(torch.stack([pixels for _, pixels in batch]))
    counts, sure = decode(probabilities, counter.decoding).tolist(), probabilities.amax(dim=1).tolist()
    for (traits, _), count, certainty in zip(batch, counts, sure, strict=True):
        yield {**traits, "count": float(count), "certainty": certainty}
