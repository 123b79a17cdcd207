"""A data set as Lightning takes it: loaders that follow the epoch plan, pixels to floats on the device."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import cached_property, partial
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from bincount import config, storage
from bincount.data.balance import class_weights, copies
from bincount.data.course import Course, check_kept, resumed
from bincount.data.index import Index, SplitTable
from bincount.data.pixels import Augmentation, augment, normalise
from bincount.data.plan import Layout, Rows, evaluation_plan, pick_fraction, training_plan
from bincount.data.stream import Batch, EpochStart, PhotoStream
from bincount.data.unreadable import UnreadablePhotos, allowed
from bincount.storage import RangeReader
from bincount.storage.cache import Cached
from bincount.storage.pipe import Piped


class Position:
    """Where a training epoch starts: told by the main process, asked by the workers when they begin it."""

    def __init__(self, rows: Rows, shards: Rows, course: Course, data: config.Data, seed: int):
        self._rows, self._shards, self._course, self._data, self._seed = rows, shards, course, data, seed
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
            self._course.layout,
            seed=self._seed,
            epoch=epoch,
            span=self._data.span,
            window=self._data.window,
            done=self._course.earlier if epoch == self._course.start.epoch else (),
        )
        return EpochStart(plan, epoch, steps_done, self._seed)


class Batches(DataLoader[Batch]):
    """A DataLoader of whole batches. Raises what failed in a worker as it is."""

    def __iter__(self) -> Any:
        for batch in super().__iter__():
            if "failure" in batch:
                raise batch["failure"]
            yield batch


class EpochLoader:
    """The training batches of one rank. Each pass goes on from the trainer's own step.

    Counting steps, and not what workers have prefetched, is what makes a resumed run see the batches that
    are left of its epoch; the next pass starts a new epoch from its beginning. The length is that of the
    whole epoch the trainer is in, which differs where the epoch was begun in another layout.
    ``waited``: seconds that the trainer has waited for batches, over all passes.
    """

    def __init__(self, loader: Batches, position: Position, course: Course, trainer: L.Trainer):
        self._loader, self._position, self._course, self._trainer = loader, position, course, trainer
        self.waited = 0.0

    def __len__(self) -> int:
        return self._course.steps_of(self._trainer.current_epoch)

    def __iter__(self) -> Iterator[Batch]:
        # A generator: Lightning makes an iterator before it restores the step to resume from, and the step
        # is asked for only with the first batch.
        place = self._course.at(self._trainer.global_step)
        self._position.move(place.epoch, self._course.steps_done(place))
        batches = iter(self._loader)
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - asked
            if batch is None:
                return
            yield batch

    @property
    def _iterator(self) -> Any:
        """Here Lightning looks for workers to end with the training; left to Python each takes 5 s."""
        return self._loader._iterator

    @_iterator.setter
    def _iterator(self, value: Any) -> None:
        self._loader._iterator = value

    def state_dict(self) -> dict[str, Any]:
        """Nothing: BinData keeps it all. Lightning takes a loader with this method as resumable."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore, see :meth:`state_dict`."""


