"""Probabilities to counts, and putting probabilities right."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bincount.model.decoding import (
    DECODINGS,
    best_decoding,
    decode,
    expected,
    fit_temperature,
    tempered,
)

ROWS = st.lists(st.lists(st.floats(0.01, 1), min_size=4, max_size=4), min_size=1, max_size=6)


def distributions(rows: list[list[float]]) -> torch.Tensor:
    given = torch.tensor(rows, dtype=torch.float64)
    return given / given.sum(dim=1, keepdim=True)


@given(ROWS)
def test_each_decoding_is_what_its_name_says(rows: list[list[float]]) -> None:
    given = distributions(rows)
    for place, row in enumerate(given.tolist()):
        mean = sum(count * share for count, share in enumerate(row))
        assert decode(given)[place] == row.index(max(row))
        assert expected(given)[place] == pytest.approx(mean)
        median = int(decode(given, "median")[place])
        assert sum(row[: median + 1]) >= 0.5 - 1e-9
        assert sum(row[:median]) <= 0.5 + 1e-9
        assert abs(int(decode(given, "mean")[place]) - mean) <= 0.5 + 1e-9
    assert {decode(given, how).dtype for how in DECODINGS} == {torch.int64}


@given(ROWS)
def test_each_decoding_is_best_for_its_own_error(rows: list[list[float]]) -> None:
    """The mode is most often right, the median has the least error in items, the mean the least squared."""
    given = distributions(rows)
    counts = torch.arange(4)
    gap = (counts[:, None] - counts).double()
    for how, cost in {"mode": (gap != 0).double(), "median": gap.abs(), "mean": gap.square()}.items():
        costs = given @ cost.T
        chosen = costs.gather(1, decode(given, how)[:, None])[:, 0]
        assert (chosen <= costs.min(dim=1).values + 1e-9).all()


def test_decode_takes_any_leading_shape_and_the_smallest_of_equals() -> None:
    equal = torch.full((2, 3, 4), 0.25, dtype=torch.float64)
    assert decode(equal).tolist() == [[0] * 3] * 2
    assert decode(equal, "median").tolist() == [[1] * 3] * 2
    assert decode(equal, "mean").tolist() == [[1] * 3] * 2
    assert expected(equal).tolist() == [[1.5] * 3] * 2


def test_rounding_cannot_lead_beyond_the_last_count() -> None:
    sure = torch.tensor([[0.0, 0.0, 1.0], [1e-9, 1e-9, 1.0]])
    assert {tuple(decode(sure, how).tolist()) for how in DECODINGS} == {(2, 2)}


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_that_spoiled_probabilities_is_found(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    right = torch.randn(20_000, 6, generator=generator, dtype=torch.float64).mul(2).softmax(dim=1)
    counts = torch.multinomial(right, 1, generator=generator)[:, 0]
    spoiled = tempered(right, 1 / temperature)
    found = fit_temperature(counts, spoiled)
    assert found == pytest.approx(temperature, rel=0.05)

    def nll(at: float) -> float:
        return float(-tempered(spoiled, at).gather(1, counts[:, None]).log().mean())

    assert nll(found) <= min(nll(found * 1.01), nll(found / 1.01), nll(1.0))


@given(ROWS, st.floats(0.1, 10))
def test_a_temperature_divides_the_logits(rows: list[list[float]], temperature: float) -> None:
    given = distributions(rows)
    powers = given ** (1 / temperature)
    torch.testing.assert_close(tempered(given, temperature), powers / powers.sum(dim=1, keepdim=True))
    torch.testing.assert_close(tempered(given, 1.0), given)


def test_an_impossible_count_that_came_leaves_a_temperature() -> None:
    found = fit_temperature(torch.tensor([0, 1]), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    assert math.isfinite(found)
    assert found > 1


def test_the_decoding_is_chosen_for_both_figures() -> None:
    # Where two far counts are equally likely the mode is right as often as any, and far off when it is wrong.
    far = torch.tensor([[0.41, 0.10, 0.09, 0.40]]).repeat(4, 1)
    assert best_decoding(torch.tensor([1, 2, 1, 3]), far) == "median"
    assert best_decoding(torch.tensor([0, 0, 0, 3]), far) == "mode"
