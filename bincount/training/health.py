"""Figures that show how training itself is doing: the gradients, the weights' updates, and where time goes.

They are those of rank 0 alone: nothing is asked of the other ranks. `bincount.health` judges them.
"""

import time
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

#: Below it the root mean square of a layer's gradient has vanished, as SageMaker Debugger has it.
VANISHED = 1e-7


class HealthFigures(L.Callback):
    """Logs, with the other figures of a step (each tenth):

    grad/norm         of all gradients, before they are clipped
    grad/first, last  the root mean square of the gradient of the first and of the last layer's weights
    grad/vanished     the share of the layers in which that is below VANISHED
    update/first, last  how much the step changed those weights, over how large they are
    time/step         seconds a step since the row before, without validation
    time/waited       seconds of these in which it waited for photos

    and, at step 0, of the first batch:

    init/loss         the loss
    init/clueless     what the loss would be if all counts were held equally likely
    init/spread       the standard deviation over the photos of the model's outputs
    """

    def __init__(self, model: nn.Module, clueless: float, waited: Callable[[], float]):
        """``waited``: seconds that this process has waited for training photos so far."""
        self._model, self._clueless, self._waited = model, clueless, waited
        self._layers: list[Tensor] = []
        self._before: list[Tensor] = []
        self._spread: Tensor | None = None
        self._hook: Any = None
        self._steps, self._seconds = 0, 0.0
        self._mark = self._waited_before = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._layers = [
            each
            for name, each in self._model.named_parameters()
            if each.requires_grad and each.ndim > 1 and name.endswith("weight")
        ]
        if trainer.global_step == 0:
            self._hook = self._model.register_forward_hook(self._see_outputs)
        self._waited_before = self._waited()
        # Lightning does not announce the epoch in whose middle a run is resumed.
        self._mark = time.perf_counter()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._mark = time.perf_counter()

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if (trainer.global_step + 1) % _every(trainer) or not self._layers:
            return
        gradients: dict[Tensor, Tensor] = {
            each: each.grad for each in self._model.parameters() if each.grad is not None
        }
        norms = dict(zip(gradients, torch._foreach_norm(list(gradients.values())), strict=True))
        pl_module.log("grad/norm", torch.stack(list(norms.values())).norm())
        sizes = [norms[each] / each.numel() ** 0.5 for each in self._layers if each in norms]
        if not sizes:
            return
        pl_module.log("grad/first", sizes[0])
        pl_module.log("grad/last", sizes[-1])
        pl_module.log("grad/vanished", (torch.stack(sizes) < VANISHED).float().mean())
        self._before = [each.detach().clone() for each in self._ends]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
            self._log_start(trainer)
        now = time.perf_counter()
        self._steps, self._seconds, self._mark = self._steps + 1, self._seconds + now - self._mark, now
        if trainer.global_step % _every(trainer):
            return
        for name, before, after in zip(("first", "last"), self._before, self._ends, strict=False):
            pl_module.log(f"update/{name}", (after.detach() - before).norm() / before.norm())
        waited = self._waited()
        pl_module.log("time/step", self._seconds / self._steps)
        pl_module.log("time/waited", (waited - self._waited_before) / self._steps)
        self._steps, self._seconds, self._waited_before, self._before = 0, 0.0, waited, []

    @property
    def _ends(self) -> list[Tensor]:
        """The weights of the first and of the last layer."""
        return [self._layers[0], self._layers[-1]] if self._layers else []

    def _see_outputs(self, model: nn.Module, pixels: Any, outputs: Tensor) -> None:
        self._spread = outputs.detach().float().std(dim=0, correction=0).mean()

    def _log_start(self, trainer: L.Trainer) -> None:
        """Log the first batch's figures by themselves: the first row of the others is of the tenth step."""
        told = {"init/loss": float(trainer.callback_metrics["train/loss"]), "init/clueless": self._clueless}
        if self._spread is not None:
            told["init/spread"] = float(self._spread)
        for logger in trainer.loggers:
            logger.log_metrics({"epoch": 0, **told}, 0)


def _every(trainer: L.Trainer) -> int:
    return int(trainer.log_every_n_steps)  # type: ignore[attr-defined]
