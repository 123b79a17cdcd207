"""Findings: each rule fires on curves with its fault and on no healthy ones; and so it is with real runs."""

import csv
import gzip
import logging
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import killing
import lightning as L
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bincount import cli, config
from bincount.health import LOOK, OK, RULES, UNKNOWN, findings, judge
from bincount.model.module import CountModule
from bincount.model.objectives import build
from bincount.training.health import HealthFigures
from bincount.training.loggers import MetricsFile

CLUELESS = math.log(6)

Rows = list[dict[str, str]]


def verdicts(rows: Any) -> dict[str, str]:
    return {each.name: each.verdict for each in judge(rows)}


# --- made-up curves -----------------------------------------------------------------------------------


@st.composite
def healthy(draw: st.DrawFn) -> Rows:
    """The rows of a run that learns: its losses fall to a third or two of what they were, with noise."""
    chance = random.Random(draw(st.integers(0, 2**32)))
    epochs, per_epoch = draw(st.integers(4, 20)), draw(st.integers(4, 8))
    end, size = draw(st.floats(0.3, 0.7)), draw(st.floats(1e-3, 1e3))
    steps = epochs * per_epoch
    rows: list[dict[str, float]] = [
        {"step": 0, "epoch": 0, "init/loss": 1.9, "init/clueless": CLUELESS, "init/spread": 0.2}
    ]
    for n in range(steps):
        loss = CLUELESS * (end + (1 - end) * math.exp(-4 * n / steps))
        norm = size * chance.lognormvariate(0, 0.5)
        seconds = chance.uniform(0.9, 1.2)
        rows.append(
            {"step": 10 * n + 9, "epoch": n // per_epoch, "train/loss": loss * chance.uniform(0.9, 1.1)}
        )
        rows[-1] |= {"grad/norm": norm, "grad/first": norm / 1e3, "grad/last": norm / 1e2, "grad/vanished": 0}
        rows[-1] |= {
            "update/first": 1e-3,
            "update/last": 1e-3,
            "time/step": seconds,
            "time/waited": seconds / 50,
        }
        if n % per_epoch == per_epoch - 1:
            rows[-1] |= {"val/loss": 1.05 * loss, "val/accuracy": 0.7 - loss / 5}
            rows[-1] |= {"val/rmse": loss / 2, "val/mae": loss / 3}
    # The first steps start things up.
    rows[1] |= {"time/step": 30.0, "time/waited": 25.0}
    return [{name: str(value) for name, value in row.items()} for row in rows]


@settings(max_examples=40)
@given(healthy())
def test_nothing_is_found_in_a_healthy_run(rows: Rows) -> None:
    assert set(verdicts(rows).values()) == {OK}


def changed(rows: Rows, name: str, change: Callable[[float, float], float], since: float = 0) -> Rows:
    """The rows with other values of a figure: of the value and of its place (0 to 1), from ``since`` on."""
    held = [row for row in rows if name in row]
    for n, row in enumerate(held):
        place = (n + 1) / len(held)
        if place > since:
            row[name] = str(change(float(row[name]), place))
    return rows


FAULTS: dict[str, list[tuple[str, Callable[[Rows], Rows]]]] = {
    "loss not decreasing": [
        ("flat", lambda rows: changed(rows, "train/loss", lambda value, place: 1.5)),
        ("rising", lambda rows: changed(rows, "train/loss", lambda value, place: 1 + place)),
        ("clueless", lambda rows: changed(rows, "train/loss", lambda value, place: 1.99 - 0.2 * place)),
        ("no number", lambda rows: changed(rows, "train/loss", lambda value, place: math.nan, since=0.5)),
    ],
    "overfitting": [
        ("val rises", lambda rows: changed(rows, "val/loss", lambda value, place: value + place)),
        ("val stays", lambda rows: changed(rows, "val/loss", lambda value, place: 2.8, since=0.3)),
    ],
    "overtraining": [
        (
            "nothing better",
            lambda rows: [
                {**row, **{name: "1" for name in row if name.startswith("val/")}} for row in longer(rows)
            ],
        )
    ],
    "vanishing gradients": [
        ("first layers", lambda rows: changed(rows, "grad/vanished", lambda value, place: 0.4)),
        ("first to last", lambda rows: changed(rows, "grad/first", lambda value, place: value / 1e5)),
        ("all", lambda rows: changed(rows, "grad/vanished", lambda value, place: 1.0)),
    ],
    "exploding gradients": [
        ("infinite", lambda rows: changed(rows, "grad/norm", lambda value, place: math.inf, since=0.8)),
        ("no number", lambda rows: changed(rows, "grad/norm", lambda value, place: math.nan, since=0.8)),
        ("large", lambda rows: changed(rows, "grad/norm", lambda value, place: 1e4 * value, since=0.9)),
        ("loss", lambda rows: changed(rows, "train/loss", lambda value, place: 40.0, since=0.9)),
    ],
    "poor initialisation": [
        ("loud", lambda rows: changed(rows, "init/loss", lambda value, place: 9.0)),
        ("no number", lambda rows: changed(rows, "init/loss", lambda value, place: math.nan)),
        ("equal", lambda rows: changed(rows, "init/spread", lambda value, place: 1e-6)),
    ],
    "waiting for data": [
        ("half", lambda rows: changed(rows, "time/waited", lambda value, place: 0.5)),
    ],
    "step-time outliers": [
        ("some", lambda rows: changed(rows, "time/step", lambda value, place: 8.0, since=0.8)),
    ],
}


def longer(rows: Rows) -> Rows:
    """The rows, with enough validations that nothing better in them is worth a word."""
    last = rows[-1]
    more = [{**last, "step": str(int(last["step"]) + n), "epoch": str(100 + n)} for n in range(1, 7)]
    return rows + more


def test_there_is_a_fault_for_each_rule() -> None:
    assert set(FAULTS) == set(RULES)


@pytest.mark.parametrize(
    ("name", "fault"),
    [pytest.param(name, fault, id=f"{name}, {what}") for name in FAULTS for what, fault in FAULTS[name]],
)
@settings(max_examples=20)
@given(rows=healthy())
def test_each_fault_is_found(name: str, fault: Callable[[Rows], Rows], rows: Rows) -> None:
    found = next(each for each in judge(fault(rows)) if each.name == name)
    assert found.verdict == LOOK, found
    assert ": " in found.told  # what to do
    assert found.told.endswith(".")
    assert "\n" not in found.told


@settings(max_examples=40)
@given(healthy())
def test_without_validation_the_rest_is_judged(rows: Rows) -> None:
    rows = [{name: row[name] for name in row if not name.startswith("val/")} for row in rows]
    unknown = {"overfitting", "overtraining"}
    assert verdicts(rows) == {name: UNKNOWN if name in unknown else OK for name in RULES}


@settings(max_examples=40)
@given(healthy())
def test_of_runs_made_before_there_were_these_figures_the_losses_are_judged(rows: Rows) -> None:
    old = [
        {name: row[name] for name in row if name.startswith(("train", "val", "step", "ep"))} for row in rows
    ]
    known = {"loss not decreasing", "overfitting", "overtraining"}
    assert verdicts(old) == {name: OK if name in known else UNKNOWN for name in RULES}


def test_a_last_layer_that_begins_at_zero_is_well() -> None:
    row = {"step": "0", "init/loss": f"{CLUELESS}", "init/clueless": f"{CLUELESS}", "init/spread": "0.0"}
    assert verdicts([row])["poor initialisation"] == OK


def test_photos_learnt_by_heart_leave_no_gradient_and_that_is_no_fault() -> None:
    rows = [{"step": f"{n}", "train/loss": "0.001", "grad/vanished": "1.0"} for n in range(9, 99, 10)]
    assert verdicts(rows)["vanishing gradients"] == UNKNOWN


COLUMNS = ["step", "epoch", "train/loss", "val/loss", "val/accuracy", "val/rmse", "val/mae", "grad/norm"]
COLUMNS += ["grad/first", "grad/last", "grad/vanished", "init/loss", "init/clueless", "init/spread"]
COLUMNS += ["time/step", "time/waited", "update/last"]


@settings(max_examples=50)
@given(
    st.lists(
        st.dictionaries(st.sampled_from(COLUMNS), st.floats().map(str) | st.sampled_from(["", "-", "1", "0"]))
    )
)
def test_whatever_the_file_holds_there_is_a_finding_a_rule(rows: Rows) -> None:
    found = judge(rows)
    assert [each.name for each in found] == list(RULES)
    assert {each.verdict for each in found} <= {OK, LOOK, UNKNOWN}


def test_of_a_run_without_figures_nothing_is_known(tmp_path: Path) -> None:
    assert {each.verdict for each in findings(tmp_path)} == {UNKNOWN}
    (tmp_path / "metrics.csv").write_text("step,epoch\n")
    assert {each.verdict for each in findings(tmp_path)} == {UNKNOWN}


# --- the figures themselves ---------------------------------------------------------------------------


class Mute(nn.Module):
    """Its first layer gets no gradient: its outputs count for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 6)

    def forward(self, pixels: Tensor) -> Tensor:
        outputs: Tensor = self.last(pixels.flatten(1) + 0 * self.first(pixels.flatten(1)))
        return outputs


def fitted(tmp_path: Path, model: nn.Module, **options: Any) -> Rows:
    """The rows of two steps of plain descent on one batch of 8 photos, each of which is logged."""
    sgd = config.SGD(name="sgd", scale="none", lr=0.5, weight_decay=0, momentum=0, nesterov=False)
    objective = build("cross_entropy", 6)
    module = CountModule(model, objective, sgd, config.Step(name="step", every=9, gamma=0.1))
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=MetricsFile(tmp_path / "metrics.csv"),
        callbacks=[HealthFigures(model, objective.clueless(), lambda: 0.25 * trainer.global_step)],
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(module, *(DataLoader([batch()], batch_size=None) for _ in range(2)))
    with (tmp_path / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def batch() -> dict[str, Tensor]:
    pixels = torch.randn(8, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    return {"pixels": pixels, "count": torch.arange(8) % 6, "weight": torch.ones(8), "row": torch.arange(8)}


advice = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")


@advice
@pytest.mark.parametrize("options", [{}, {"gradient_clip_val": 1e-3}], ids=["", "clipped"])
def test_the_figures_are_those_of_the_step(tmp_path: Path, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 6))
    layer, given = model[1], batch()
    outputs = model(given["pixels"])
    loss = nn.functional.cross_entropy(outputs, given["count"])
    weight, bias = torch.autograd.grad(loss, [layer.weight, layer.bias])
    norm = float(torch.cat([weight.flatten(), bias]).norm())
    size = float(layer.weight.detach().norm())
    row = fitted(tmp_path, model, **options)[0]
    expected = {
        "init/loss": float(loss.detach()),
        "init/clueless": CLUELESS,
        "init/spread": float(outputs.detach().std(dim=0, correction=0).mean()),
        "grad/norm": norm,
        "grad/first": float(weight.square().mean().sqrt()),
        "grad/last": float(weight.square().mean().sqrt()),
        "grad/vanished": 0,
        "update/last": 0.5
        * float(weight.norm())
        / size
        * min(1, options.get("gradient_clip_val", 99) / norm),
        "time/waited": 0.25,
    }
    assert {name: float(row[name]) for name in expected} == pytest.approx(expected, rel=1e-3)
    assert 0 < float(row["time/step"]) < 60


@advice
def test_a_layer_without_gradient_is_told(tmp_path: Path) -> None:
    rows = fitted(tmp_path, Mute())
    assert [(row["grad/vanished"], row["grad/first"], row["update/first"]) for row in rows] == [
        ("0.5", "0.0", "0.0")
    ] * 2
    assert [bool(row["init/loss"]) for row in rows] == [True, False]


@pytest.mark.parametrize("name", ["cross_entropy", "ordinal", "focal"])
def test_the_clueless_loss_is_that_of_equal_probabilities(name: str) -> None:
    objective = build(name, 6)
    focus = (5 / 6) ** 2 if name == "focal" else 1
    assert objective.clueless() == pytest.approx(focus * CLUELESS)


# --- real runs ----------------------------------------------------------------------------------------

#: A run of seconds; an epoch takes 8 steps.
QUICK = [*killing.RUN, "launcher.devices=1", "data.workers=0", "data.batch_size=8", "trainer.evaluate=null"]
QUICK += ["trainer.checkpoint_every=null"]


@pytest.fixture
def bincount(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Path]]:
    """Trains; gives the run's folder."""
    monkeypatch.chdir(tmp_path)
    killing.register()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks this small lose more to waiting for a second thread

    def bincount(*words: str) -> Path:
        assert cli.main(["train", f"data.root={small_data}", *words]) == 0
        return Path("runs/latest").resolve()

    yield bincount
    killing.unregister()
    torch.set_num_threads(threads)
    for handler in list(logging.getLogger("bincount").handlers):
        logging.getLogger("bincount").removeHandler(handler)
        handler.close()


def found_in(folder: Path) -> dict[str, str]:
    return {each.name: each.verdict for each in findings(folder)}


@pytest.mark.slow
def test_a_rate_that_is_far_too_high_is_found_and_told_once(bincount: Callable[..., Path]) -> None:
    folder = bincount(
        *QUICK, "optimizer=sgd", "optimizer.lr=1e4", "scheduler.warmup=0", "trainer.max_epochs=10"
    )
    found = found_in(folder)
    assert found["exploding gradients"] == LOOK
    assert found["poor initialisation"] == OK
    lines = [line for line in (folder / "log.txt").read_text().splitlines() if "training health" in line]
    assert [line.split(" WARNING training health, ")[1].split(":")[0] for line in lines] == [
        name for name in found if found[name] == LOOK
    ]


@pytest.mark.slow
def test_few_photos_and_many_epochs_are_found(bincount: Callable[..., Path]) -> None:
    words = ["data.augment.shift=0", "data.augment.zoom=0", "data.augment.light=0", "data.augment.flip=0"]
    found = found_in(bincount(*QUICK, *words, "trainer.max_epochs=40", "optimizer.weight_decay=0"))
    assert found["overfitting"] == LOOK
    assert found["loss not decreasing"] == OK
    assert found["exploding gradients"] == OK


@pytest.mark.slow
def test_two_ranks_have_figures_and_a_profile_each(bincount: Callable[..., Path]) -> None:
    quick = [
        "model=resnet18",
        "data.image_size=32",
        "data.batch_size=4",
        "data.workers=0",
        "launcher.devices=2",
    ]
    folder = bincount(*quick, "trainer.max_epochs=4", "trainer.evaluate=null", "trainer.profiler=simple")
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["grad/norm"]] == ["9", "19", "29"]
    assert all(0 < float(row["time/waited"]) < float(row["time/step"]) for row in rows if row["time/step"])
    assert found_in(folder)["poor initialisation"] == OK
    for rank in (0, 1):
        assert "train_dataloader_next" in (folder / f"profile/fit-simple-{rank}.txt").read_text()
    assert "where the time went is in" in (folder / "log.txt").read_text()


@pytest.mark.slow
def test_some_steps_are_profiled_operator_by_operator(bincount: Callable[..., Path]) -> None:
    folder = bincount(*QUICK, "trainer.max_epochs=2", "trainer.profiler=pytorch")
    assert "Self CPU time total" in (folder / "profile/fit-pytorch.txt").read_text()
    (trace,) = (folder / "profile").glob("rank-0.*.pt.trace.json.gz")
    # The table has but the 20 rows that took longest.
    assert b"ConvolutionBackward" in gzip.decompress(trace.read_bytes())
