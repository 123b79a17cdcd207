"""Objectives: what a model's outputs mean, how they are trained, and how they become a count.

A photo's class is its count, an index 0 .. C-1. Where the run has an overflow class, the last index means
"more than max_count" and is treated as the count max_count + 1.

A new objective is one class under `@OBJECTIVES.register(name)`; its settings are keyword arguments.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bincount.model.registry import Registry


class Objective(nn.Module, ABC):
    """Ties the outputs of a backbone to C classes.

    `classes` is C; `outputs` is K, the number of outputs that the backbone must have.
    """

    def __init__(self, classes: int, outputs: int) -> None:
        super().__init__()
        self.classes = classes
        self.outputs = outputs

    @abstractmethod
    def forward(self, outputs: Tensor, count: Tensor) -> Tensor:
        """The loss of each photo, float32 [B] and not reduced.

        `outputs` is float32 [B, K], `count` int64 [B] in 0 .. C-1.
        """

    @abstractmethod
    def posterior(self, outputs: Tensor) -> Tensor:
        """The probability of each count, float32 [B, C] with rows that sum to 1, from outputs [B, K]."""

    def clueless(self) -> float:
        """The mean loss over the counts of outputs of 0, which hold all counts equally likely."""
        with torch.no_grad():
            return float(self(torch.zeros(self.classes, self.outputs), torch.arange(self.classes)).mean())


OBJECTIVES: Registry[Callable[..., Objective]] = Registry("objective")


def build(name: str, classes: int, **settings: float) -> Objective:
    """The objective `name` for counts 0 .. classes-1, with its own settings.

    Raises:
        BadInput: there is no such objective.
    """
    return OBJECTIVES[name](classes, **settings)


@OBJECTIVES.register("cross_entropy")
class CrossEntropy(Objective):
    """One logit a class. `label_smoothing` (0 to 1) is the share of the target spread over all classes."""

    def __init__(self, classes: int, label_smoothing: float = 0.0) -> None:
        super().__init__(classes, outputs=classes)
        self.label_smoothing = label_smoothing

    def forward(self, outputs: Tensor, count: Tensor) -> Tensor:
        return F.cross_entropy(outputs, count, reduction="none", label_smoothing=self.label_smoothing)

    def posterior(self, outputs: Tensor) -> Tensor:
        return outputs.softmax(dim=-1)


@OBJECTIVES.register("ordinal")
class Ordinal(Objective):
    """One logit a class, and a soft target: class k gets exp(-(k - count)^2 / 2 sigma^2), scaled to sum to 1.

    Soft labels for ordinal regression (Diaz and Marathe 2019). With sigma 0.6 the count keeps 0.66 of it.
    """

    targets: Tensor

    def __init__(self, classes: int, sigma: float = 0.6) -> None:
        super().__init__(classes, outputs=classes)
        count = torch.arange(classes)
        bells = (-0.5 * ((count[:, None] - count) / sigma) ** 2).softmax(dim=1)
        self.register_buffer("targets", bells, persistent=False)

    def forward(self, outputs: Tensor, count: Tensor) -> Tensor:
        return F.cross_entropy(outputs, self.targets[count], reduction="none")

    def posterior(self, outputs: Tensor) -> Tensor:
        return outputs.softmax(dim=-1)


@OBJECTIVES.register("focal")
class Focal(Objective):
    """One logit a class; the cross-entropy of a photo times (1 - p)^gamma, p the probability of its count.

    Lin et al. 2017, without their weights of classes (see ``data.balance``).
    """

    def __init__(self, classes: int, gamma: float = 2.0) -> None:
        super().__init__(classes, outputs=classes)
        self.gamma = gamma

    def forward(self, outputs: Tensor, count: Tensor) -> Tensor:
        loss = F.cross_entropy(outputs, count, reduction="none")
        return (-torch.expm1(-loss)) ** self.gamma * loss

    def posterior(self, outputs: Tensor) -> Tensor:
        return outputs.softmax(dim=-1)
