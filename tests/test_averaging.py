"""The moving average of the weights: what it holds, that it is validated, and that it is what counts."""

import csv
from collections.abc import Iterator
from pathlib import Path

import killing
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bincount import compose, counter, run, train
from bincount.data.datamodule import evaluation_loader
from bincount.data.index import Index
from bincount.data.plan import Layout
from bincount.training.averaging import WARM_UP, _follow
from bincount.training.sealed import read


@given(
    values=st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=40),
    decay=st.floats(0, 0.999),
)
def test_the_average_is_that_of_the_formula(values: list[float], decay: float) -> None:
    mean, steps = torch.tensor([values[0]]), 1
    expected = values[0]
    for value in values[1:]:
        _follow([mean], [torch.tensor([value])], torch.tensor(steps), decay)
        stays = min(decay, (1 + steps) / (WARM_UP + steps))
        expected, steps = stays * expected + (1 - stays) * value, steps + 1
    assert mean.item() == pytest.approx(expected, abs=1e-4)


def test_counters_are_not_averaged() -> None:
    mean = torch.tensor(3)
    _follow([mean], [torch.tensor(8)], torch.tensor(5), 0.9)
    assert mean.item() == 8


@pytest.fixture
def _model() -> Iterator[None]:
    killing.register()
    yield
    killing.unregister()


@pytest.mark.slow
@pytest.mark.usefixtures("_model")
def test_what_is_validated_and_counts_is_the_average(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "_evaluate", lambda *_: None)
    words = [*killing.RUN, "launcher.devices=1", "data.workers=0", "trainer.max_epochs=2"]
    words += [f"data.root={small_data}", f"runs={tmp_path}", "trainer.ema=0.9", "trainer.monitor=val/loss"]
    folder = train.train(compose.typed("train", compose.compose("train", words)))
    kept = read(folder / run.BEST)
    average, last = kept["state_dict"], kept["current_model_state"]
    assert any(not torch.equal(average[key], last[key]) for key in average)
    told = min(float(row["val/loss"]) for row in _rows(folder) if row["val/loss"])
    assert _loss(folder, small_data) == pytest.approx(told, abs=1e-4)


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _loss(folder: Path, data: Path) -> float:
    """The cross-entropy on val of the run as it counts."""
    index, found = Index.open(str(data)), counter.load(folder)
    losses = []
    for batch in evaluation_loader(index, "val", found.image_size, Layout(1, 0, 8)):
        real = batch["weight"] > 0
        told = found.probabilities(batch["pixels"])[real]
        losses.append(-told.gather(1, batch["count"][real][:, None]).log())
    return float(torch.cat(losses).mean())
