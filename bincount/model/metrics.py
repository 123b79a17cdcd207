"""The figures by which a model is judged. Each is defined once, here.

Every figure about whole counts (accuracy, RMSE, MAE, within one) is worked out from the confusion matrix.
It holds integers, which add up to the same matrix in any order: the figures of training and of evaluation
are equal, at any batch size and number of ranks.

A class index is taken as the count. With an overflow class ("more than max_count") the last index stands
for max_count + 1, so errors on fuller bins are understated in RMSE and MAE.
"""

import math
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torchmetrics import Metric

from bincount.model.decoding import DECODINGS, decode

ECE_BINS = 15


class CountFigures(TypedDict):
    """Figures of the photos that hold `count` items; None where there are no such photos."""

    count: int
    samples: int
    accuracy: float | None
    rmse: float | None


class Figures(TypedDict):
    """Shares are 0 to 1, errors in items; None where there are no photos.

    `confusion` counts photos: a row for each true count, a column for each count told.
    """

    samples: int
    accuracy: float | None
    rmse: float | None
    mae: float | None
    within_one: float | None
    per_count: list[CountFigures]
    confusion: list[list[int]]


class Decoded(TypedDict):
    """Figures under one decoding."""

    accuracy: float | None
    rmse: float | None


class Score(Figures):
    """Figures of whole counts, with two of probabilities: nll in nats, ece a share.

    `decodings` has accuracy and RMSE under each of them.
    """

    nll: float | None
    ece: float | None
    decodings: dict[str, Decoded]


def confusion_matrix(count: Tensor, told: Tensor, real: Tensor, classes: int) -> Tensor:
    """How many photos that hold i items were told to hold j: int64 [C, C], on the device of the arguments.

    `count` and `told` are int64 [B] in 0 .. C-1, `real` bool [B]; rows that are not real count for nothing,
    whatever they hold.
    """
    cell = torch.where(real, count * classes + told, 0)
    photos = torch.zeros(classes**2, dtype=torch.int64, device=cell.device)
    return photos.scatter_add_(0, cell, real.long()).view(classes, classes)


def figures(confusion: NDArray[np.int64]) -> Figures:
    """All figures of whole counts, from a confusion matrix int64 [C, C]."""
    classes = len(confusion)
    error = np.arange(classes)[None, :] - np.arange(classes)[:, None]
    return {
        "samples": int(confusion.sum()),
        "accuracy": _mean(error == 0, confusion),
        "rmse": _root(_mean(error**2, confusion)),
        "mae": _mean(abs(error), confusion),
        "within_one": _mean(abs(error) <= 1, confusion),
        "per_count": [_per_count(count, error[count], confusion[count]) for count in range(classes)],
        "confusion": confusion.tolist(),
    }


def _per_count(count: int, error: NDArray[np.int64], row: NDArray[np.int64]) -> CountFigures:
    return {
        "count": count,
        "samples": int(row.sum()),
        "accuracy": _mean(error == 0, row),
        "rmse": _root(_mean(error**2, row)),
    }


def _mean(value: NDArray[Any], photos: NDArray[np.int64]) -> float | None:
    """The mean of an integer `value` over photos; both sums are exact, and divided once."""
    return int((value * photos).sum()) / int(photos.sum()) if photos.any() else None


def _root(value: float | None) -> float | None:
    return None if value is None else math.sqrt(value)


class CountMetrics(Metric):
    """Figures of whole counts over all batches and ranks of an epoch.

    `compute()` gives them as plain `Figures`. It joins the ranks (all_gather), so every rank must call it.
    """

    full_state_update = False
    confusion: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.add_state("confusion", torch.zeros(classes, classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, count: Tensor, weight: Tensor) -> None:
        """Probabilities float [B, C], counts int64 [B], weight float [B]: 1 real, 0 a hole or padding."""
        self.confusion += confusion_matrix(count, decode(probabilities), weight > 0, self.classes)

    def compute(self) -> Figures:
        return figures(self.confusion.cpu().numpy())


def score(counts: ArrayLike, probabilities: ArrayLike, how: str = "mode") -> Score:
    """All figures of one split; those of whole counts under the decoding `how`.

    Args:
        counts: true counts, integers [N] in 0 .. C-1.
        probabilities: probability of each count, float [N, C], rows that sum to 1.

    Raises:
        ValueError: the shapes do not agree, or a count lies outside 0 .. C-1.
    """
    count = torch.tensor(np.asarray(counts, np.int64))
    probability = torch.tensor(np.asarray(probabilities, np.float64))
    if probability.ndim != 2 or len(probability) != len(count):
        shapes = f"{tuple(count.shape)} and {tuple(probability.shape)}"
        raise ValueError(f"counts and probabilities do not agree: their shapes are {shapes}")
    classes = probability.shape[1]
    if len(count) and not 0 <= int(count.min()) <= int(count.max()) < classes:
        raise ValueError(f"counts {int(count.min())} to {int(count.max())} do not lie in 0 to {classes - 1}")
    real = torch.ones_like(count, dtype=torch.bool)
    of = {
        each: figures(confusion_matrix(count, decode(probability, each), real, classes).numpy())
        for each in DECODINGS
    }
    whole = of[how]
    right = decode(probability) == count
    return {
        "samples": whole["samples"],
        "accuracy": whole["accuracy"],
        "rmse": whole["rmse"],
        "mae": whole["mae"],
        "within_one": whole["within_one"],
        "nll": _nll(count, probability),
        "ece": calibration_error(probability.amax(dim=1), right) if len(count) else None,
        "per_count": whole["per_count"],
        "confusion": whole["confusion"],
        "decodings": {
            each: {"accuracy": found["accuracy"], "rmse": found["rmse"]} for each, found in of.items()
        },
    }


def score_told(counts: ArrayLike, told: ArrayLike, classes: int) -> Score:
    """All figures of counts that came without probabilities: those of probabilities are None.

    `counts` and `told` are integers [N] in 0 .. classes-1.
    """
    count, answer = (torch.tensor(np.asarray(each, np.int64)) for each in (counts, told))
    whole = figures(
        confusion_matrix(count, answer, torch.ones_like(count, dtype=torch.bool), classes).numpy()
    )
    return {
        "samples": whole["samples"],
        "accuracy": whole["accuracy"],
        "rmse": whole["rmse"],
        "mae": whole["mae"],
        "within_one": whole["within_one"],
        "nll": None,
        "ece": None,
        "per_count": whole["per_count"],
        "confusion": whole["confusion"],
        "decodings": {},
    }


def _nll(count: Tensor, probability: Tensor) -> float | None:
    """Mean of -ln p(true count), nats. A probability of 0 is taken as 1.2e-38 (the smallest normal float32):
    one sure mistake then costs 87 nats instead of making the mean infinite, which JSON cannot hold.
    """
    if not len(count):
        return None
    true = probability.gather(1, count[:, None]).clamp(min=torch.finfo(torch.float32).tiny)
    return float(-true.log().mean())


def calibration_error(confidence: Tensor, right: Tensor) -> float:
    """Expected calibration error (Guo et al. 2017, On Calibration of Modern Neural Networks, section 2).

    Photos are sorted into 15 bins ((m-1)/15, m/15] of equal width by `confidence` (the probability of the
    count told, float [N]); the gap |share `right` - mean confidence| of each bin is weighted by its photos.
    """
    place = (confidence * ECE_BINS).ceil().long().sub(1).clamp(0, ECE_BINS - 1)
    gap = torch.zeros(ECE_BINS, dtype=torch.float64)
    gap.index_add_(0, place, right.double() - confidence.double())
    return float(gap.abs().sum() / len(confidence))
