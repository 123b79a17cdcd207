"""What is kept of a run while it trains: the best weights, the last state, and what a counter must know."""

import math
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from bincount.training.loggers import MetricsFile

#: Where in a checkpoint the facts stand that a counter needs beside the weights.
FACTS = "counter"


class CounterFacts(L.Callback):
    """Writes plain facts into each checkpoint, so that the file alone can count photos."""

    def __init__(self, facts: dict[str, Any]):
        self._facts = facts

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[FACTS] = self._facts


class KeepLast(Checkpoint):
    """Saves the state after each ``every`` steps, and at the end of each epoch, which was validated then."""

    def __init__(self, path: Path, every: int | None):
        self._path, self._every = path, every
        self._saved = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._saved = trainer.global_step

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # And not at the end of the step before, whose figures are logged only after that.
        step = trainer.global_step
        if self._every is not None and step % self._every == 0 and step != self._saved:
            self.save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.save(trainer)

    def save(self, trainer: L.Trainer) -> None:
        """Save the state as it is between two steps."""
        self._saved = trainer.global_step
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.write()
        trainer.save_checkpoint(self._path)


class KeepBest(Checkpoint):
    """Saves the state at the end of an epoch that was better than all before it.

    ``mode``: whether the best has the ``min`` or the ``max`` of ``monitor``.
    """

    def __init__(self, path: Path, monitor: str, mode: str):
        self._path, self._monitor, self._sign = path, monitor, 1 if mode == "max" else -1
        self._best = math.nan

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # A run that stops in the middle of its first epoch has not been validated yet: no best to keep.
        if self._monitor not in trainer.callback_metrics:
            return
        score = float(trainer.callback_metrics[self._monitor])
        # The first is the best so far even where it is no number; anything is better than that.
        if math.isnan(self._best) or self._sign * score > self._sign * self._best:
            self._best = score
            trainer.save_checkpoint(self._path)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "monitor": self._monitor}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["monitor"] == self._monitor:  # it may be another one since the run was resumed
            self._best = state_dict["best"]
