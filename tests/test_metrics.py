import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError
from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError

from bincount.model.guessing import baselines
from bincount.model.metrics import CountMetrics, score
from bincount.model.published import PUBLISHED

CLASSES = 6


def photos(seed, n, classes=CLASSES):
    generator = np.random.default_rng(seed)
    return generator.integers(classes, size=n), generator.dirichlet(np.ones(classes) / 2, size=n)


def by_hand(counts, probabilities):
    """Every figure straight from its definition, photo by photo."""
    told = probabilities.argmax(1)
    error = told - counts
    confidence, right = probabilities.max(1), told == counts
    bins = [(low / 15, (low + 1) / 15) for low in range(15)]
    inside = [(confidence > low) & (confidence <= high) for low, high in bins]
    return {
        "samples": len(counts),
        "accuracy": np.mean(error == 0),
        "rmse": np.sqrt(np.mean(error**2)),
        "mae": np.mean(np.abs(error)),
        "within_one": np.mean(np.abs(error) <= 1),
        "nll": np.mean([-np.log(row[count]) for row, count in zip(probabilities, counts, strict=True)]),
        "ece": sum(b.mean() * abs(right[b].mean() - confidence[b].mean()) for b in inside if b.any()),
        "per_count": [
            {
                "count": count,
                "samples": (counts == count).sum(),
                "accuracy": np.mean(error[counts == count] == 0),
                "rmse": np.sqrt(np.mean(error[counts == count] ** 2)),
            }
            if (counts == count).any()
            else {"count": count, "samples": 0, "accuracy": None, "rmse": None}
            for count in range(probabilities.shape[1])
        ],
        "confusion": [
            [((counts == true) & (told == guess)).sum() for guess in range(probabilities.shape[1])]
            for true in range(probabilities.shape[1])
        ],
    }


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(2, 8))
def test_score_is_what_its_definition_says(seed, n, classes):
    counts, probabilities = photos(seed, n, classes)
    told, expected = score(counts, probabilities), by_hand(counts, probabilities)
    assert list(told) == [*expected, "decodings"]
    assert told["decodings"].keys() == {"mode", "median", "mean"}
    for how, figures in told["decodings"].items():
        under = score(counts, probabilities, how)
        assert figures == {"accuracy": under["accuracy"], "rmse": under["rmse"]}
    assert told["decodings"]["mode"] == {"accuracy": told["accuracy"], "rmse": told["rmse"]}
    assert told["confusion"] == expected["confusion"]
    for mine, theirs in zip(told["per_count"], expected["per_count"], strict=True):
        assert mine == pytest.approx(theirs)
    for key in ("samples", "accuracy", "rmse", "mae", "within_one", "nll", "ece"):
        assert told[key] == pytest.approx(expected[key]), key


def test_score_agrees_with_torchmetrics():
    counts, probabilities = photos(1, 500)
    told = score(counts, probabilities)
    count, probability = torch.tensor(counts), torch.tensor(probabilities)
    mode = probability.argmax(1)
    per_count = MulticlassAccuracy(CLASSES, average="none")(mode, count)
    assert told["accuracy"] == pytest.approx(float(MulticlassAccuracy(CLASSES, average="micro")(mode, count)))
    assert told["rmse"] == pytest.approx(float(MeanSquaredError(squared=False)(mode.float(), count.float())))
    assert told["mae"] == pytest.approx(float(MeanAbsoluteError()(mode.float(), count.float())))
    assert told["ece"] == pytest.approx(
        float(MulticlassCalibrationError(CLASSES)(probability, count)), abs=1e-6
    )
    assert [row["accuracy"] for row in told["per_count"]] == pytest.approx(per_count.tolist())


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 9))
def test_figures_of_training_equal_those_of_evaluation(seed, n, size):
    """Fed in batches of any size, each with rows of weight 0 that hold garbage."""
    counts, probabilities = photos(seed, n)
    metrics = CountMetrics(CLASSES)
    for start in range(0, n, size):
        batch = slice(start, start + size)
        real = len(counts[batch])
        count = torch.cat([torch.tensor(counts[batch]), torch.tensor([-1, 10**6])])
        garbage = torch.tensor([[math.nan] * CLASSES, [7.0] * CLASSES])
        probability = torch.cat([torch.tensor(probabilities[batch]), garbage])
        metrics.update(probability, count, torch.tensor([1.0] * real + [0.0] * 2))
    told, whole = metrics.compute(), score(counts, probabilities)
    assert told == {key: whole[key] for key in told}
    metrics.reset()
    assert metrics.confusion.sum() == 0


def test_counts_without_photos_are_null():
    told = score([1, 1], [[0.1, 0.9, 0], [0.9, 0.1, 0]])
    assert told["per_count"][1] == {"count": 1, "samples": 2, "accuracy": 0.5, "rmse": math.sqrt(0.5)}
    assert told["per_count"][2] == {"count": 2, "samples": 0, "accuracy": None, "rmse": None}
    empty = score([], np.zeros((0, 3)))
    assert empty["samples"] == 0
    assert [empty[key] for key in ("accuracy", "rmse", "mae", "within_one", "nll", "ece")] == [None] * 6
    json.dumps([told, empty, baselines([], 3)], allow_nan=False)


def test_a_sure_mistake_costs_much_but_not_infinity():
    assert score([0], [[0.0, 1.0]])["nll"] == pytest.approx(87.3, abs=0.1)


def test_score_takes_read_only_arrays():
    counts, probabilities = photos(2, 9)
    counts.flags.writeable = probabilities.flags.writeable = False
    assert score(counts, probabilities.astype(np.float32))["samples"] == 9


@pytest.mark.parametrize(("counts", "fault"), [([0], "shapes"), ([0, 2], "0 to 1"), ([-1, 0], "-1 to 0")])
def test_score_refuses_what_does_not_fit(counts, fault):
    with pytest.raises(ValueError, match=fault):
        score(counts, [[0.5, 0.5], [0.5, 0.5]])


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=60))
def test_baselines_are_those_of_every_pair_of_truth_and_guess(counts):
    told = baselines(counts, CLASSES)
    truth, guess = np.meshgrid(counts, counts)
    assert told["random"]["accuracy"] == pytest.approx(np.mean(truth == guess))
    assert told["random"]["rmse"] == pytest.approx(np.sqrt(np.mean((truth - guess) ** 2)))
    commonest = min(range(CLASSES), key=lambda count: (-counts.count(count), count))
    assert told["majority"]["count"] == commonest
    assert told["majority"]["accuracy"] == pytest.approx(np.mean(np.array(counts) == commonest))
    assert told["majority"]["rmse"] == pytest.approx(np.sqrt(np.mean((np.array(counts) - commonest) ** 2)))


def test_published_figures_are_shares_with_a_source_and_a_caution():
    for result in PUBLISHED:
        assert 0 < result.accuracy < 1
        assert all(0 < share < 1 for share in result.count_accuracy)
        assert len(result.count_accuracy) == len(result.count_rmse)
        assert result.source
        assert "another split" in result.note
