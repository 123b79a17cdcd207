"""The training and validation step.

A batch is a dict of tensors on the device of the model:
    pixels   float [B, 3, H, W], normalised
    count    int64 [B], the class index
    weight   float32 [B], 1 for a real photo, 0 for a hole or padding
    row      int64 [B], the photo's row in the index
A row of weight 0 counts for nothing, whatever its count; its pixels must be finite, as the loader's zeros
are. BatchNorm in training mode still sees it.
"""

import math
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics.aggregation import SumMetric

from bincount import config
from bincount.errors import BadInput
from bincount.model.metrics import CountMetrics
from bincount.model.objectives import Objective
from bincount.model.optimizers import build_optimizer, build_scheduler

Batch = dict[str, Tensor]

#: A photo's loss is taken in whole parts of 1 / LOSS_UNITS, whose sum is the same in any order.
LOSS_UNITS = 2.0**20


class CountModule(L.LightningModule):
    """Trains `model`, which has `objective.outputs` outputs.

    Logs `train/loss` and `train/lr` by step, and `val/loss`, `val/accuracy`, `val/rmse`, `val/mae` by epoch;
    each is of all real photos of all ranks, and the same on every rank.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        optimizer: config.Optimizer,
        scheduler: config.Scheduler,
        schedule: Callable[[], tuple[int, int]] | None = None,
    ) -> None:
        """``schedule``: steps of an epoch, and of all the training; None: what the trainer estimates."""
        super().__init__()
        self.model = model
        self.objective = objective
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.schedule = schedule or self._estimated
        self.val_figures = CountMetrics(objective.classes)
        # torchmetrics would otherwise drop NaN, and a run that diverged would look well. No MeanMetric: under
        # nan_strategy="disable" it takes every weight as 1 (torchmetrics 1.9).
        self.val_loss = SumMetric(nan_strategy="disable").set_dtype(torch.float64)

    def forward(self, pixels: Tensor) -> Tensor:
        """Outputs float32 [B, K] for pixels [B, 3, H, W], in whatever precision the model computes."""
        outputs: Tensor = self.model(pixels)
        return outputs.float()

    def posterior(self, pixels: Tensor) -> Tensor:
        """The probability of each count, float32 [B, C], for pixels [B, 3, H, W]."""
        return self.objective.posterior(self(pixels))

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        weight = batch["weight"]
        loss = (weight * self._losses(self(batch["pixels"]), batch)).sum()
        sums = torch.stack([weight.sum(), loss.detach()])
        real, total = self.trainer.strategy.reduce(sums, reduce_op="sum").unbind()
        # A step without any real photo on any rank has loss 0, not 0 / 0.
        real = real.where(real > 0, 1)
        self.log("train/loss", total / real, prog_bar=True, batch_size=len(weight))
        self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"])
        # DDP takes the mean of the ranks' gradients: times the ranks, each real photo weighs the same.
        return loss * self.trainer.world_size / real

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        outputs = self(batch["pixels"])
        self.val_loss.update((self._losses(outputs, batch).double() * LOSS_UNITS).round())
        self.val_figures.update(self.objective.posterior(outputs), batch["count"], batch["weight"])

    def on_validation_epoch_end(self) -> None:
        figures = self.val_figures.compute()
        self._log_epoch("val/loss", float(self.val_loss.compute() / LOSS_UNITS / figures["samples"]))
        self._log_epoch("val/accuracy", figures["accuracy"])
        self._log_epoch("val/rmse", figures["rmse"])
        self._log_epoch("val/mae", figures["mae"])
        self.val_loss.reset()
        self.val_figures.reset()

    def configure_optimizers(self) -> Any:
        # With scaled fp16 gradients a fused step would unscale them itself, after they were clipped.
        fused = self.trainer.precision != "16-mixed"
        optimizer = build_optimizer(self.optimizer, self.model.parameters(), fused)
        return {
            "optimizer": optimizer,
            "lr_scheduler": build_scheduler(self.scheduler, optimizer, *self.schedule()),
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["lr"] = self.optimizer.lr

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # The highest rate hangs on the number of ranks (optimizer.scale), which may be another one now.
        times = self.optimizer.lr / checkpoint["lr"]
        for group in (group for state in checkpoint["optimizer_states"] for group in state["param_groups"]):
            group.update({key: group[key] * times for key in ("lr", "initial_lr") if key in group})
        for schedule in checkpoint["lr_schedulers"]:
            for key in {"base_lrs", "_last_lr"} & schedule.keys():
                schedule[key] = [times * rate for rate in schedule[key]]

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        # Lightning steps a plateau after the epoch's checkpoint is saved, and not at all in a resumed epoch.
        if not isinstance(scheduler, ReduceLROnPlateau):
            super().lr_scheduler_step(scheduler, metric)

    def on_train_epoch_end(self) -> None:
        scheduler = self.lr_schedulers()
        whole = self.trainer.fit_loop.batch_idx + 1 == self.trainer.num_training_batches
        if isinstance(scheduler, ReduceLROnPlateau) and isinstance(self.scheduler, config.Plateau) and whole:
            scheduler.step(self.trainer.callback_metrics[self.scheduler.monitor])

    def _estimated(self) -> tuple[int, int]:
        total = self.trainer.estimated_stepping_batches
        if math.isinf(total):
            raise BadInput("training has no end: set trainer.max_epochs or trainer.max_steps")
        epoch = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        return epoch, int(total)

    def _losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The loss of each photo, float32 [B]; 0 where the weight is 0, even if the count there is none."""
        real = batch["weight"] > 0
        losses: Tensor = self.objective(outputs, batch["count"].where(real, 0))
        return losses.where(real, 0)

    def _log_epoch(self, name: str, value: float | None) -> None:
        """Log rank 0's figure on every rank, as the sum of it and zeros: SMDDP has no mean."""
        told = math.nan if value is None else value
        self.log(name, told if self.global_rank == 0 else 0.0, sync_dist=True, reduce_fx="sum", prog_bar=True)
