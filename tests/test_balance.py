"""Rare counts made to weigh as much as common ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import NewFolder
from hypothesis import given
from hypothesis import strategies as st
from making import write_data
from test_stream import data_module

from bincount.data.balance import MOST_COPIES, class_weights, copies
from bincount.data.index import Index

some_classes = st.lists(st.integers(0, 5), min_size=1, max_size=300).map(np.array)


@given(some_classes)
def test_with_weights_all_classes_that_are_held_weigh_the_same(classes: np.ndarray) -> None:
    weights = class_weights(classes, 6)
    together = np.bincount(classes, weights[classes], 6)
    assert np.ptp(together[together > 0]) <= 1e-3 * together.max()
    assert weights[classes].mean() == pytest.approx(1, rel=1e-5)
    assert weights[np.bincount(classes, minlength=6) == 0].sum() == 0


@given(some_classes)
def test_copies_bring_each_class_as_near_to_the_commonest_as_whole_copies_can(classes: np.ndarray) -> None:
    times = copies(classes, 6)
    held = np.bincount(classes, minlength=6)
    for photo, number in zip(classes.tolist(), times.tolist(), strict=True):
        assert 1 <= number <= MOST_COPIES
        others = [abs(held.max() - other * held[photo]) for other in range(1, MOST_COPIES + 1)]
        assert abs(held.max() - number * held[photo]) <= min(others) + held[photo] / 2
    assert set(times[classes == held.argmax()].tolist()) == {1}


@pytest.fixture(scope="module")
def skewed(new_folder: NewFolder) -> Index:
    """24 photos of count 2 and three of count 5."""
    counts = {f"{n:05d}": 5 if n % 9 == 4 else 2 for n in range(27)}
    return write_data(new_folder("skewed"), counts)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_repeated_photos_come_as_often_as_planned_and_are_whole(skewed: Index, workers: int) -> None:
    bins, trainer = data_module(skewed, balance="oversample", workers=workers)
    batches = list(bins.train_dataloader())
    counts = torch.cat([batch["count"] for batch in batches])
    assert len(batches) == len(bins.train_dataloader()) == (24 + 3 * 8) // 4
    assert torch.bincount(counts).tolist() == [0, 0, 24, 0, 0, 24]
    rows = torch.cat([batch["row"] for batch in batches])
    assert len(set(rows.tolist())) == len(rows)
    assert all(
        (batch["weight"] == 1).all() and (batch["pixels"].sum((1, 2, 3)) > 0).all() for batch in batches
    )
    assert trainer.global_step == 0


def test_weights_come_with_the_batches_of_training(tmp_path: Path) -> None:
    index = write_data(tmp_path, {f"{n:05d}": 5 if n % 8 == 4 else 2 for n in range(24)})
    bins, _ = data_module(index, balance="weights")
    for batch in bins.train_dataloader():
        expected = torch.where(batch["count"] == 5, 24 / (2 * 3), 24 / (2 * 21))
        assert torch.allclose(batch["weight"], expected.float())