class BinData(L.LightningDataModule):
    """Streams the splits ``train`` and ``val`` of a data set to the ranks of a trainer.

    Its part of a checkpoint says what of the epoch is done, so that a run goes on with the photos that are
    left, be it with other ranks, workers or batches.
    """

    def __init__(self, index: Index, data: config.Data, seed: int):
        super().__init__()
        self._index, self._data, self._seed = index, data, seed
        self._augmentation = Augmentation(**vars(data.augment))
        self.unreadable = UnreadablePhotos()
        self._state: dict[str, Any] | None = None

    @cached_property
    def course(self) -> Course:
        """Which global step lies where; of a resumed run once its checkpoint was loaded."""
        trainer = self._its_trainer()
        layout = Layout(trainer.world_size, self._data.workers, self._data.batch_size)
        rows = len(self._training_rows[2])
        return Course(rows, layout) if self._state is None else resumed(self._state, rows, layout)

    def state_dict(self) -> dict[str, Any]:
        trainer = self._its_trainer()
        step = trainer.global_step
        # An epoch has ended, as Lightning counts, once it was validated.
        ended = trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
        ended = ended >= self.course.at(step).epoch
        return {**self.course.state(step, ended), "settings": kept_settings(self._data, self._seed)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        check_kept(state_dict, kept_settings(self._data, self._seed))
        self._state = state_dict

    # Lightning asks anew at each epoch, as epochs may differ in length; the workers stay.
    def train_dataloader(self) -> EpochLoader:
        self.unreadable.start_epoch()
        return self._train_loader

    def val_dataloader(self) -> Any:
        return self._val_loader

    @cached_property
    def _training_rows(self) -> tuple[SplitTable, npt.NDArray[np.float32] | None, Rows]:
        """The photos that there are, what one of each class weighs, and the rows of an epoch."""
        table, weights = self._balanced(self._index.split("train"))
        return table, weights, pick_fraction(len(table), self._data.fraction, self._seed)

    @cached_property
    def _train_loader(self) -> EpochLoader:
        trainer = self._its_trainer()
        table, weights, rows = self._training_rows
        position = Position(rows, table.shard[rows], self.course, self._data, self._seed)
        size, rank = self._data.height_width, trainer.global_rank
        reader = range_reader(self._index, self._data)
        stream = PhotoStream(table, self._index.counts, size, rank, position, reader, weights)
        return EpochLoader(loader(stream, self._data.workers), position, self.course, trainer)

    def _balanced(self, table: SplitTable) -> tuple[SplitTable, npt.NDArray[np.float32] | None]:
        """The photos of an epoch, and what one of each class weighs, as ``data.balance`` says."""
        counts = self._index.counts
        classes = counts.classes(table.count)
        if self._data.balance == "oversample":
            return table.take(np.repeat(np.arange(len(table)), copies(classes, len(counts)))), None
        weighted = self._data.balance == "weights"
        return table, class_weights(classes, len(counts)) if weighted else None

    @cached_property
    def _val_loader(self) -> Any:
        if "val" not in self._index.splits:
            return []
        trainer = self._its_trainer()
        layout = Layout(trainer.world_size, self._data.workers, self._data.batch_size)
        reader = range_reader(self._index, self._data)
        size, rank = self._data.height_width, trainer.global_rank
        return evaluation_loader(self._index, "val", size, layout, rank, reader)

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        for photo in batch.pop("unreadable"):
            self.unreadable.add(photo)
        return batch

    @property
    def waited(self) -> float:
        """Seconds that this rank has waited for training photos."""
        return self._train_loader.waited

    @property
    def most_unreadable(self) -> int:
        """How many photos of an epoch may be unreadable, over all ranks."""
        return allowed(self._data.max_bad, len(self._training_rows[2]))

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        batch["pixels"] = normalise(batch["pixels"])
        if "draws" in batch:
            batch["pixels"] = augment(batch["pixels"], batch.pop("draws"), self._augmentation)
        return batch

    def _its_trainer(self) -> L.Trainer:
        assert self.trainer is not None
        return self.trainer


def evaluation_loader(
    index: Index,
    split: str,
    image_size: tuple[int, int],
    layout: Layout,
    rank: int = 0,
    reader: RangeReader | None = None,
) -> Batches:
    """Every photo of a split once, in the same batches at any world size."""
    table: SplitTable = index.split(split)
    start = partial(EpochStart, evaluation_plan(np.arange(len(table)), layout))
    return loader(PhotoStream(table, index.counts, image_size, rank, start, reader), layout.workers)


def kept_settings(data: config.Data, seed: int) -> dict[str, Any]:
    """The values of :data:`bincount.data.course.KEPT`."""
    return {
        "seed": seed,
        "data.fraction": data.fraction,
        "data.balance": data.balance,
        "data.span": data.span,
        "data.window": data.window,
    }


def range_reader(index: Index, data: config.Data) -> RangeReader:
    """How the shards are read: by ranges or through a pipe, and through a cache on this machine's disk."""
    reader = Piped(index.store) if data.reader == "pipe" else index.store
    if data.cache is None:
        return reader
    return Cached(reader, storage.folder(data.cache), int(data.cache_gb * 1e9), index.digest)


def loader(stream: PhotoStream, workers: int) -> Batches:
    """The stream's batches from worker processes; with its own generator, it never moves the global one."""
    # Connections do not survive a fork: the next request would wait for ever.
    forkserver = workers > 0 and stream.far_away
    if forkserver:
        multiprocessing.get_context("forkserver").set_forkserver_preload(["__main__", stream.__module__])
    return Batches(
        stream,
        batch_size=None,
        num_workers=workers,
        multiprocessing_context="forkserver" if forkserver else None,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(0),
        worker_init_fn=partial(_heed_only, os.getpid()),
    )


def _heed_only(parent: int, worker: int) -> None:
    """In a worker, leave signals to the process that reads from it, which may have work to finish.

    A scheduler that ends a job signals all its processes, and a keyboard all of its terminal's.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})

    def heed() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
        os._exit(0)

    threading.Thread(target=heed, name="bincount-signals", daemon=True).start()
