"""How likely a bin does not hold what its record says, given what a counter tells of its photo.

A record is wrong with the probability r, the error rate. A wrong record of a bin that holds c items says e
with the probability K[c, e], which :func:`ways` mixes from the kinds of errors. A counter gives p(c | photo).
By Bayes' rule, with n(c) the share of bins that hold c items, as p(photo | c) goes as p(c | photo) / n(c):

    P(record e is right)        goes as  (1 - r) p(e | photo)
    P(wrong, the bin holds c)   goes as  r p(c | photo) K[c, e]

so that n falls out of all but K. The ratio of the two, without r, is what bins are ranked by; with r it is a
probability. Counts are classes 0 .. C-1 of a run.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

#: How a record may come to be wrong: an item too many or too few, two of them, or it is another bin's.
KINDS = ("one", "two", "bin")

#: Wrong and right records that count as seen before the first bin.
BEFORE = (1, 19)

#: No ratio is above this one, or below one over it: a probability of 0 is never that sure.
MOST_RATIO = 1e9


def ways(share: Floats) -> Mapping[str, Floats]:
    """For each kind of error K, float64 (C, C): row c has the chance of each record of a bin that holds c.

    ``share`` (C,): of how many bins hold each count. Rows sum to 1, or to 0 where there is no such error; a
    record that says c itself is no error, so the other bin is one that holds another number.
    """
    classes = np.arange(len(share))
    apart = abs(classes[:, None] - classes)
    given = {"one": apart == 1, "two": apart == 2, "bin": (apart > 0) * share}
    return {kind: _normalised(given[kind].astype(np.float64)) for kind in KINDS}


def mixed(kinds: Mapping[str, Floats]) -> Floats:
    """K of errors of which each kind that a count can have is as frequent: float64 (C, C)."""
    return _normalised(np.sum([*kinds.values()], axis=0))


def ratios(probabilities: npt.ArrayLike, expected: Integers, wrong: Floats) -> Floats:
    """How much better an error explains photo and record than a right record does, float64 (bins,).

    ``probabilities`` (bins, C), ``expected`` (bins,) the class that each record says, ``wrong`` K (C, C).
    """
    given = np.asarray(probabilities, np.float64)
    right = given[np.arange(len(given)), expected]
    error = (given * wrong.T[expected]).sum(axis=1)
    smallest = np.finfo(np.float64).tiny
    found: Floats = np.clip(error / np.maximum(right, smallest), 1 / MOST_RATIO, MOST_RATIO)
    return found


def probability(ratio: Floats, error_rate: float) -> Floats:
    """The probability that a bin does not hold what its record says, float64 (bins,)."""
    odds = error_rate * ratio
    sure: Floats = odds / (1 - error_rate + odds)
    return sure


def likely(probabilities: npt.ArrayLike, expected: Integers) -> Integers:
    """What each bin most likely holds by its photo if its record is wrong, int64 (bins,)."""
    given = np.array(probabilities, np.float64)
    given[np.arange(len(given)), expected] = -1
    found: Integers = given.argmax(axis=1)
    return found


def fitted_rate(ratio: Floats) -> tuple[float, float, float]:
    """The share of wrong records that explains the ratios best, and the 95 % interval around it.

    The likelihood of r is the product over bins of (1 - r) + r ratio: a mixture with one unknown share, whose
    logarithm is concave in r. BEFORE stands for what was known without any bin, so that few bins tell little.
    The interval is where the logarithm is within 1.92 of its most (Wilks 1938).
    """
    best = _bisected(lambda rate: _slope(ratio, rate) > 0, 0.0, 1.0)
    enough = _likelihood(ratio, best) - 1.92
    low = _bisected(lambda rate: _likelihood(ratio, rate) < enough, 0.0, best)
    high = _bisected(lambda rate: _likelihood(ratio, rate) >= enough, best, 1.0)
    return best, low, high


def threshold(ratio: Floats, false_alarms: float) -> float:
    """The ratio above which at most this share of right records lies; ``ratio`` (bins,) are of such."""
    allowed = int(false_alarms * len(ratio))
    return float(np.sort(ratio)[::-1][allowed]) if allowed < len(ratio) else 0.0


def _likelihood(ratio: Floats, rate: float) -> float:
    wrong, right = BEFORE
    before = wrong * math.log(rate) + right * math.log1p(-rate)
    return float(np.log1p(rate * (ratio - 1)).sum()) + before


def _slope(ratio: Floats, rate: float) -> float:
    """How fast the likelihood rises with the rate."""
    wrong, right = BEFORE
    return float(((ratio - 1) / (1 + rate * (ratio - 1))).sum()) + wrong / rate - right / (1 - rate)


def _bisected(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The end of the part of low .. high, from its low end on, in which ``holds``."""
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return (low + high) / 2


def _normalised(rows: Floats) -> Floats:
    sums = rows.sum(axis=1, keepdims=True)
    shares: Floats = np.divide(rows, sums, out=np.zeros_like(rows), where=sums > 0)
    return shares
