"""What is kept of a run while it trains: the best weights, the last state, and what a counter must know."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from bincount import config, run

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


def keep_checkpoints(folder: Path, settings: config.Trainer, best: str | None) -> list[L.Callback]:
    """Keep ``last.ckpt``, once an epoch or every so many steps, and ``best.ckpt`` where there is validation.

    ``best``: whether the best has the ``min`` or the ``max`` of what is monitored; None: no validation.
    """
    last = _Keep(
        folder / run.LAST,
        every_n_train_steps=settings.checkpoint_every,
        every_n_epochs=None if settings.checkpoint_every else 1,
    )
    if best is None:
        return [last]
    return [_Keep(folder / run.BEST, monitor=settings.monitor, mode=best), last]


class _Keep(ModelCheckpoint):
    """Lightning's checkpoint callback with one file, always of the same name."""

    def __init__(self, path: Path, **settings: Any):
        super().__init__(
            dirpath=path.parent,
            filename=path.stem,
            enable_version_counter=False,
            auto_insert_metric_name=False,
            **settings,
        )

    @property
    def state_key(self) -> str:
        """The file's name, so that a run can be resumed with another ``trainer.checkpoint_every``."""
        return f"keep {self.filename}"

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # A run that stops in the middle of its first epoch has not been validated yet: no best to keep.
        if self.monitor is None or self.monitor in trainer.callback_metrics:
            super().on_train_epoch_end(trainer, pl_module)
