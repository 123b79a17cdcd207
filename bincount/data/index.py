"""The index of a data set: what is in it, and where each photo lies.

``index.json`` tells the whole in a page; ``index.parquet`` has a row a photo. The first names the
digest of the second, so that two files of different data sets are never taken together.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bincount import storage
from bincount.data.parquet import table_in
from bincount.data.shards import Sample
from bincount.errors import BadInput
from bincount.storage import Folder, NotThere, Store

SCHEMA_VERSION = 1

SPLITS = ("train", "val", "test")

#: The split of photos without a label, for pre-training.
UNLABELLED = "unlabelled"

COLUMNS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("count", pa.int32()),
        pa.field("split", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("length", pa.int64(), nullable=False),
        pa.field("jpeg_offset", pa.int64(), nullable=False),
        pa.field("jpeg_length", pa.int64(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
    ]
)


def probability_columns(names: Iterable[str]) -> list[str]:
    """The columns of a table that have the probability of each count, by the names of the counts."""
    return [f"p_{name}" for name in names]


@dataclass(frozen=True)
class Counts:
    """Which counts a data set has: 0 to ``max_count``, and with ``more`` one class for all above."""

    max_count: int
    more: bool = False

    def __len__(self) -> int:
        return self.max_count + 1 + self.more

    @property
    def names(self) -> list[str]:
        """One name a class, in the order of the model's outputs."""
        return [str(count) for count in range(self.max_count + 1)] + ["more"] * self.more

    def classes(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The class of each count: itself, or the class "more"."""
        return np.minimum(counts, self.max_count + 1)


@dataclass(frozen=True)
class ImageSize:
    """How `prepare` stored the photos: pixels of the shortest side (None: as they came), JPEG quality."""

    shortest_side: int | None
    quality: int | None


@dataclass(frozen=True)
class SplitTable:
    """The photos of one split as columns, a row a photo, in the order of their shards.

    ``count``, ``shard`` (a number into ``shards``), ``jpeg_offset`` and ``jpeg_length``: int64 (rows,).
    """

    name: str
    store: Store
    id: pa.StringArray
    count: npt.NDArray[np.int64]
    shards: list[str]
    shard: npt.NDArray[np.int64]
    jpeg_offset: npt.NDArray[np.int64]
    jpeg_length: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.count)

    def jpeg(self, row: int) -> bytes:
        """The photo of a row, as it is stored."""
        shard = self.shards[self.shard[row]]
        return self.store.read_range(shard, int(self.jpeg_offset[row]), int(self.jpeg_length[row]))

    def take(self, rows: npt.NDArray[np.int64]) -> "SplitTable":
        """The photos of these rows, any of them more than once."""
        columns = ("count", "shard", "jpeg_offset", "jpeg_length")
        return replace(
            self, id=self.id.take(pa.array(rows)), **{name: getattr(self, name)[rows] for name in columns}
        )


@dataclass(frozen=True)
class Index:
    """An opened data set."""

    store: Store
    counts: Counts
    image_size: ImageSize
    digest: str
    summary: dict[str, Any]

    @classmethod
    def open(cls, address: str) -> "Index":
        """Open the data set at ``address``. Raises BadInput where there is none, or half of one."""
        store = storage.open_store(address)
        if isinstance(store, Folder):
            if not store.path.exists():
                told = "there is no such folder: make it with `bincount prepare`"
                raise BadInput(f"data.root={address}: {told}")
            storage.existing_folder(address, "data.root")
        try:
            content = store.read("index.json")
        except NotThere:
            raise BadInput(
                f"{store.address} is no prepared data set (it has no index.json): make one with "
                "`bincount prepare`"
            ) from None
        path = store.place("index.json")
        try:
            summary = json.loads(content)
            version = summary["schema_version"]
            if version != SCHEMA_VERSION:
                raise BadInput(
                    f"{path} has schema version {version}, this program reads {SCHEMA_VERSION}: prepare again"
                )
            index = cls(
                store,
                Counts(summary["max_count"], summary["overflow"] == "class"),
                ImageSize(**summary["image_size"]),
                summary["index_digest"],
                summary,
            )
            index.splits  # noqa: B018 a damaged summary of the splits is found here
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BadInput(f"{path} is damaged: prepare the data set again") from None
        index._table  # noqa: B018 that index.parquet is another one's is found here
        return index

    @property
    def splits(self) -> list[str]:
        """Names of the splits that have photos."""
        return [name for name, split in self.summary["splits"].items() if split["samples"]]

    def photos_per_count(self, split: str) -> dict[str, int]:
        """Photos of each class of the split, by the names of :class:`Counts`."""
        return dict(self.summary["splits"][split]["photos_per_count"])

    @cached_property
    def _table(self) -> pa.Table:
        """The rows. Raises BadInput where they are not those of ``index.json``."""
        try:
            rows = self.store.read("index.parquet")
        except NotThere:
            rows = b""
        if f"sha256:{hashlib.sha256(rows).hexdigest()}" != self.digest:
            raise BadInput(
                f"{self.store.place('index.parquet')} is not the one that index.json names: prepare the data "
                "set again"
            )
        return table_in(rows)

    def rows(self) -> pa.Table:
        """Every photo of every split, with the columns COLUMNS."""
        return self._table

    def split(self, name: str) -> SplitTable:
        """The photos of one split. Raises BadInput where the data set has none of it."""
        if name not in self.splits:
            raise BadInput(
                f"{self.store.address} has no photos in split {name!r}: it has {', '.join(self.splits)}"
            )
        rows = self._table.filter(pc.field("split") == name)
        shard = rows["shard"].combine_chunks().dictionary_encode()
        return SplitTable(
            name=name,
            store=self.store,
            id=rows["id"].combine_chunks(),
            count=_numbers(rows, "count"),
            shards=shard.dictionary.to_pylist(),
            shard=shard.indices.to_numpy().astype(np.int64),
            jpeg_offset=_numbers(rows, "jpeg_offset"),
            jpeg_length=_numbers(rows, "jpeg_length"),
        )


def _numbers(rows: pa.Table, column: str) -> npt.NDArray[np.int64]:
    values: npt.NDArray[np.int64] = pc.fill_null(rows[column], 0).to_numpy().astype(np.int64)
    return values


@dataclass(frozen=True, slots=True)
class IndexedSample:
    """A sample with its place among the splits."""

    sample: Sample
    split: str
    group: str


def rows_of(samples: Iterable[IndexedSample]) -> pa.Table:
    """The rows of the index that tell of ``samples``."""
    rows = [{**_columns(each.sample), "split": each.split, "group": each.group} for each in samples]
    return pa.Table.from_pylist(rows, schema=COLUMNS)


def _columns(sample: Sample) -> dict[str, Any]:
    return {field.name: getattr(sample, field.name) for field in fields(sample)}


def write_index(
    store: Store,
    rows: pa.Table,
    digests: Mapping[str, str],
    counts: Counts,
    overflow: str,
    image_size: ImageSize,
    source: dict[str, Any],
) -> dict[str, Any]:
    """Write both files of the index, ``index.json`` last: without it a place holds no data set.

    ``digests``: the SHA-256 of each shard, in hexadecimal. Returns the content of ``index.json``.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd")
    parquet = sink.getvalue().to_pybytes()
    store.write("index.parquet", parquet)
    splits = (*SPLITS, UNLABELLED) if overflow == "unlabelled" else SPLITS
    summary = {
        "schema_version": SCHEMA_VERSION,
        "max_count": counts.max_count,
        "overflow": overflow,
        "image_size": asdict(image_size),
        "splits": {split: _split_summary(rows, split, digests, counts) for split in splits},
        "source": source,
        "index_digest": f"sha256:{hashlib.sha256(parquet).hexdigest()}",
    }
    store.write("index.json", f"{json.dumps(summary, indent=2)}\n".encode())
    return summary


def _split_summary(table: pa.Table, split: str, digests: Mapping[str, str], counts: Counts) -> dict[str, Any]:
    rows = table.filter(pc.field("split") == split)
    labelled = rows["count"].drop_null().to_numpy().astype(np.int64)
    per_class = np.bincount(counts.classes(labelled), minlength=len(counts))
    in_shards = rows["shard"].value_counts().to_pylist()
    return {
        "samples": len(rows),
        "shards": [
            {"name": each["values"], "samples": each["counts"], "sha256": digests[each["values"]]}
            for each in in_shards
        ],
        "photos_per_count": dict(zip(counts.names, per_class.tolist(), strict=True)),
    }
