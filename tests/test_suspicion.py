"""How suspicious a bin is: Bayes' rule worked out by hand, and shares of errors found again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bincount.auditing import suspicion
from bincount.auditing.planting import average_precision, plant, trial
from bincount.auditing.suspicion import BEFORE, KINDS, Floats, Integers

SHARE = np.array([0.05, 0.1, 0.2, 0.3, 0.2, 0.15])


def told(counts: Integers, sureness: float, generator: np.random.Generator) -> Floats:
    """What a counter tells that is right about its own doubts: p(count | photo), float64 (bins, 6).

    It sees one of six signs in a photo, that of its count with a probability of ``sureness``.
    """
    see = np.full((6, 6), (1 - sureness) / 5) + np.eye(6) * (sureness - (1 - sureness) / 5)
    signs = (generator.random((len(counts), 1)) < see[counts].cumsum(axis=1)).argmax(axis=1)
    joint = SHARE[:, None] * see
    answer: Floats = (joint / joint.sum(axis=0)).T[signs]
    return answer


def bins(number: int, generator: np.random.Generator) -> Integers:
    return generator.choice(6, number, p=SHARE)


@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=8))
def test_errors_are_other_counts_and_certain_to_be_some(shares: list[float]) -> None:
    share = np.array(shares) / sum(shares)
    kinds = suspicion.ways(share)
    assert set(kinds) == set(KINDS)
    for ways in [*kinds.values(), suspicion.mixed(kinds)]:
        assert (np.diag(ways) == 0).all()
        assert (ways.sum(axis=1) == pytest.approx(1)) or (len(shares) == 3)
    apart = abs(np.subtract.outer(range(len(share)), range(len(share))))
    assert (kinds["one"][apart != 1] == 0).all()
    assert (kinds["two"][apart != 2] == 0).all()


def test_the_ratio_is_bayes_rule() -> None:
    wrong = suspicion.ways(SHARE)["one"]
    answer = np.array([[0.0, 0.1, 0.2, 0.6, 0.1, 0.0]])
    # The record says 2: the bin holds 1 and the record is one too high (half of the errors there), or 3.
    ratio = suspicion.ratios(answer, np.array([2]), wrong)[0]
    assert ratio == pytest.approx((0.1 * 0.5 + 0.6 * 0.5) / 0.2)
    sure = suspicion.probability(np.array([ratio]), 0.04)[0]
    assert sure == pytest.approx(0.04 * 0.35 / (0.04 * 0.35 + 0.96 * 0.2))
    assert suspicion.likely(answer, np.array([3])).tolist() == [2]
    assert suspicion.likely(answer, np.array([2])).tolist() == [3]


@given(st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_a_surer_counter_makes_a_denied_record_more_suspicious(says: int, seed: int) -> None:
    wrong = suspicion.mixed(suspicion.ways(SHARE))
    other = (says + 1 + seed % 5) % 6
    ratios = []
    for sure in (0.3, 0.6, 0.9):
        answer = np.full((1, 6), (1 - sure) / 5)
        answer[0, other] = sure
        ratios.append(suspicion.ratios(answer, np.array([says]), wrong)[0])
    assert ratios == sorted(ratios)


def test_impossible_probabilities_stay_finite() -> None:
    wrong = suspicion.mixed(suspicion.ways(SHARE))
    ratios = suspicion.ratios(np.eye(6)[[0, 5]], np.array([5, 5]), wrong)
    assert ratios[0] == suspicion.MOST_RATIO
    assert ratios[1] == 1 / suspicion.MOST_RATIO
    assert np.isfinite(suspicion.fitted_rate(ratios)).all()


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_the_share_of_wrong_records_is_found_again(rate: float) -> None:
    generator = np.random.default_rng(1)
    counts = bins(20_000, generator)
    answers = told(counts, 0.7, generator)
    wrong = suspicion.mixed(suspicion.ways(SHARE))
    records = plant(counts, wrong, round(rate * len(counts)), generator)
    ratio = suspicion.ratios(answers, records, wrong)
    best, low, high = suspicion.fitted_rate(ratio)
    assert low < rate < high
    assert high - low < 0.06
    # Of those that it says are wrong with a probability of 30 to 70 %, so many are.
    sure = suspicion.probability(ratio, best)
    some = (sure > 0.3) & (sure < 0.7)
    if some.sum() > 100:
        assert (records != counts)[some].mean() == pytest.approx(sure[some].mean(), abs=0.08)


def test_no_bin_tells_what_was_known_before() -> None:
    best, low, high = suspicion.fitted_rate(np.array([]))
    assert best == pytest.approx(BEFORE[0] / sum(BEFORE))
    assert low < best < high


@given(st.lists(st.floats(1e-3, 1e3), max_size=40))
def test_the_estimate_is_the_most_likely_one(ratios: list[float]) -> None:
    ratio = np.array(ratios)
    best, low, high = suspicion.fitted_rate(ratio)
    assert 0 < low < best < high < 1

    def likelihood(rate: float) -> float:
        before = BEFORE[0] * np.log(rate) + BEFORE[1] * np.log(1 - rate)
        return float(np.log(1 - rate + rate * ratio).sum() + before)

    around = [max(best - 0.01, 1e-6), best, min(best + 0.01, 1 - 1e-6)]
    assert max(map(likelihood, around)) == pytest.approx(likelihood(best), abs=1e-6)


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=60), st.floats(0, 1))
def test_no_more_right_records_are_above_the_threshold_than_allowed(
    ratios: list[float], share: float
) -> None:
    ratio = np.array(ratios)
    limit = suspicion.threshold(ratio, share)
    assert (ratio > limit).mean() <= share


@given(st.integers(1, 200), st.integers(0, 2**32 - 1), st.sampled_from(KINDS))
def test_as_many_errors_are_planted_as_were_asked_for(wrong: int, seed: int, kind: str) -> None:
    generator = np.random.default_rng(seed)
    counts = bins(300, generator)
    ways = suspicion.ways(SHARE)[kind]
    records = plant(counts, ways, wrong, generator)
    assert (records != counts).sum() == wrong
    assert (ways[counts, records][records != counts] > 0).all()


def test_average_precision_is_the_mean_down_to_each_wrong_one() -> None:
    assert average_precision(np.array([True, False, True, False])) == pytest.approx((1 + 2 / 3) / 2)


def test_a_counter_that_sees_finds_what_chance_does_not() -> None:
    generator = np.random.default_rng(2)
    counts = bins(1_000, generator)
    seeing, blind = told(counts, 0.7, generator), np.tile(SHARE, (1_000, 1))
    for answers, least, most in ((seeing, 3.0, 20.0), (blind, 0.4, 1.9)):
        result = trial("bin", counts, answers.argmax(axis=1), answers, 0.05, 40, seed=3)
        chance = result.orders["random"].average_precision
        assert result.wrong == 50
        assert chance == pytest.approx(0.05, abs=0.02)
        assert least < result.orders["audit"].average_precision / chance < most
    # What it says of the first 50 comes true.
    counts = bins(20_000, generator)
    seeing = told(counts, 0.7, generator)
    again = trial("all", counts, seeing.argmax(axis=1), seeing, 0.05, 40, seed=4)
    assert again.told == pytest.approx(again.were, rel=0.2)
    assert again.orders["audit"].average_precision > again.orders["differs"].average_precision


def test_of_errors_that_few_bins_can_have_no_more_are_planted() -> None:
    shares = np.array([0.5, 0.5])
    counts = np.array([0, 1] * 20)
    answers = np.tile(shares, (40, 1))
    assert trial("two", counts, counts, answers, 0.1, 3, seed=0) is None
    found = trial("one", counts, counts, answers, 0.1, 3, seed=0)
    assert found is not None
    assert found.wrong == 4
    few = np.array([1] * 37 + [0, 2, 2])
    found = trial("two", few, few, np.tile([0.1, 0.8, 0.1], (40, 1)), 0.9, 3, seed=0)
    assert found is not None
    assert found.wrong == 3
