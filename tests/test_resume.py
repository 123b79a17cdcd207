"""Resumed runs: the same weights as without a stop, each photo of an epoch once, and what is refused."""

import csv
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import killing
import pytest
import torch
from conftest import NewFolder
from killing import differences
from trouble import small_disk, wait_until

from bincount import cli, compose, fit, run, train
from bincount.errors import BadInput, Stopped
from bincount.model.module import CountModule
from bincount.training.sealed import read

#: A run of a second: of 68 photos an epoch takes 8 steps. Dropout and augmentation draw random numbers.
QUICK = [*killing.RUN, "launcher.devices=1", "data.workers=0", "data.batch_size=8", "trainer.max_epochs=3"]


@pytest.fixture(scope="module", autouse=True)
def _model() -> Iterator[None]:
    killing.register()
    yield
    killing.unregister()


@pytest.fixture(autouse=True)
def _leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks this small lose more to waiting for a second thread
    monkeypatch.setattr(train, "_evaluate", lambda *_: None)
    yield
    torch.set_num_threads(threads)
    for handler in list(logging.getLogger("bincount").handlers):
        logging.getLogger("bincount").removeHandler(handler)
        handler.close()


@pytest.fixture
def data(small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return f"data.root={small_data}"


def bincount(*words: str) -> Path:
    """Train; gives the run's folder."""
    return train.train(compose.typed("train", compose.compose("train", words)))


class Crash(Exception):
    """Ends a run as a power cut would: what was not saved is lost."""


@pytest.fixture
def crashing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Trains until a step or a validation begins."""

    def crashing(*words: str, step: int = -1, validation: int = -1) -> Path:
        with monkeypatch.context() as patch:
            for name, number in (("training_step", step), ("validation_step", validation)):
                patch.setattr(CountModule, name, _crashing(getattr(CountModule, name), number))
            with pytest.raises(Crash):
                bincount(*words)
        runs = next((word for word in words if word.startswith("runs=")), "runs=runs")
        return (Path(runs.removeprefix("runs=")) / "latest").resolve()

    return crashing


def _crashing(step: Any, call: int) -> Any:
    calls = 0

    def wrapped(module: CountModule, batch: dict[str, Any], batch_index: int) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise Crash
        return step(module, batch, batch_index)

    return wrapped


# --- the same layout ----------------------------------------------------------------------------------

CRASHES = {
    "at the first step": [{"step": 1}],
    "within the first epoch": [{"step": 6}],
    "in the first validation": [{"validation": 1}],
    "at the second epoch's start": [{"step": 9}],
    "twice in the second epoch": [{"step": 13}, {"step": 3}],
    "in the last validation": [{"validation": 5}],
}


SLOW = {"within the first epoch", "at the second epoch's start", "in the last validation"}


@pytest.fixture(scope="module")
def whole(small_data: Path, new_folder: NewFolder) -> Callable[..., Path]:
    """The run with these words that is never stopped; made once."""
    runs: dict[tuple[str, ...], Path] = {}

    def whole(*words: str) -> Path:
        if words not in runs:
            top = new_folder("whole")
            runs[words] = bincount(f"data.root={small_data}", *QUICK, *words, f"runs={top}")
        return runs[words]

    return whole


@pytest.mark.parametrize(
    "crash", [pytest.param(crash, marks=pytest.mark.slow if crash in SLOW else ()) for crash in CRASHES]
)
def test_a_run_ends_as_if_never_stopped(
    data: str, whole: Callable[..., Path], crashing: Callable[..., Path], crash: str
) -> None:
    resume: list[str] = []
    for moment in CRASHES[crash]:
        crashing(data, *QUICK, *resume, **moment)
        resume = ["resume=latest"]
    assert differences(whole(), bincount(data, *QUICK, *resume)) == []


@pytest.mark.slow
@pytest.mark.parametrize("setting", [(), ("trainer.ema=0.9",)], ids=["", "averaged"])
@pytest.mark.parametrize("what", ["training_step", "validation_step"])
def test_a_run_that_a_signal_stopped_ends_as_if_never_stopped(
    data: str,
    whole: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    setting: tuple[str, ...],
) -> None:
    step = getattr(CountModule, what)

    def signalled(module: CountModule, batch: dict[str, Any], batch_index: int) -> Any:
        if batch_index == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(module, batch, batch_index)

    # Each start is stopped early in its first whole epoch, and saves nothing but when it stops.
    words = [data, *QUICK, *setting]
    for _ in range(3 if what == "validation_step" else 2):
        with monkeypatch.context() as patch:
            patch.setattr(CountModule, what, signalled)
            with pytest.raises(Stopped, match="SIGTERM on rank 0") as stopped:
                bincount(*words)
        assert stopped.value.exit_code == 143
        words = ["resume=latest", "trainer.checkpoint_every=null"]
    assert differences(whole(*setting), bincount("resume=latest", "trainer.checkpoint_every=3")) == []


@pytest.mark.parametrize(
    "scheduler",
    [
        "plateau",
        pytest.param("step", marks=pytest.mark.slow),
        pytest.param("restarts", marks=pytest.mark.slow),
    ],
)
def test_under_every_schedule_too(
    data: str, whole: Callable[..., Path], crashing: Callable[..., Path], scheduler: str
) -> None:
    # A plateau that is impatient: each epoch that is no better counts.
    words = [f"scheduler={scheduler}", *(["scheduler.patience=0"] if scheduler == "plateau" else [])]
    crashing(data, *QUICK, *words, validation=3)
    crashing("resume=latest", step=5)
    folder = bincount("resume=latest")
    assert differences(whole(*words), folder) == []


@pytest.mark.slow
def test_with_averaged_weights_too(
    data: str, whole: Callable[..., Path], crashing: Callable[..., Path]
) -> None:
    words = ["trainer.ema=0.9"]
    crashing(data, *QUICK, *words, step=6)
    crashing("resume=latest", validation=3)
    assert differences(whole(*words), bincount("resume=latest")) == []
    with pytest.raises(BadInput, match="the run keeps an average of its weights: start a new run"):
        bincount("resume=latest", "trainer.ema=null")


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(9, id="within the second epoch of the pre-training"),
        pytest.param(15, id="within the first epoch after it", marks=pytest.mark.slow),
    ],
)
def test_with_a_pre_training_too(
    data: str, whole: Callable[..., Path], crashing: Callable[..., Path], step: int
) -> None:
    # Of 6 steps, and then 8.
    words = ["pretrain.epochs=2", "pretrain.photos=60", "pretrain.lr=0.02", "trainer.max_epochs=1"]
    stopped = crashing(data, *QUICK, *words, step=step)
    assert (stopped / "pretraining/collages").exists() == (step < 12)
    folder = bincount("resume=latest")
    assert differences(whole(*words), folder) == []
    assert not (folder / "pretraining/collages").exists()
    first, then = (read(path / run.LAST) for path in (folder / "pretraining", folder))
    assert (first["global_step"], first["lr"]) == (12, 0.02)
    assert (then["global_step"], then["lr"]) == (8, 0.01)


@pytest.mark.slow
def test_up_to_a_number_of_steps_too(
    data: str, whole: Callable[..., Path], crashing: Callable[..., Path]
) -> None:
    words = ["trainer.max_steps=19"]
    crashing(data, *QUICK, *words, step=17)  # resumed at the second epoch's end
    crashing("resume=latest", step=2)
    assert differences(whole(*words), bincount("resume=latest")) == []


@pytest.mark.parametrize("steps", [8, pytest.param(16, marks=pytest.mark.slow)])
def test_an_epoch_that_was_not_validated_is_validated_first(
    data: str,
    whole: Callable[..., Path],
    crashing: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    steps: int,
) -> None:
    """Whoever asks Lightning to save may do so after an epoch's last step, or within its validation."""
    start = CountModule.on_validation_start

    def saving(module: CountModule) -> None:
        if module.trainer.global_step == steps:
            module.trainer.save_checkpoint(Path(module.trainer.default_root_dir) / run.LAST)
        start(module)

    with monkeypatch.context() as patch:
        patch.setattr(CountModule, "on_validation_start", saving)
        folder = crashing(data, *QUICK, validation=steps // 4)
    assert read(folder / run.LAST)["global_step"] == steps
    assert differences(whole(), bincount("resume=latest")) == []


# --- another layout -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_epoch_that_changes_its_batches_takes_each_photo_once(
    data: str, crashing: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, list[int]]] = []
    step = CountModule.training_step

    def noting(module: CountModule, batch: dict[str, Any], batch_index: int) -> Any:
        seen.append((module.global_step, batch["row"].tolist()))
        return step(module, batch, batch_index)

    monkeypatch.setattr(CountModule, "training_step", noting)
    every = "trainer.checkpoint_every=1"
    crashing(data, *QUICK, every, "trainer.max_epochs=2", step=4)  # 3 steps of 8 photos
    crashing("resume=latest", "data.batch_size=5", step=3)  # 2 steps of 5
    crashing("resume=latest", "data.batch_size=3", "data.workers=2", step=5)  # 4 steps of 3, 22 photos left
    folder = bincount("resume=latest", "data.batch_size=10", "data.workers=0")  # 2 steps of 10, 2 left

    steps = dict(seen)  # of a step that was begun twice the second time counts
    assert [len(rows) for rows in steps.values()] == [8] * 3 + [5] * 2 + [3] * 4 + [10] * 2 + [10] * 6
    for epoch in (range(11), range(11, 17)):
        photos = Counter(row for number in epoch for row in steps[number])
        assert set(photos.values()) == {1}
        assert 68 - len(photos) < 10
    end = read(folder / run.LAST)
    assert (end["global_step"], end["BinData"]["epoch"]) == (17, 2)
    assert [row["step"] for row in rows(folder) if row["val/loss"]] == ["10", "16"]
    # The schedule came to its end: two epochs of 6 steps.
    assert end["lr_schedulers"][0]["last_epoch"] == 12


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_an_epoch_of_which_too_little_is_left_is_ended(data: str, crashing: Callable[..., Path]) -> None:
    crashing(data, *QUICK, "trainer.checkpoint_every=1", "trainer.max_epochs=2", step=8)  # 12 are left
    folder = bincount("resume=latest", "data.batch_size=20")
    assert read(folder / run.LAST)["global_step"] == 7 + 3
    assert [row["step"] for row in rows(folder) if row["val/loss"]] == ["6", "9"]


