"""Bins become findings: in the order in which to check them, so many of them flagged."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from bincount.auditing import suspicion
from bincount.auditing.matching import Bins
from bincount.auditing.suspicion import Floats, Integers
from bincount.config import Audit
from bincount.data.index import Counts, probability_columns

#: The most suspicious bins that are told one by one.
LISTED = 100


@dataclass(frozen=True)
class Validation:
    """A run's answers to photos whose records are taken for right: classes (N,), probabilities (N, C)."""

    counts: Integers
    probabilities: Floats


@dataclass(frozen=True)
class Findings:
    """``first``: the most suspicious bins, a row each. ``sure``: the probability of each bin that it does not
    hold what is expected, float64 (bins,), falling. ``flagged``: how many of the first are to be checked.

    ``rate``: the share of wrong records and its 95 % interval, all the same where it was given. ``wrong``:
    how many of the flagged are expected to be wrong, for the rate and at the ends of its interval.
    ``false_alarms``: the share of validation's right records that would have been flagged; None without any.
    """

    first: list[dict[str, Any]]
    sure: Floats
    flagged: int
    rate: tuple[float, float, float]
    wrong: tuple[float, float, float]
    false_alarms: float | None


def judged(
    bins: Bins, expected: pa.Table, counts: Counts, validation: Validation | None, wanted: Audit
) -> Findings:
    """Put the bins in order and flag those to check, as many as are wanted.

    ``expected``: of them and perhaps of others, for how frequent each count is. With ``wanted.budget`` so
    many are flagged; otherwise those above the ratio that ``wanted.false_alarms`` of validation's reach.
    """
    ways = _ways(counts.classes(expected["expected"].to_numpy()), counts)
    ratios: list[Floats] = []

    def judge(some: pa.Table) -> pa.Table:
        shares = np.stack([some[name].to_numpy() for name in probability_columns(counts.names)], axis=1)
        classes = counts.classes(some["expected"].to_numpy())
        ratios.append(suspicion.ratios(shares, classes, ways))
        likely = np.array(counts.names)[suspicion.likely(shares, classes)]
        return some.append_column("likely", pa.array(likely)).append_column("ratio", pa.array(ratios[-1]))

    bins.judge(judge)
    ratio = np.sort(np.concatenate(ratios))[::-1]
    rate = suspicion.fitted_rate(ratio) if wanted.error_rate is None else (wanted.error_rate,) * 3
    flagged, alarms = _flagged(ratio, ways, validation, wanted)
    wrong = [float(suspicion.probability(ratio[:flagged], each).sum()) for each in rate]
    first = bins.first(min(LISTED, max(flagged, 10)), flagged, rate[0])
    sure = suspicion.probability(ratio, rate[0])
    return Findings(first, sure, flagged, rate, (wrong[0], wrong[1], wrong[2]), alarms)


def _ways(classes: Integers, counts: Counts) -> Floats:
    """K of all kinds of errors, among bins that are expected to hold these; each count is held by some."""
    held = np.bincount(classes[classes < len(counts)], minlength=len(counts)) + 1.0
    return suspicion.mixed(suspicion.ways(held / held.sum()))


def _flagged(
    ratio: Floats, ways: Floats, validation: Validation | None, wanted: Audit
) -> tuple[int, float | None]:
    """How many bins to flag, and the share of validation's right records that would be, too."""
    right = None
    if validation is not None:
        right = suspicion.ratios(validation.probabilities, validation.counts, ways)
    if wanted.budget is not None:
        flagged = min(wanted.budget, len(ratio))
        return flagged, None if right is None else float((right >= ratio[flagged - 1]).mean())
    assert right is not None, "a run without validation is told before anything is counted"
    limit = suspicion.threshold(right, wanted.false_alarms)
    return int((ratio > limit).sum()), float((right > limit).mean())


def names(counts: Counts, with_photo: bool) -> Sequence[str]:
    """The columns of findings, in their order."""
    photo = ["photo"] * with_photo
    return [
        "rank",
        "id",
        "expected",
        "likely",
        "p_wrong",
        "flagged",
        *photo,
        *probability_columns(counts.names),
    ]
