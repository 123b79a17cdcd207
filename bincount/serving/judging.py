"""Whether a bin should be checked whose record says a quantity, by what is told of its photo."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from bincount import run
from bincount.auditing import suspicion
from bincount.data.index import Counts
from bincount.serving.refusal import Refusal


@dataclass(frozen=True)
class Verdict:
    """On a record that says ``expected``: the probability ``p_wrong`` that it is wrong, and what to do."""

    expected: int
    p_wrong: float
    check: bool


@dataclass(frozen=True)
class Judge:
    """Of so many records the share ``error_rate`` is wrong; a bin is to be checked from ``check_from`` on.

    ``wrong``: see ``bincount.auditing.suspicion``, float64 (C, C).
    """

    counts: Counts
    wrong: suspicion.Floats
    error_rate: float
    check_from: float

    def judge(self, probabilities: tuple[float, ...], expected: int) -> Verdict:
        """What to think of a record, given the probability of each count. See :meth:`refuse`."""
        classes = self.counts.classes(np.array([expected]))
        ratio = suspicion.ratios([probabilities], classes, self.wrong)
        p_wrong = float(suspicion.probability(ratio, self.error_rate)[0])
        return Verdict(expected, p_wrong, p_wrong >= self.check_from)

    def refuse(self, expected: int | None) -> None:
        """Raise Refusal for a quantity that no photo can speak for."""
        if expected is not None and expected > self.counts.max_count and not self.counts.more:
            most = self.counts.max_count
            raise Refusal(422, f"expected={expected}: this run counts up to {most} and cannot judge that")


def judge_of(folder: Path, counts: Counts, error_rate: float, check_from: float) -> Judge:
    """By how often each count was among the run's validation photos; all alike where it kept none."""
    share = np.ones(len(counts))
    if (folder / run.ANSWERS).exists():
        seen = pq.read_table(folder / run.ANSWERS, columns=["count"])["count"].to_numpy()
        share = np.bincount(counts.classes(seen), minlength=len(counts)).astype(np.float64)
    wrong = suspicion.mixed(suspicion.ways(share / share.sum()))
    return Judge(counts, wrong, error_rate, check_from)