def test_a_rate_that_hangs_on_the_ranks_follows_them(
    data: str, crashing: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the run had been begun on four ranks: their rate is twice that of one under the rule sqrt."""
    folder = crashing(data, *QUICK, "optimizer.scale=sqrt", "scheduler=step", step=9)
    monkeypatch.setattr(fit, "rate_factor", lambda rule, ranks: {"sqrt": 2.0}[rule])
    bincount("resume=latest", "trainer.max_steps=9")
    told = "the learning rate is 0.02: optimizer.lr=0.01 scaled for 1 ranks (optimizer.scale=sqrt)"
    assert told in (folder / "log.txt").read_text()
    assert read(folder / run.LAST)["optimizer_states"][0]["param_groups"][0]["lr"] == 0.02
    assert read(folder / run.LAST)["lr_schedulers"][0]["base_lrs"] == [0.02, 0.02]


# --- what is refused ----------------------------------------------------------------------------------


@pytest.fixture
def stopped(data: str, crashing: Callable[..., Path]) -> Path:
    """A run that stopped after its first epoch and three steps."""
    return crashing(data, *QUICK, "trainer.checkpoint_every=1", step=12)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What the command says that goes on with ``stopped`` and must not."""
    capsys.readouterr()
    assert cli.main(["train", "resume=latest", *words]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    return told.removeprefix("bincount: ").strip()


@pytest.mark.slow
def test_what_would_not_be_the_same_run_is_refused(
    stopped: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    kept = (stopped / "config.yaml").read_bytes()
    for word, told in {
        "optimizer.lr=0.5": f"optimizer.lr=0.5: resume goes on with the optimizer of {stopped}",
        "model.freeze=true": f"model.freeze=True: resume goes on with the model of {stopped}",
        "objective.label_smoothing=0.2": "objective.label_smoothing=0.2: resume goes on with the obj",
        "seed=1": "seed=1: the run stopped within epoch 2, which began with seed=0: finish the epoch wi",
        "data.fraction=0.5": "data.fraction=0.5: the run stopped within epoch 2, which began with data.fract",
        "trainer.max_epochs=0": "trainer.max_epochs=0: must be 1 or above",
    }.items():
        assert refused(capsys, word).startswith(told)
    assert (stopped / "config.yaml").read_bytes() == kept


def test_another_data_set_is_refused(
    stopped: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["source.photos=96", "source.width=48", "source.height=48", "seed=5", "workers=0"]
    assert cli.main(["prepare", *words, f"out={tmp_path / 'other'}"]) == 0
    told = refused(capsys, f"data.root={tmp_path / 'other'}")
    assert told == (
        f"{tmp_path / 'other'}: the data set was prepared anew since the run stopped: start a new run"
    )


def test_a_configuration_that_was_edited_by_hand_is_refused(
    stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = stopped / "config.yaml"
    path.write_text(path.read_text().replace("label_smoothing: 0.0", "label_smoothing: 0.3"))
    told = "objective.label_smoothing=0.3: the run was trained with 0.0: start a new run"
    assert refused(capsys) == told


def test_fewer_epochs_than_are_done_are_refused(
    data: str, crashing: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    crashing(data, *QUICK, step=20)
    assert refused(capsys, "trainer.max_epochs=1") == "trainer.max_epochs=1: the run has done 2 already"


def test_at_an_epochs_start_seed_and_fraction_may_change(data: str, crashing: Callable[..., Path]) -> None:
    crashing(data, *QUICK, "trainer.checkpoint_every=null", step=9)
    folder = bincount("resume=latest", "seed=1", "data.fraction=0.5", "trainer.max_epochs=2")
    assert read(folder / run.LAST)["global_step"] == 8 + 4


# --- what goes wrong ----------------------------------------------------------------------------------


def test_a_torn_checkpoint_costs_only_the_steps_since_the_one_before(
    stopped: Path, whole: Callable[..., Path]
) -> None:
    os.truncate(stopped / run.LAST, 5000)
    folder = bincount("resume=latest", "trainer.checkpoint_every=3")
    assert differences(whole(), folder) == []
    told = (folder / "log.txt").read_text()
    assert told.count("it is torn: put aside as damaged.ckpt, to go on from the checkpoint before it") == 1
    assert f"going on from {stopped / run.PREVIOUS}" in told


def test_on_a_full_disk_training_goes_on_and_the_command_fails_at_its_end(
    data: str, whole: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BINCOUNT_RUN_ID", "full")
    folder = Path("runs/default/full").resolve()
    with small_disk(folder / "checkpoints", "700k"):  # for two checkpoints of three
        assert cli.main(["train", data, *QUICK]) == 1
        told = capsys.readouterr().err
        assert told.endswith("No space left on device: make room and resume the run\n")
        assert told.count("\n") == 1
        assert "epoch 3 of 3" in (folder / "log.txt").read_text()
        for path in list((folder / "checkpoints").iterdir()):
            assert read(path)
            shutil.copy(path, folder)
    for path in folder.glob("*.ckpt"):
        path.rename(folder / "checkpoints" / path.name)
    assert differences(whole(), bincount("resume=default/full")) == []


@pytest.mark.slow
def test_where_the_checkpoints_are_gone_the_copy_is_taken(
    data: str, whole: Callable[..., Path], crashing: Callable[..., Path], tmp_path: Path
) -> None:
    folder = crashing(data, *QUICK, "trainer.checkpoint_copy=elsewhere", step=21)
    copy = tmp_path / "elsewhere/default" / folder.name
    wait_until((copy / run.BEST).exists)
    wait_until(lambda: (copy / run.LAST).exists() and read(copy / run.LAST)["global_step"] >= 9)
    shutil.rmtree(folder / "checkpoints")
    os.chdir("/")  # the address was made absolute
    again = bincount(f"resume={folder}")
    assert f"bringing the checkpoints from {copy}" in (again / "log.txt").read_text()
    assert differences(whole(), again) == []
    for name in (run.LAST, run.BEST):
        assert (copy / name).read_bytes() == (again / name).read_bytes()


def test_a_copy_that_cannot_be_written_is_told_before_training(
    data: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    assert cli.main(["train", data, *QUICK, "trainer.checkpoint_copy=file"]) == 1
    told = capsys.readouterr()
    assert told.err.startswith("bincount: trainer.checkpoint_copy: ")
    assert told.err.count("\n") == 1
    assert "epoch" not in told.out


# --- ranks and workers that are killed ----------------------------------------------------------------


def steps_at(seed: int, number: int) -> list[Any]:
    """Starts that are killed within a random step each, of the first nine."""
    chance = random.Random(seed)
    return [[[], ["step", chance.randint(1, 9), chance.random() / 20]] for _ in range(number)]


JOBS: dict[str, dict[str, Any]] = {
    "steps": {"starts": steps_at(seed=1, number=5)},
    "saving": {
        "words": ["model.name=resnet18", "trainer.max_epochs=2"],
        "starts": [[[], ["saving", 2, 0.05]], [[], ["saving", 2, 0.2]], [[], ["saving", 1, 0.4]]],
    },
    "validation": {"starts": [[[], ["validation", 1]], [[], ["validation", 3, 0.01]]]},
    "signalled": {
        "starts": [[[], [*moment, "SIGTERM"]] for moment in (["step", 5, 0.0], ["validation", 1, 0.0])]
    },
    "plateau": {
        "words": ["scheduler=plateau", "scheduler.patience=0"],
        "starts": [[[], ["validation", 2]], [[], ["step", 12]]],
    },
    "three-ranks": {"words": ["launcher.devices=3"], "starts": [[[], ["step", 6]]]},
    "layouts": {
        "words": ["trainer.max_epochs=2", "trainer.checkpoint_every=1"],
        "starts": [
            [[], ["step", 4]],
            [["launcher.devices=1", "data.workers=1", "data.batch_size=5"], ["step", 5]],
            [["launcher.devices=2", "data.workers=0", "data.batch_size=3"], ["step", 3]],
            [["data.workers=2", "data.batch_size=2"], ["step", 3]],
        ],
        "compare": False,
    },
}


@pytest.fixture(scope="module")
def killed(small_data: Path, new_folder: NewFolder) -> dict[str, dict[str, Any]]:
    """What came of JOBS, done by a process that has imported everything once."""
    jobs = [{"name": name, "words": [], "compare": True, **job} for name, job in JOBS.items()]
    done = subprocess.run(
        [sys.executable, killing.__file__, str(small_data), str(new_folder("killed"))],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"},
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    results = [json.loads(line) for line in done.stdout.splitlines()]
    return {result["name"]: result for result in results}


@pytest.mark.slow
@pytest.mark.parametrize("job", [job for job in JOBS if job != "layouts"])
def test_two_ranks_with_workers_killed_end_as_if_never_stopped(
    killed: dict[str, dict[str, Any]], job: str
) -> None:
    assert len(killed[job]["kills"]) == len(JOBS[job]["starts"])
    assert killed[job]["differences"] == []


@pytest.mark.slow
def test_an_epoch_that_changes_its_ranks_and_workers_takes_each_photo_once(
    killed: dict[str, dict[str, Any]],
) -> None:
    folder = Path(killed["layouts"]["run"])
    assert len(killed["layouts"]["kills"]) == 4
    steps = killing.rows_of_steps(folder)
    sizes = [[len(photos) for photos in of_ranks] for of_ranks in steps.values()]
    layouts = [size for size, _ in groupby(sizes)]
    assert layouts == [[4, 4], [5], [3, 3], [2, 2]]
    done = sizes.index([2, 2])
    first = done + (68 - sum(map(sum, sizes[:done]))) // 4
    assert len(sizes) == first + 68 // 4
    for epoch in (range(first), range(first, len(sizes))):
        photos = Counter(row for step in epoch for of_rank in steps[step] for row in of_rank)
        assert set(photos.values()) == {1}
        assert 68 - len(photos) < 4
    assert [row["step"] for row in rows(folder) if row["val/loss"]] == [str(first - 1), str(len(sizes) - 1)]
