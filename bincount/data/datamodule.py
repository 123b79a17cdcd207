"""A data set as Lightning takes it: loaders that follow the epoch plan, pixels to floats on the device."""

import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from bincount import config
from bincount.data.index import Index, SplitTable
from bincount.data.pixels import Augmentation, augment, normalise
from bincount.data.plan import Layout, Rows, evaluation_plan, pick_fraction, training_plan
from bincount.data.stream import Batch, EpochStart, PhotoStream

log = logging.getLogger(__name__)


class Position:
    """Where a training epoch starts: told by the main process, asked by the workers when they begin it."""

    def __init__(self, rows: Rows, shards: Rows, layout: Layout, data: config.Data, seed: int):
        self._rows, self._shards, self._layout, self._data, self._seed = rows, shards, layout, data, seed
        self._shared = torch.zeros(2, dtype=torch.int64)
        self._shared.share_memory_()  # type: ignore[no-untyped-call]

    def move(self, epoch: int, steps_done: int) -> None:
        """Set the epoch that begins next, and how many of its steps are done already."""
        self._shared[:] = torch.tensor([epoch, steps_done])

    def __call__(self) -> EpochStart:
        epoch, steps_done = self._shared.tolist()
        plan = training_plan(
            self._rows,
            self._shards,
            self._layout,
            seed=self._seed,
            epoch=epoch,
            span=self._data.span,
            window=self._data.window,
        )
        return EpochStart(plan, epoch, steps_done, self._seed)


class EpochLoader:
    """The training batches of one rank. Each pass goes on from the trainer's own step.

    Counting steps, and not what workers have prefetched, is what makes a resumed run see the batches that
    are left of its epoch; the next pass starts a new epoch from its beginning.
    """

    def __init__(self, loader: "DataLoader[Batch]", position: Position, steps: int, trainer: L.Trainer):
        self._loader, self._position, self._steps, self._trainer = loader, position, steps, trainer

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[Batch]:
        # A generator: Lightning makes an iterator before it restores the step to resume from, and the step
        # is asked for only with the first batch.
        self._position.move(*divmod(self._trainer.global_step, self._steps))
        yield from self._loader

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the trainer's step says it all. Lightning takes a loader with this method as resumable."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore, see :meth:`state_dict`."""


class BinData(L.LightningDataModule):
    """Streams the splits ``train`` and ``val`` of a data set to the ranks of a trainer."""

    def __init__(self, index: Index, data: config.Data, seed: int):
        super().__init__()
        self._index, self._data, self._seed = index, data, seed
        self._augmentation = Augmentation(**vars(data.augment))

    def train_dataloader(self) -> EpochLoader:
        trainer = self._its_trainer()
        table = self._index.split("train")
        rows = pick_fraction(len(table), self._data.fraction, self._seed)
        layout = Layout(trainer.world_size, self._data.workers, self._data.batch_size)
        position = Position(rows, table.shard[rows], layout, self._data, self._seed)
        stream = PhotoStream(
            table, self._index.counts, self._data.height_width, trainer.global_rank, position
        )
        return EpochLoader(
            loader(stream, self._data.workers), position, len(rows) // layout.global_batch, trainer
        )

    def val_dataloader(self) -> Any:
        if "val" not in self._index.splits:
            return []
        trainer = self._its_trainer()
        layout = Layout(trainer.world_size, self._data.workers, self._data.batch_size)
        return evaluation_loader(self._index, "val", self._data.height_width, layout, trainer.global_rank)

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        for reason in batch.pop("unreadable"):
            log.warning("a photo cannot be read and is left out: %s", reason)
        return batch

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        batch["pixels"] = normalise(batch["pixels"])
        if "draws" in batch:
            batch["pixels"] = augment(batch["pixels"], batch.pop("draws"), self._augmentation)
        return batch

    def _its_trainer(self) -> L.Trainer:
        assert self.trainer is not None
        return self.trainer


def evaluation_loader(
    index: Index, split: str, image_size: tuple[int, int], layout: Layout, rank: int = 0
) -> "DataLoader[Batch]":
    """Every photo of a split once, in the same batches at any world size."""
    table: SplitTable = index.split(split)
    start = partial(EpochStart, evaluation_plan(np.arange(len(table)), layout))
    return loader(PhotoStream(table, index.counts, image_size, rank, start), layout.workers)


def loader(stream: PhotoStream, workers: int) -> "DataLoader[Batch]":
    """A DataLoader of whole batches; with its own random generator, it never moves the global one."""
    return DataLoader(
        stream,
        batch_size=None,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(0),
    )
