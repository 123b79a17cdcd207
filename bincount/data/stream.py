"""The stream: one lane of the plan, from shards to batches, as a WebDataset pipeline.

read_spans -> in_planned_order -> batched. A worker holds undecoded bytes of at most the
plan's window; a photo that cannot be read leaves a masked place in its batch and moves nothing else.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import webdataset as wds
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from bincount import storage
from bincount.data.images import UnreadablePhoto, decode_jpeg
from bincount.data.index import Counts, SplitTable
from bincount.data.pixels import draws, empty_batch, fit_into
from bincount.data.plan import NO_ROW, Lane, Plan, Rows
from bincount.data.unreadable import Unreadable
from bincount.errors import BincountError
from bincount.storage import Folder, RangeReader

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

    ``class_weights``: float32 (classes,), what a photo of each class weighs; None: each weighs 1.

    ``start`` is asked at the beginning of each epoch, in the worker. A batch has ``pixels`` uint8
    (B, 3, H, W), ``count`` int64 (B,) the class, ``weight`` float32 (B,) 0 for a masked place,
    ``row`` int64 (B,), ``unreadable``, a list, and for training ``draws`` float32 (B, DRAWS). Where the store
    fails the last batch is ``{"failure": BincountError}``.
    """

    def __init__(
        self,
        table: SplitTable,
        counts: Counts,
        image_size: tuple[int, int],
        rank: int,
        start: Callable[[], EpochStart],
        reader: RangeReader | None = None,
        class_weights: npt.NDArray[np.float32] | None = None,
    ):
        super().__init__()
        self._table, self._counts, self._image_size, self._rank = table, counts, image_size, rank
        self._start, self._reader = start, reader or table.store
        self._class_weights = np.ones(len(counts), np.float32) if class_weights is None else class_weights

    @property
    def far_away(self) -> bool:
        """Whether the shards are read through connections, and not from a folder."""
        return not isinstance(self._table.store, Folder)

    def __iter__(self) -> Iterator[Batch]:
        start = self._start()
        worker = get_worker_info()
        lane = start.plan.lane(self._rank, worker.id if worker else 0, start.steps_done)
        try:
            yield from self._pipeline(lane, start)
        except BincountError as failure:
            # Raised in a worker it would reach people as that worker's traceback.
            yield {"failure": failure}

    def _pipeline(self, lane: Lane, start: EpochStart) -> wds.DataPipeline:
        return wds.DataPipeline(
            partial(read_spans, self._table, self._reader, lane.reads),
            partial(in_planned_order, lane.batches.reshape(-1)),
            partial(self._batched, lane, start),
        )

    def _batched(self, lane: Lane, start: EpochStart, samples: Iterator[Sample]) -> Iterator[Batch]:
        classes = self._counts.classes(self._table.count)
        for rows in lane.batches:
            pixels = empty_batch(len(rows), self._image_size)
            readable, unreadable = np.zeros(len(rows), dtype=bool), []
            for place in range(len(rows)):
                sample = next(samples)
                problem = decode_into(pixels[place : place + 1], sample)
                readable[place] = problem is None and sample["row"] != NO_ROW
                unreadable += [problem] if problem else []
            its_class = np.where(readable, classes[rows], 0)
            weight = np.where(readable, self._class_weights[its_class], np.float32(0))
            batch = {
                "pixels": pixels,
                "count": torch.from_numpy(its_class),
                "weight": torch.from_numpy(weight),
                "row": torch.from_numpy(np.ascontiguousarray(rows)),
                "unreadable": unreadable,
            }
            if start.seed is not None:
                batch["draws"] = draws(start.seed, start.epoch, rows)
            yield batch


def read_spans(table: SplitTable, reader: RangeReader, reads: Rows) -> Iterator[Sample]:
    """The undecoded photos of ``reads``, neighbours in a shard read in one piece."""
    pieces = _pieces(table, reads)
    contents = reader.read_ranges(_range(table, rows) for rows in pieces)
    for rows, piece in zip(pieces, contents, strict=True):
        shard, start, _ = _range(table, rows)
        failure = f"the shard {piece}" if isinstance(piece, str) else None
        for row in rows:
            place, length = int(table.jpeg_offset[row]) - start, int(table.jpeg_length[row])
            jpeg = b"" if isinstance(piece, str) else piece[place : place + length]
            if failure is None and len(jpeg) < length:
                failure = "the shard ends too early"
            key = table.id[int(row)].as_py()
            yield {"__key__": key, "__url__": shard, "row": int(row), "jpg": jpeg, "cause": failure}


def _range(table: SplitTable, rows: Rows) -> storage.Range:
    """Where the piece of these rows lies."""
    start = int(table.jpeg_offset[rows[0]])
    end = int(table.jpeg_offset[rows[-1]] + table.jpeg_length[rows[-1]])
    return storage.Range(table.shards[table.shard[rows[0]]], start, end - start)


def _pieces(table: SplitTable, reads: Rows) -> list[Rows]:
    """Cut ``reads`` where the next photo lies in another shard, before, or too far behind the last."""
    if len(reads) == 0:
        return []
    shard, start = table.shard[reads], table.jpeg_offset[reads]
    end = start + table.jpeg_length[reads]
    gap = start[1:] - end[:-1]  # below 0 between copies of one photo (data.balance=oversample), too
    cuts = list(np.flatnonzero((np.diff(shard) != 0) | (np.diff(start) < 0) | (gap > MOST_GAP)) + 1)
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
            yield {"__key__": "", "__url__": "", "row": NO_ROW, "jpg": None, "cause": None}
            continue
        while row not in waiting:
            sample = next(samples)
            waiting[sample["row"]] = sample
        yield waiting.pop(row)


def decode_into(room: Tensor, sample: Sample) -> Unreadable | None:
    """Fit the sample's photo into ``room``, uint8 (1, 3, height, width); zeros where there is none."""
    cause = sample["cause"]
    if cause is None and sample["jpg"] is not None:
        try:
            fit_into(room, decode_jpeg(sample["jpg"]))
            return None
        except UnreadablePhoto as error:
            cause = str(error)
    room.zero_()
    return Unreadable(sample["__key__"], sample["__url__"], cause) if cause else None
