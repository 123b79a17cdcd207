"""Whether two samples are called changed: never much too often, and always where it matters."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bincount.exploring import change
from bincount.exploring.change import LEAST, changes

few_values = st.lists(st.integers(0, 5).map(float), min_size=1, max_size=30).map(np.array)


@pytest.fixture(autouse=True)
def few_deals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change, "DEALS", 60)


@settings(max_examples=30)
@given(few_values, few_values)
def test_the_distance_is_the_largest_difference_of_the_shares(before: np.ndarray, now: np.ndarray) -> None:
    found = changes({"x": before}, {"x": now}, alpha=0.05, seed=0)["x"]
    shares = {x: ((before <= x).mean(), (now <= x).mean()) for x in [*before, *now]}
    assert found.distance == pytest.approx(max(abs(b - n) for b, n in shares.values()))
    assert (found.share_before, found.share_now) == pytest.approx(shares[found.at])
    assert found.distance == pytest.approx(abs(found.share_before - found.share_now))
    assert found.changed == (found.distance > found.bound and found.distance >= LEAST)


@settings(max_examples=30)
@given(few_values, few_values, st.integers(0, 5), st.integers(0, 5))
def test_it_is_of_the_order_alone(before: np.ndarray, now: np.ndarray, seed: int, other: int) -> None:
    def told(change_units: bool) -> tuple[float, float, bool]:
        pair = [np.exp(each) * 7 if change_units else each for each in (before, now)]
        found = changes({"x": pair[0]}, {"x": pair[1]}, alpha=0.05, seed=seed)["x"]
        return found.distance, found.bound, found.more

    assert told(False) == told(True)
    rng = np.random.default_rng(other)
    mixed = changes({"x": rng.permutation(before)}, {"x": rng.permutation(now)}, alpha=0.05, seed=seed)["x"]
    assert mixed.distance == pytest.approx(told(False)[0])


@settings(max_examples=20)
@given(few_values, few_values)
def test_before_and_now_change_places(before: np.ndarray, now: np.ndarray) -> None:
    one = changes({"x": before}, {"x": now}, alpha=0.05, seed=0)["x"]
    other = changes({"x": now}, {"x": before}, alpha=0.05, seed=0)["x"]
    assert one.distance == pytest.approx(other.distance)
    if one.distance:
        assert one.more != other.more or one.at != other.at


@pytest.mark.parametrize(("n", "m"), [(8, 8), (40, 12), (300, 40)])
def test_one_distribution_is_seldom_above_the_bound_at_any_size(n: int, m: int) -> None:
    """Of three traits, two of them the same, one with ties: in 5 % of the samples, and not never."""
    rng = np.random.default_rng(0)
    above = 0
    for draw in range(200):
        x, y = rng.normal(size=(2, n + m))
        values = {"x": x, "same": x, "y": np.round(y)}
        before = {name: each[:n] for name, each in values.items()}
        now = {name: each[n:] for name, each in values.items()}
        found = changes(before, now, alpha=0.05, seed=draw)
        above += any(each.distance > each.bound for each in found.values())
    assert above / 200 <= 0.09  # 5 %, and 2.6 deviations of 200 draws
    if n > 8:
        assert above > 0


def test_a_small_difference_of_many_photos_is_real_and_no_change() -> None:
    rng = np.random.default_rng(0)
    before, now = rng.normal(size=8000), rng.normal(0.15, size=8000)
    found = changes({"x": before}, {"x": now}, alpha=0.05, seed=0)["x"]
    assert found.bound < found.distance < LEAST
    assert not found.changed


def test_a_large_difference_shows_in_few_photos_and_says_which_way() -> None:
    before = {"x": np.arange(30.0), "y": np.arange(30.0)}
    found = changes(before, {"x": np.arange(12.0) + 25, "y": np.arange(12.0) * 2.5}, alpha=0.05, seed=0)
    assert found["x"].changed
    assert found["x"].more
    assert not found["y"].changed


@pytest.mark.parametrize(("brighter", "changed"), [(0.0, False), (2.0, True)])
def test_at_equal_counts_only_what_is_more_than_the_counts_do_is_a_change(
    brighter: float, changed: bool
) -> None:
    """Fuller bins are darker; now they are fuller, and then the camera is another one, too."""
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 4, 500).astype(float), rng.integers(2, 6, 200).astype(float)
    light = [rng.normal(-2 * each) for each in counts]
    before, now = {"light": light[0]}, {"light": light[1] + brighter}
    if not brighter:
        assert changes(before, now, alpha=0.05, seed=0)["light"].changed
    alike = changes(before, now, alpha=0.05, seed=0, equal=counts)["light"]
    assert alike.changed == changed


def test_without_any_equal_there_is_nothing_to_compare() -> None:
    counts = np.zeros(5), np.ones(4)
    assert changes({"x": np.arange(5.0)}, {"x": np.arange(4.0)}, alpha=0.05, seed=0, equal=counts) == {}
