"""An exponential moving average of the weights, which is validated and kept instead of the last step's."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

#: The average would else be for long of the weights that training began with.
WARM_UP = 10


class MovingAverage(WeightAveraging):
    """Averages weights and BatchNorm's statistics after each step: ``decay`` of the average stays.

    In the first steps less: (1 + n) / (10 + n) after n of them (TensorFlow's ExponentialMovingAverage).
    Checkpoints hold the average as their weights, and beside it what a resumed run goes on with.
    """

    def __init__(self, decay: float):
        super().__init__(multi_avg_fn=lambda mean, now, steps: _follow(mean, now, steps, decay))
        self._swapped = False

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._swap_models(pl_module)
        self._swapped = True

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._swap_models(pl_module)
        self._swapped = False

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # Saved in the middle of a validation, since training stops there: each to its own place first.
        if self._swapped:
            self.on_validation_epoch_end(trainer, pl_module)
        super().on_save_checkpoint(trainer, pl_module, checkpoint)


def _follow(mean: list[Tensor], now: list[Tensor], steps: Tensor, decay: float) -> None:
    if not mean[0].is_floating_point():  # counters
        for one, other in zip(mean, now, strict=True):
            one.copy_(other)
        return
    stays = min(decay, (1 + int(steps)) / (WARM_UP + int(steps)))
    torch._foreach_lerp_(mean, now, 1 - stays)
