"""What people see while a run trains: a line an epoch, and on a terminal the step it is at."""

import logging
import time
from typing import Any

import lightning as L
from rich.status import Status

from bincount import progress

log = logging.getLogger(__name__)


class EpochLines(L.Callback):
    """Logs epoch, losses, validation figures, seconds and training photos a second, once an epoch."""

    def __init__(self) -> None:
        self._status: Status | None = None
        self._started = 0.0
        self._photos = 0
        self._training = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Lightning does not announce the epoch in whose middle a run is resumed.
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started, self._photos = time.monotonic(), 0
        if self._status is None and trainer.is_global_zero and progress.err.is_terminal:
            self._status = progress.err.status("")
            self._status.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._photos += len(batch["count"]) * trainer.world_size
        self._training = time.monotonic() - self._started
        if self._status is not None:
            speed = self._photos / self._training
            told = (
                f"epoch {trainer.current_epoch + 1}, step {batch_idx + 1} of {trainer.num_training_batches}"
            )
            self._status.update(f"{told}, {speed:,.0f} photos/s")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
        seen = {name: float(value) for name, value in trainer.callback_metrics.items()}
        names = {"train/loss": "loss", "val/loss": "val loss", "val/accuracy": "accuracy", "val/rmse": "RMSE"}
        told = "  ".join(f"{label} {seen[name]:.3f}" for name, label in names.items() if name in seen)
        speed = self._photos / max(self._training, 1e-9)
        of = trainer.max_epochs
        log.info(
            "epoch %d of %s  %s  %.0f s  %.0f photos/s",
            trainer.current_epoch + 1,
            of,
            told,
            time.monotonic() - self._started,
            speed,
        )

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        if self._status is not None:
            self._status.stop()
