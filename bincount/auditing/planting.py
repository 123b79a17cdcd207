"""An audit put to the test: errors are planted in records that are taken for right, and looked for."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bincount.auditing import suspicion
from bincount.auditing.suspicion import Floats, Integers

#: Bins that people check first: precision is told among so many.
FIRST = 50

#: How the bins can be put in order: ours, by the distance of the record from the count told, at random.
ORDERS = ("audit", "differs", "random")

#: Errors of every kind, each as frequent.
ALL = "all"

#: Kinds of errors and orders in words.
TOLD = {"one": "one item", "two": "two items", "bin": "another bin's", ALL: "any of these"}
TOLD |= {"audit": "the audit", "differs": "differs from the count told", "random": "at random"}


@dataclass(frozen=True)
class Found:
    """How well one order of bins finds wrong records, over all plantings: means, and standard deviations.

    ``precision``: the share that is wrong among the first FIRST; ``average_precision``: the mean, over the
    wrong ones, of the precision down to each (the area under precision over recall).
    """

    precision: float
    precision_spread: float
    average_precision: float
    average_precision_spread: float


@dataclass(frozen=True)
class Planted:
    """What came of planting errors of one kind. ``wrong``: how many a time.

    ``told`` and ``were``: how many of the first FIRST the audit said were wrong, and how many were; ``rate``:
    the share of wrong records that it estimated.
    """

    kind: str
    times: int
    bins: int
    wrong: int
    orders: dict[str, Found]
    told: float
    were: float
    rate: float


def plant(counts: Integers, ways: Floats, wrong: int, generator: np.random.Generator) -> Integers:
    """Records of bins that hold ``counts``, int64 (bins,), of which ``wrong`` are made wrong by K (C, C)."""
    able = np.flatnonzero(ways[counts].sum(axis=1) > 0)
    chosen = generator.choice(able, wrong, replace=False)
    drawn = generator.random((wrong, 1)) < ways[counts[chosen]].cumsum(axis=1)
    records = counts.copy()
    records[chosen] = drawn.argmax(axis=1)
    return records


def trial(
    kind: str, counts: Integers, told: Integers, probabilities: Floats, rate: float, times: int, seed: int
) -> Planted | None:
    """Plant errors of a kind (or ALL) so many times, and look how each order finds them.

    None where no bin can have such an error; where few can, no more are planted.

    ``counts`` (bins,): what bins hold, ``told`` (bins,) what the counter says, ``probabilities`` (bins, C).
    The audit is not told which kind it is.
    """
    generator = np.random.default_rng(seed)
    share = np.bincount(counts, minlength=probabilities.shape[1]) / len(counts)
    kinds = suspicion.ways(share)
    looked_for = suspicion.mixed(kinds)
    planted = looked_for if kind == ALL else kinds[kind]
    number = min(max(1, round(rate * len(counts))), int((planted[counts].sum(axis=1) > 0).sum()))
    if number == 0:
        return None
    precision: dict[str, list[float]] = {order: [] for order in ORDERS}
    average: dict[str, list[float]] = {order: [] for order in ORDERS}
    said, were, rates = [], [], []
    for _ in range(times):
        records = plant(counts, planted, number, generator)
        wrong = records != counts
        ratio = suspicion.ratios(probabilities, records, looked_for)
        differs = abs(records - told).astype(np.float64)
        scores = {"audit": ratio, "differs": differs, "random": np.zeros(len(counts))}
        for order in ORDERS:
            ranked = wrong[_ranked(scores[order], generator)]
            precision[order].append(ranked[:FIRST].mean())
            average[order].append(average_precision(ranked))
        estimated = suspicion.fitted_rate(ratio)[0]
        first = np.argsort(-ratio, kind="stable")[:FIRST]
        said.append(suspicion.probability(ratio[first], estimated).sum())
        were.append(wrong[first].sum())
        rates.append(estimated)
    found = {order: Found(*_spread(precision[order]), *_spread(average[order])) for order in ORDERS}
    means = (float(np.mean(each)) for each in (said, were, rates))
    return Planted(kind, times, len(counts), number, found, *means)


def average_precision(ranked: npt.NDArray[np.bool_]) -> float:
    """The mean precision down to each wrong bin of bool (bins,), the most suspicious first."""
    places = np.flatnonzero(ranked)
    return float((np.arange(1, len(places) + 1) / (places + 1)).mean())


def _ranked(scores: Floats, generator: np.random.Generator) -> Integers:
    """The bins, the highest score first; equal ones in random order."""
    return np.lexsort((generator.random(len(scores)), -scores))


def _spread(values: list[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
