"""Optimizers and learning rate schedulers, by the names of their config groups.

A new one is one function under `@OPTIMIZERS.register(name)` or `@SCHEDULERS.register(name)`; its settings are
a dataclass in bincount/config.py.
"""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau, StepLR

from bincount import config
from bincount.errors import BadInput
from bincount.model.registry import Registry

Groups = list[dict[str, Any]]
Schedule = dict[str, Any]

OPTIMIZERS: Registry[Callable[[Any, Groups, bool], Optimizer]] = Registry("optimizer")
SCHEDULERS: Registry[Callable[[Any, Optimizer, int, int], Schedule]] = Registry("scheduler")


def build_optimizer(
    settings: config.Optimizer, parameters: Iterable[nn.Parameter], fused: bool = True
) -> Optimizer:
    """The optimizer `settings.name` over all parameters that are trained.

    `fused`: update all of them in one kernel, which takes a third of the time (ResNet34 with AdamW on a CPU).

    Raises:
        BadInput: an unknown name, nothing to train, or a setting that torch refuses.
    """
    groups = _decay_groups(parameters, settings.weight_decay)
    try:
        return OPTIMIZERS[settings.name](settings, groups, fused)
    except ValueError as error:
        raise BadInput(f"optimizer={settings.name}: {error}") from error


def rate_factor(rule: str, ranks: int) -> float:
    """What the learning rate is multiplied by for a batch of so many ranks, under the rule of its name.

    ``linear``: Goyal et al. 2017, for SGD. ``sqrt``: Malladi et al. 2022, for Adam. ``none``: 1.
    """
    return {"none": 1.0, "linear": float(ranks), "sqrt": math.sqrt(ranks)}[rule]


def build_scheduler(
    settings: config.Scheduler, optimizer: Optimizer, steps_per_epoch: int, total_steps: int
) -> Schedule:
    """Lightning's `lr_scheduler` dict for `settings.name`. Steps are those of the optimizer, per rank.

    Raises:
        BadInput: an unknown name, or a setting that cannot work.
    """
    return SCHEDULERS[settings.name](settings, optimizer, steps_per_epoch, total_steps)


def _decay_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> Groups:
    """Two groups, with and without weight decay: norms and biases, which are vectors, go without."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        raise BadInput("the model has nothing to train: every parameter is frozen")
    matrices = [parameter for parameter in trained if parameter.ndim > 1]
    vectors = [parameter for parameter in trained if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


@OPTIMIZERS.register("sgd")
def sgd(settings: config.SGD, groups: Groups, fused: bool) -> Optimizer:
    return SGD(groups, settings.lr, settings.momentum, nesterov=settings.nesterov, fused=fused)


@OPTIMIZERS.register("adamw")
def adamw(settings: config.AdamW, groups: Groups, fused: bool) -> Optimizer:
    first, second = settings.betas
    return AdamW(groups, lr=settings.lr, betas=(first, second), fused=fused)


@SCHEDULERS.register("step")
def step(settings: config.Step, optimizer: Optimizer, steps_per_epoch: int, total_steps: int) -> Schedule:
    return {
        "scheduler": StepLR(optimizer, step_size=settings.every, gamma=settings.gamma),
        "interval": "epoch",
    }


@SCHEDULERS.register("cosine")
def cosine(settings: config.Cosine, optimizer: Optimizer, steps_per_epoch: int, total_steps: int) -> Schedule:
    warm = round(settings.warmup * total_steps)
    factor = partial(cosine_factor, warm=warm, total=total_steps, final=settings.final)
    return {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}


@SCHEDULERS.register("restarts")
def restarts(
    settings: config.Restarts, optimizer: Optimizer, steps_per_epoch: int, total_steps: int
) -> Schedule:
    first = settings.first * steps_per_epoch
    factor = partial(restarts_factor, first=first, multiply=settings.multiply, final=settings.final)
    return {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}


@SCHEDULERS.register("plateau")
def plateau(
    settings: config.Plateau, optimizer: Optimizer, steps_per_epoch: int, total_steps: int
) -> Schedule:
    scheduler = ReduceLROnPlateau(
        optimizer, mode=config.WATCHED[settings.monitor], factor=settings.factor, patience=settings.patience
    )
    return {"scheduler": scheduler, "interval": "epoch", "monitor": settings.monitor}


def cosine_factor(step: int, warm: int, total: int, final: float) -> float:
    """The rate at a step (0 is the first) as a ratio of optimizer.lr: up in a line over `warm` steps to 1,
    then down in a half cosine to `final` at the last of `total` steps, and `final` after it.
    """
    if step < warm:
        return (step + 1) / warm
    fall = max(total - 1 - warm, 1)
    return _fall(min((step - warm) / fall, 1.0), final)


def restarts_factor(step: int, first: int, multiply: int, final: float) -> float:
    """The rate at a step as a ratio of optimizer.lr: falls from 1 towards `final` over `first` steps,
    then over `first * multiply`, and so on (Loshchilov and Hutter 2017, SGDR).
    """
    length = first
    while step >= length:
        step -= length
        length *= multiply
    return _fall(step / length, final)


def _fall(share: float, final: float) -> float:
    return final + (1 - final) * (1 + math.cos(math.pi * share)) / 2
