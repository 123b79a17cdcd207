"""Which photo of the catalogue goes to which split, and to which place of which shard.

All of it is settled before a photo is read: every shard can be made by itself, on any machine, at any time. A
photo that turns out to be unreadable leaves its shard shorter, and moves no other.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from bincount.data.catalogue import Catalogue, Entry
from bincount.data.index import SPLITS, UNLABELLED, Counts
from bincount.data.skipped import Skipped
from bincount.data.splits import assign_splits

_COLUMNS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("count", pa.int32(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("photo", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class ShardPlan:
    """A shard to be made: its name in the data set, its split, and its rows of :func:`as_table`."""

    name: str
    split: str
    rows: pa.Table

    def entries(self) -> list[Entry]:
        """The photos that belong there, in order."""
        return [Entry(**row) for row in self.rows.to_pylist()]


def allot(
    catalogue: Catalogue, counts: Counts, overflow: str, ratios: dict[str, float], seed: int
) -> list[Entry]:
    """The entries to write, each with its split, in the order of the shards; ``catalogue`` learns the rest.

    ``overflow``: what becomes of counts above the highest, as in the configuration.
    """
    labelled, unlabelled = [], []
    for entry in catalogue.entries:
        if entry.count <= counts.max_count or overflow == "class":
            labelled.append(entry)
        elif overflow == "unlabelled":
            unlabelled.append(replace(entry, split=UNLABELLED))
        else:
            catalogue.skipped.append(Skipped(entry.id, entry.photo, too_many(entry.count, counts.max_count)))
    if any(entry.split is None for entry in labelled):
        classes = counts.classes(np.array([entry.count for entry in labelled]))
        splits = assign_splits(classes.tolist(), [entry.group for entry in labelled], ratios, seed)
        labelled = [replace(entry, split=split) for entry, split in zip(labelled, splits, strict=True)]
    # Neighbouring ids show the same bin: apart from each other, they do not come in one batch.
    entries = sorted([*labelled, *unlabelled], key=lambda entry: entry.id)
    order = np.random.default_rng([seed, len(entries)]).permutation(len(entries))
    place = {split: n for n, split in enumerate((*SPLITS, UNLABELLED))}
    return sorted((entries[n] for n in order), key=lambda entry: place[str(entry.split)])


def too_many(count: int, max_count: int) -> str:
    """Why a photo is left out whose count the model does not learn."""
    return f"above max_count {max_count}: the count is {count}"


def as_table(entries: list[Entry]) -> pa.Table:
    """The entries as columns."""
    return pa.table(
        {name: [getattr(entry, name) for entry in entries] for name in _COLUMNS.names}, schema=_COLUMNS
    )


def shard_plans(allotted: pa.Table, photos_per_shard: int) -> Iterator[ShardPlan]:
    """The shards of a table of :func:`as_table`, split by split."""
    splits = allotted["split"].to_numpy(zero_copy_only=False)
    starts = [n for n in range(len(splits)) if n == 0 or splits[n] != splits[n - 1]]
    for start, end in zip(starts, [*starts[1:], len(splits)], strict=True):
        split = str(splits[start])
        for number, first in enumerate(range(start, end, photos_per_shard)):
            rows = allotted.slice(first, min(photos_per_shard, end - first))
            yield ShardPlan(f"{split}/bins-{number:06d}.tar", split, rows)
