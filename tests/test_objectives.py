import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from bincount.errors import BadInput
from bincount.model.objectives import build, decode


def test_cross_entropy_is_that_of_torch_for_each_photo():
    objective = build("cross_entropy", 6, label_smoothing=0.1)
    outputs, count = torch.randn(8, objective.outputs), torch.arange(8) % 6
    loss = objective(outputs, count)
    assert loss.shape == (8,)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.mean(), F.cross_entropy(outputs, count, label_smoothing=0.1))


def test_posterior_is_a_distribution_over_counts():
    objective = build("cross_entropy", 7)
    posterior = objective.posterior(torch.randn(5, objective.outputs) * 30)
    assert posterior.shape == (5, objective.classes) == (5, 7)
    torch.testing.assert_close(posterior.sum(dim=1), torch.ones(5))


def test_an_unknown_objective_names_a_near_one():
    with pytest.raises(BadInput, match=r"objective=cross_entropi: .*did you mean cross_entropy\?"):
        build("cross_entropi", 6)


@given(st.lists(st.lists(st.floats(0.01, 1), min_size=4, max_size=4), min_size=1, max_size=6))
def test_decode_gives_mode_and_mean(rows):
    probabilities = torch.tensor(rows)
    probabilities /= probabilities.sum(dim=1, keepdim=True)
    count, expected = decode(probabilities)
    assert count.dtype == torch.int64
    assert expected.dtype == probabilities.dtype
    for row, mode, mean in zip(probabilities.tolist(), count.tolist(), expected.tolist(), strict=True):
        assert mode == row.index(max(row))
        assert mean == pytest.approx(sum(i * p for i, p in enumerate(row)), abs=1e-5)


def test_decode_takes_any_leading_shape_and_the_smallest_of_equals():
    count, expected = decode(torch.full((2, 3, 4), 0.25, dtype=torch.float64))
    assert count.tolist() == [[0] * 3] * 2
    assert expected.tolist() == [[1.5] * 3] * 2
