import math

import pytest
import torch
from torch.nn import functional as F

from bincount.errors import BadInput
from bincount.model.objectives import build


def test_cross_entropy_is_that_of_torch_for_each_photo():
    objective = build("cross_entropy", 6, label_smoothing=0.1)
    outputs, count = torch.randn(8, objective.outputs), torch.arange(8) % 6
    loss = objective(outputs, count)
    assert loss.shape == (8,)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.mean(), F.cross_entropy(outputs, count, label_smoothing=0.1))


def test_an_ordinal_target_is_shared_by_near_counts():
    objective = build("ordinal", 6, sigma=0.6)
    bell = [math.exp(-((k - 2) ** 2) / 0.72) for k in range(6)]
    target = torch.tensor([each / sum(bell) for each in bell])
    outputs = torch.randn(1, 6)
    loss = objective(outputs, torch.tensor([2]))
    torch.testing.assert_close(loss, -(target * outputs.log_softmax(dim=1)).sum(dim=1))
    # The least loss is at the target itself, and a mistake by one costs less than one by three.
    assert objective(target.log()[None], torch.tensor([2])) < loss
    sure = 10 * torch.eye(6)
    assert objective(sure[3][None], torch.tensor([2])) < objective(sure[5][None], torch.tensor([2]))


def test_a_narrow_bell_is_cross_entropy_and_so_is_focal_without_gamma():
    outputs, count = torch.randn(6, 6), torch.arange(6)
    expected = F.cross_entropy(outputs, count, reduction="none")
    torch.testing.assert_close(build("ordinal", 6, sigma=0.05)(outputs, count), expected)
    torch.testing.assert_close(build("focal", 6, gamma=0.0)(outputs, count), expected)


def test_focal_is_its_formula_and_has_a_gradient_where_the_count_is_certain():
    outputs = torch.tensor([[0.3, -1.0, 2.0], [60.0, 0.0, 0.0]], requires_grad=True)
    count = torch.tensor([1, 0])
    loss = build("focal", 3, gamma=2.0)(outputs, count)
    p = outputs.softmax(dim=1)[0, 1]
    torch.testing.assert_close(loss[0], -((1 - p) ** 2) * p.log())
    loss.sum().backward()
    assert outputs.grad.isfinite().all()


@pytest.mark.parametrize("name", ["cross_entropy", "ordinal", "focal"])
def test_posterior_is_a_distribution_over_counts(name: str):
    objective = build(name, 7)
    posterior = objective.posterior(torch.randn(5, objective.outputs) * 30)
    assert posterior.shape == (5, objective.classes) == (5, 7)
    torch.testing.assert_close(posterior.sum(dim=1), torch.ones(5))


def test_an_unknown_objective_names_a_near_one():
    with pytest.raises(BadInput, match=r"objective=cross_entropi: .*did you mean cross_entropy\?"):
        build("cross_entropi", 6)
