"""The stream: one lane of the plan, from shards to batches, as a WebDataset pipeline.

read_spans -> in_planned_order -> decode -> batched. A worker holds undecoded bytes of at most the
plan's window; a photo that cannot be read leaves a masked place in its batch and moves nothing else.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import webdataset as wds
from torch.utils.data import IterableDataset, get_worker_info

from bincount import storage
from bincount.data.images import UnreadablePhoto, decode_jpeg
from bincount.data.index import Counts, SplitTable
from bincount.data.pixels import draws, fit
from bincount.data.plan import NO_ROW, Lane, Plan, Rows

#: Bytes that are read in one piece at the most, and that may be read in vain between two photos.
MOST_BYTES = 8 << 20
MOST_GAP = 64 << 10

Sample = dict[str, Any]
Batch = dict[str, Any]


@dataclass(frozen=True)
class EpochStart:
    """Where an epoch's stream starts. ``seed`` None: no random numbers for augmentation."""

    plan: Plan
    epoch: int = 0
    steps_done: int = 0
    seed: int | None = None


class PhotoStream(IterableDataset[Batch]):
    """Batches of one rank: what a DataLoader with ``batch_size=None`` and the layout's workers reads.

    ``start`` is asked at the beginning of each epoch, in the worker. A batch has ``pixels`` uint8
    (B, 3, H, W), ``count`` int64 (B,) the class, ``weight`` float32 (B,) 1 or 0 for a masked place,
    ``row`` int64 (B,), ``unreadable``, a list of reasons, and for training ``draws`` float32 (B, DRAWS).
    """

    def __init__(
        self,
        table: SplitTable,
        counts: Counts,
        image_size: tuple[int, int],
        rank: int,
        start: Callable[[], EpochStart],
    ):
        super().__init__()
        self._table, self._counts, self._image_size, self._rank = table, counts, image_size, rank
        self._start = start

    def __iter__(self) -> Iterator[Batch]:
        start = self._start()
        worker = get_worker_info()
        lane = start.plan.lane(self._rank, worker.id if worker else 0, start.steps_done)
        return iter(self._pipeline(lane, start))

    def _pipeline(self, lane: Lane, start: EpochStart) -> wds.DataPipeline:
        return wds.DataPipeline(
            partial(read_spans, self._table, lane.reads),
            partial(in_planned_order, lane.batches.reshape(-1)),
            partial(decode, self._image_size),
            partial(self._batched, lane, start),
        )

    def _batched(self, lane: Lane, start: EpochStart, samples: Iterator[Sample]) -> Iterator[Batch]:
        classes = self._counts.classes(self._table.count)
        for rows in lane.batches:
            photos = [next(samples) for _ in rows]
            weight = np.array([photo["pixels"] is not None for photo in photos], dtype=np.float32)
            empty = torch.zeros((3, *self._image_size), dtype=torch.uint8)
            batch = {
                "pixels": torch.stack(
                    [empty if photo["pixels"] is None else photo["pixels"] for photo in photos]
                ),
                "count": torch.from_numpy(np.where(weight > 0, classes[rows], 0)),
                "weight": torch.from_numpy(weight),
                "row": torch.from_numpy(np.ascontiguousarray(rows)),
                "unreadable": [photo["reason"] for photo in photos if photo["reason"]],
            }
            if start.seed is not None:
                batch["draws"] = draws(start.seed, start.epoch, rows)
            yield batch


def read_spans(table: SplitTable, reads: Rows) -> Iterator[Sample]:
    """The undecoded photos of ``reads``, neighbours in a shard read in one piece."""
    for rows in _pieces(table, reads):
        shard = table.shards[table.shard[rows[0]]]
        start = int(table.jpeg_offset[rows[0]])
        end = int(table.jpeg_offset[rows[-1]] + table.jpeg_length[rows[-1]])
        try:
            piece, failure = storage.read_range(table.root / shard, start, end - start), None
        except OSError as error:
            piece, failure = b"", f"{shard} cannot be read: {error.strerror}"
        for row in rows:
            place, length = int(table.jpeg_offset[row]) - start, int(table.jpeg_length[row])
            jpeg = piece[place : place + length]
            if failure is None and len(jpeg) < length:
                failure = f"{shard} ends before its last photo"
            key = table.id[int(row)].as_py()
            yield {"__key__": key, "__url__": shard, "row": int(row), "jpg": jpeg, "reason": failure}


def _pieces(table: SplitTable, reads: Rows) -> list[Rows]:
    """Cut ``reads`` where the next photo lies in another shard, before, or too far behind the last."""
    if len(reads) == 0:
        return []
    shard, start = table.shard[reads], table.jpeg_offset[reads]
    end = start + table.jpeg_length[reads]
    gap = start[1:] - end[:-1]
    cuts = list(np.flatnonzero((np.diff(shard) != 0) | (gap < 0) | (gap > MOST_GAP)) + 1)
    pieces = []
    for run in np.split(np.arange(len(reads)), cuts):
        # A long run is cut again into pieces of bounded size.
        sizes = (end[run] - start[run[0]]) // MOST_BYTES
        pieces += [reads[piece] for piece in np.split(run, list(np.flatnonzero(np.diff(sizes)) + 1))]
    return pieces


def in_planned_order(order: Rows, samples: Iterator[Sample]) -> Iterator[Sample]:
    """Hold samples back until the plan says that they come; NO_ROW gives an empty sample."""
    waiting: dict[int, Sample] = {}
    for row in order.tolist():
        if row == NO_ROW:
            yield {"__key__": "", "__url__": "", "row": NO_ROW, "jpg": None, "reason": None}
            continue
        while row not in waiting:
            sample = next(samples)
            waiting[sample["row"]] = sample
        yield waiting.pop(row)


def decode(image_size: tuple[int, int], samples: Iterable[Sample]) -> Iterator[Sample]:
    """Put ``pixels``, uint8 (3, height, width), in place of ``jpg``; None and ``reason`` if unreadable."""
    for sample in samples:
        jpeg = sample.pop("jpg")
        sample["pixels"] = None
        if jpeg is not None and sample["reason"] is None:
            try:
                sample["pixels"] = fit(decode_jpeg(jpeg), image_size)
            except UnreadablePhoto as error:
                sample["reason"] = str(error)
        if sample["reason"]:
            sample["reason"] = f"{sample['__key__']} in {sample['__url__']}: {sample['reason']}"
        yield sample
