"""Ending training before its last epoch, on every rank at the same step, whatever the reason."""

import logging
import math
import signal
import time
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

import lightning as L

from bincount.training.channel import agree
from bincount.training.signals import Signals

log = logging.getLogger(__name__)


class Reason(IntEnum):
    """Why training ends; of several reasons the first in this order is told."""

    NONE = 0
    SIGNAL = 1
    UNREADABLE = 2
    TIME = 3
    NO_BETTER = 4


class Stop(NamedTuple):
    """A reason with its number (the signal, photos that cannot be read, seconds, or epochs) and its rank."""

    reason: Reason = Reason.NONE
    number: int = 0
    rank: int = 0

    def __str__(self) -> str:
        match self.reason:
            case Reason.SIGNAL:
                return f"{signal.Signals(self.number).name} on rank {self.rank}"
            case Reason.UNREADABLE:
                return f"{self.number:,} photos of this epoch cannot be read"
            case Reason.TIME:
                return f"{self.number / 3600:.2g} h are over (trainer.max_hours)"
            case Reason.NO_BETTER:
                return f"no better for {self.number} epochs (trainer.stop_after)"
        return "nothing stops it"


class StoppedTraining(Exception):
    """Leaves Lightning's loops between two steps, on all ranks."""


class Patience:
    """Whether ``monitor`` has not improved by more than ``min_delta`` in ``epochs`` validations on end.

    ``mode``: whether the best has the ``min`` or the ``max`` of it. What is no number is no better.
    """

    def __init__(self, monitor: str, mode: str, epochs: int, min_delta: float = 0.0):
        self.monitor, self.epochs = monitor, epochs
        self._sign, self._min_delta = 1 if mode == "max" else -1, min_delta
        self._best = -math.inf
        self.waited = 0

    @property
    def over(self) -> bool:
        return self.waited >= self.epochs

    def see(self, figure: float) -> None:
        """Take in the figure of one more validation."""
        score = self._sign * figure
        if score > self._best + self._min_delta:
            self._best, self.waited = score, 0
        else:
            self.waited += 1

    def state_dict(self) -> dict[str, Any]:
        return {"monitor": self.monitor, "best": self._best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state.get("monitor") == self.monitor:  # it may be another one since the run was resumed
            self._best, self.waited = state["best"], state["waited"]


class BroadcastEarlyStopping(L.Callback):
    """Stops training before its last epoch: no better any more, time is over, a signal, too many bad photos.

    Every ``every`` steps and validation batches, and at the end of each epoch, all ranks come together: what
    each was signalled and could not read is summed up, rank 0 decides, and broadcasts it. Within an epoch the
    state is saved by ``save`` first. Then all ranks leave the same step; :attr:`stop` says why.
    """

    def __init__(
        self,
        patience: Patience | None = None,
        *,
        max_hours: float | None = None,
        signals: Signals | None = None,
        unreadable: Callable[[], int] = lambda: 0,
        most_unreadable: Callable[[], int] = lambda: 1,
        save: Callable[[L.Trainer], None] | None = None,
        every: int = 1,
    ):
        """``unreadable``: how many photos this rank could not read this epoch; ``most_unreadable`` of all."""
        self._patience, self._max_hours = patience, max_hours
        self._signals, self._save, self._every = signals or Signals(), save, every
        self._unreadable, self._most_unreadable = unreadable, most_unreadable
        self._started = time.monotonic()
        self.stop = Stop()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._patience is not None and self._patience.over:
            self._end_after_epoch(trainer, Stop(Reason.NO_BETTER, self._patience.waited))

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % self._every == 0:
            self._leave_if_told(trainer)

    def on_validation_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx % self._every == 0:
            self._leave_if_told(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # The epoch's checkpoint is saved after this, with what patience has seen.
        if self._patience is not None and self._patience.monitor in trainer.callback_metrics:
            self._patience.see(float(trainer.callback_metrics[self._patience.monitor]))
        self._end_after_epoch(trainer, self._agreed(trainer, epoch_ended=True))

    def state_dict(self) -> dict[str, Any]:
        return {} if self._patience is None else self._patience.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._patience is not None:
            self._patience.load_state_dict(state_dict)

    def _leave_if_told(self, trainer: L.Trainer) -> None:
        self.stop = self._agreed(trainer)
        if self.stop.reason is Reason.NONE:
            return
        # Not by trainer.should_stop: Lightning would validate first, which may take longer than there is.
        if self._save is not None:
            self._save(trainer)
        self._tell(trainer)
        raise StoppedTraining

    def _end_after_epoch(self, trainer: L.Trainer, stop: Stop) -> None:
        self.stop = stop
        if stop.reason is not Reason.NONE:
            trainer.should_stop = True
            self._tell(trainer)

    def _tell(self, trainer: L.Trainer) -> None:
        if trainer.is_global_zero:
            log.info("training stops after step %d: %s", trainer.global_step, self.stop)

    def _agreed(self, trainer: L.Trainer, epoch_ended: bool = False) -> Stop:
        signals = [0] * trainer.world_size
        signals[trainer.global_rank] = int(self._signals.received or 0)

        def decide(sums: list[int]) -> Stop:
            unreadable, *signals = sums
            for rank, number in enumerate(signals):
                if number:
                    return Stop(Reason.SIGNAL, number, rank)
            if unreadable > self._most_unreadable():
                return Stop(Reason.UNREADABLE, unreadable)
            if self._max_hours is not None and time.monotonic() - self._started > 3600 * self._max_hours:
                return Stop(Reason.TIME, round(3600 * self._max_hours))
            if epoch_ended and self._patience is not None and self._patience.over:
                return Stop(Reason.NO_BETTER, self._patience.waited)
            return Stop()

        reason, number, rank = agree(trainer, [self._unreadable(), *signals], decide)
        return Stop(Reason(reason), number, rank)
