"""What guessing scores without looking at a photo, in closed form. Pure."""

import math
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike


class Guess(TypedDict):
    """What guessing without looking at the photo would score."""

    accuracy: float | None
    rmse: float | None


class MajorityGuess(Guess):
    """Guessing always the commonest count (the smallest of equally common ones)."""

    count: int | None


class Prior(TypedDict):
    """Telling for every photo the share of each count in the split."""

    nll: float | None


class Baselines(TypedDict):
    random: Guess
    majority: MajorityGuess
    prior: Prior


def baselines(counts: ArrayLike, classes: int) -> Baselines:
    """What guessing scores on true counts (integers [N] in 0 .. classes-1), in closed form.

    random: guessing each count as often as the split holds it, p. A guess is right with the probability
    sum p²; guess and truth are independent with equal variance, and the mean squared error is twice that.
    """
    photos = np.bincount(np.asarray(counts, np.int64), minlength=classes)
    if not photos.any():
        nothing: Guess = {"accuracy": None, "rmse": None}
        return {"random": nothing, "majority": {**nothing, "count": None}, "prior": {"nll": None}}
    share, count = photos / photos.sum(), np.arange(classes)
    variance = float(share @ (count - share @ count) ** 2)
    commonest = int(photos.argmax())
    return {
        "random": {"accuracy": float(share @ share), "rmse": math.sqrt(2 * variance)},
        "majority": {
            "accuracy": float(share[commonest]),
            "rmse": math.sqrt(share @ (count - commonest) ** 2),
            "count": commonest,
        },
        "prior": {"nll": float(-(share[share > 0] * np.log(share[share > 0])).sum())},
    }
