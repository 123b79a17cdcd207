"""The epoch plan: which photo comes when, on which rank and worker.

A plan is worked out on row numbers alone, so it can be known, checked and continued without reading a
photo. Whole global batches are planned first and then dealt out: every rank takes the same number of
steps, and no photo comes twice.

Words: a *row* is a photo's line number in the index of its split. A *lane* is one worker of one rank;
step ``s`` of a rank is read by its worker ``s % workers``. A *span* is a run of neighbouring rows of
one shard, read as one piece.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]

#: Stands in a batch where no photo comes: a masked place of weight 0.
NO_ROW = -1


@dataclass(frozen=True)
class Layout:
    """How many take part: ranks, workers a rank (0: the rank reads by itself), photos a rank's batch."""

    world_size: int
    workers: int
    batch_size: int

    @property
    def lanes(self) -> int:
        """Lanes of one rank."""
        return max(self.workers, 1)

    @property
    def global_batch(self) -> int:
        """Photos that all ranks take together in one step."""
        return self.world_size * self.batch_size


@dataclass(frozen=True)
class Lane:
    """What one worker does: it reads ``reads`` in this order and gives out ``batches`` in that one.

    ``reads``: int64 (rows,). ``batches``: int64 (steps of this lane, batch size), NO_ROW where masked.
    """

    reads: Rows
    batches: Rows


@dataclass(frozen=True)
class Plan:
    """One epoch. ``batches``: int64 (steps, world size, batch size), NO_ROW where masked.

    ``sequence``: int64 (rows,), the rows in the order in which they lie in the lanes' spans.
    """

    layout: Layout
    batches: Rows
    sequence: Rows

    @property
    def steps(self) -> int:
        """Steps of every rank."""
        return len(self.batches)

    def lane(self, rank: int, worker: int, steps_done: int = 0) -> Lane:
        """The part of the worker that reads the ``worker``-th step after ``steps_done`` (0: the start)."""
        batches = self.batches[steps_done + worker :: self.layout.lanes, rank]
        wanted = np.zeros(self.sequence.max(initial=-1) + 1, dtype=bool)
        wanted[batches[batches != NO_ROW]] = True
        return Lane(reads=self.sequence[wanted[self.sequence]], batches=batches)


def training_plan(
    rows: Rows,
    shards: Rows,
    layout: Layout,
    *,
    seed: int,
    epoch: int,
    span: int,
    window: int,
    done: Sequence[tuple[Layout, int]] = (),
) -> Plan:
    """Plan a shuffled epoch of full global batches over ``rows``, new for each seed and epoch.

    ``rows`` (int64, ascending) are the photos to take, ``shards`` (int64, same length) the shard of each.
    Spans of up to ``span`` rows are permuted over all shards and dealt to the lanes; inside its lane a
    row moves by fewer than ``window`` places, so a worker holds fewer than ``window`` photos.
    Photos too few for one more global batch are left out, drawn evenly from all.

    ``done`` tells what earlier parts of this epoch took, as (layout, steps) in turn: the plan is then
    over the rows not seen yet. A part that goes on in the same layout needs no entry: use
    ``Plan.lane(..., steps_done)``.
    """
    for part, (earlier, steps) in enumerate(done):
        taken = _shuffled(rows, shards, earlier, [seed, epoch, part], span, window).batches[:steps]
        unseen = ~np.isin(rows, taken)
        rows, shards = rows[unseen], shards[unseen]
    return _shuffled(rows, shards, layout, [seed, epoch, len(done)], span, window)


def evaluation_plan(rows: Rows, layout: Layout) -> Plan:
    """Plan every one of ``rows`` once and in order, in the same batches at any world size.

    Batch ``b`` goes to rank ``b % world_size``; what the last batches lack is NO_ROW.
    """
    steps = -(-len(rows) // layout.global_batch)
    batches = np.full(steps * layout.global_batch, NO_ROW, dtype=np.int64)
    batches[: len(rows)] = rows
    return Plan(layout, batches.reshape(steps, layout.world_size, layout.batch_size), rows)


def pick_fraction(rows: int, fraction: float, seed: int) -> Rows:
    """Choose a share of ``rows`` row numbers (at least one), the same for a seed in every epoch."""
    keep = max(1, round(rows * fraction)) if rows else 0
    return np.sort(np.random.default_rng([seed, rows]).permutation(rows)[:keep]).astype(np.int64)


def _shuffled(rows: Rows, shards: Rows, layout: Layout, key: list[int], span: int, window: int) -> Plan:
    random = np.random.default_rng(key)
    steps = len(rows) // layout.global_batch
    kept = np.ones(len(rows), dtype=bool)
    kept[random.permutation(len(rows))[steps * layout.global_batch :]] = False
    sequence = _permute_spans(rows[kept], shards[kept], span, random)

    batches = np.empty((steps, layout.world_size, layout.batch_size), dtype=np.int64)
    start = 0
    for rank in range(layout.world_size):
        for worker in range(layout.lanes):
            mine = batches[worker :: layout.lanes, rank]
            lane = sequence[start : start + mine.size]
            mine[:] = lane[_window_shuffle(len(lane), window, random)].reshape(mine.shape)
            start += mine.size
    return Plan(layout, batches, sequence)


def _permute_spans(rows: Rows, shards: Rows, span: int, random: np.random.Generator) -> Rows:
    if len(rows) == 0:
        return rows
    shard_starts = np.flatnonzero(np.diff(shards, prepend=shards[0] - 1))
    in_shard = np.arange(len(rows)) - np.repeat(shard_starts, np.diff(shard_starts, append=len(rows)))
    span_starts = np.flatnonzero(in_shard % span == 0)
    spans = np.split(rows, span_starts[1:])
    return np.concatenate([spans[i] for i in random.permutation(len(spans))])


def _window_shuffle(places: int, window: int, random: np.random.Generator) -> Rows:
    """A random order of ``places`` in which none moves by ``window`` places or more.

    Each place gets a key from its own number up to ``window`` above. A place ``window`` or more behind
    can then never overtake, and one as far ahead never falls back.
    """
    keys = np.arange(places) + window * random.random(places)
    return np.argsort(keys, kind="stable").astype(np.int64)
