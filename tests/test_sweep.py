"""Sweeps through the command line: trials that fail, sweeps that are stopped, killed and continued."""

import contextlib
import csv
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import NewFolder
from processes import training
from trouble import wait_until

from bincount import cli, sweep
from bincount.compose import compose, typed
from bincount.config import TrainConfig
from bincount.study import Trial
from bincount.trials import Here, slots

FAKE = Path(__file__).with_name("fake_trial.py")

#: A run of seconds.
QUICK = ["model=resnet18", "data.image_size=32", "data.batch_size=8", "data.workers=0"]
QUICK += ["launcher.precision=32-true", "trainer.max_epochs=1"]


@pytest.fixture(autouse=True)
def _leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield
    for handler in list(logging.getLogger("bincount").handlers):
        logging.getLogger("bincount").removeHandler(handler)
        handler.close()


@pytest.fixture(scope="module")
def without_test(small_data: Path, new_folder: NewFolder) -> Path:
    """A data set whose test split cannot be read: nobody may look at it while trials are compared."""
    data = new_folder("sweep") / "data"
    shutil.copytree(small_data, data)
    shutil.rmtree(data / "test")
    return data


@pytest.fixture
def fake(without_test: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`bincount train -m` with trials that take no time; gives the exit code."""
    real = sweep._command

    def command(plan: sweep.SweepPlan, folder: Path, trial: Trial) -> list[str]:
        words = real(plan, folder, trial)
        assert words[:4] == [sys.executable, "-m", "bincount", "train"]
        return [sys.executable, "-IS", str(FAKE), *words[4:]]

    monkeypatch.setattr(sweep, "_command", command)
    shutil.copytree(without_test, tmp_path / "data")

    def run(*words: str) -> int:
        if not any(word.startswith("resume=") for word in words):
            given = {word.partition("=")[0] for word in words}
            quick = [word for word in QUICK if word.partition("=")[0] not in given]
            words = ("data.root=data", *quick, *words)
        return cli.main(["train", "-m", *words])

    return run


def the_sweep() -> Path:
    (folder,) = Path("runs/default").glob("*-sweep")
    return folder


def rows(folder: Path, *without: str) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(newline="") as file:
        return [{key: row[key] for key in row if key not in without} for row in csv.DictReader(file)]


def told(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name / "told.json").read_bytes())
    return found


# --- what a sweep leaves ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_grid_ends_in_a_ranked_table(fake: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert fake("optimizer.lr=0.0001,0.01,0.1", "model=resnet18,resnet34", "sweep.jobs=2") == 0
    folder = the_sweep()
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"sweep {folder}"
    assert out[1] == "6 trials in all (sweep=grid), 2 at a time"
    lines = [line for line in out if line.startswith("trial 0")]
    assert len(lines) == 6
    assert re.fullmatch(
        r"trial 002: lr=0.01 model=resnet18: accuracy 100.0% in \d+ s; best 100.0% \(trial 002\)",
        next(line for line in lines if line.startswith("trial 002")),
    )
    ranked = [line.split()[:4] for line in out if re.match(r" +\d+ +\d{3} ", line)]
    assert ranked[0] == ["1", "002", "0.01", "resnet18"]
    assert ranked[-1] == ["6", "001", "0.0001", "resnet34"]
    assert out[-1] == f"the best, once on test: `bincount evaluate run={folder}/002`"
    assert Path("runs/latest").resolve() == (folder / "002").resolve()
    assert (folder / "trials.png").stat().st_size > 5000
    assert "trial 002: lr=0.01" in (folder / "log.txt").read_text()
    assert not list(folder.glob(".*"))
    accuracy = [float(row["accuracy"]) for row in rows(folder)]
    assert accuracy == sorted(accuracy, reverse=True)


def test_trials_get_the_words_and_never_the_test_split(fake: Callable[..., int]) -> None:
    assert fake("optimizer.lr=0.01,0.1", "sweep.jobs=2", "trainer.checkpoint_copy=copies", "runs=runs") == 0
    folder = the_sweep()
    words = told(folder, "001")["words"]
    assert words == {
        "data.root": "data",
        **dict(word.split("=") for word in QUICK),
        "optimizer.lr": "0.1",
        "runs": str(Path("runs").resolve()),
        "trainer.evaluate": "val",
        "trainer.checkpoint_copy": f"copies/{folder.name}",
    }


@pytest.mark.slow
def test_as_many_trials_run_at_a_time_as_there_are_jobs(
    fake: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setenv("FAKE_SECONDS", "0.4")
    monkeypatch.setattr("bincount.machine.processors", lambda: 8)
    assert fake("optimizer.lr=0.1,0.2,0.3,0.4,0.5,0.6", "sweep.jobs=3") == 0
    ran = [told(the_sweep(), f"{number:03d}") for number in range(6)]
    together = [sum(other["start"] <= each["start"] < other["end"] for other in ran) for each in ran]
    assert max(together) == 3
    assert {each["variables"]["OMP_NUM_THREADS"] for each in ran} == {"2"}


@pytest.mark.slow
def test_a_trial_that_fails_does_not_end_the_sweep(
    fake: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fake("optimizer.lr=2,3,0.1,4,5,6") == 0
    folder = the_sweep()
    out = capsys.readouterr().out
    assert "trial 000: lr=2 failed: optimizer.lr=2: that is too much\n" in out
    states = [row["state"] for row in rows(folder)]
    assert states == ["done", *["failed"] * 5]
    assert rows(folder)[1]["reason"] == "optimizer.lr=2: that is too much"
    assert "a last word of some library" in (folder / "000/output.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "code"), [("2", 1), ("20", 2)])
def test_where_the_first_trials_all_fail_the_sweep_ends_with_the_reason(
    fake: Callable[..., int], capsys: pytest.CaptureFixture[str], rate: str, code: int
) -> None:
    assert fake(f"optimizer.lr={rate}", "seed=1,2,3,4,5") == code
    err = capsys.readouterr().err
    assert err == f"bincount: no trial came to its end; 002 failed: optimizer.lr={rate}: that is too much\n"
    assert [row["state"] for row in rows(the_sweep())] == ["failed"] * 3
    assert (the_sweep() / "log.txt").read_text().endswith(err.removeprefix("bincount: "))
    shutil.rmtree("runs")
    assert fake(f"optimizer.lr={rate}", "seed=1,2") == code
    assert "001 failed" in capsys.readouterr().err


def test_what_is_monitored_is_ranked(fake: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert fake("optimizer.lr=0.1,0.01,0.001", "trainer.monitor=val/loss") == 0
    assert "ranked by NLL on val" in capsys.readouterr().out
    losses = [float(row["nll"]) for row in rows(the_sweep())]
    assert losses == sorted(losses)


# --- continued ---------------------------------------------------------------------------------------------

SPACES = {
    "grid": ["optimizer.lr=0.001,0.01,0.1", "model=resnet18,resnet34"],
    "tpe": ["optimizer.lr=tag(log,interval(0.0001,0.1))", "sweep=tpe", "sweep.trials=6", "sweep.startup=2"],
}


@pytest.mark.slow
@pytest.mark.parametrize("how", SPACES)
def test_stopped_and_continued_it_gives_the_same_table(
    fake: Callable[..., int], how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fake(*SPACES[how]) == 0
    folder = the_sweep()
    whole = rows(folder, "seconds")
    shutil.rmtree("runs")
    monkeypatch.setenv("FAKE_SIGNAL", "003")
    capsys.readouterr()
    assert fake(*SPACES[how]) == 128 + signal.SIGTERM
    folder = the_sweep()
    line = f"stopped by SIGTERM: `bincount train -m resume={folder}` goes on\n"
    assert capsys.readouterr().err == f"bincount: {line}"
    assert (folder / "log.txt").read_text().endswith(line)
    assert len(rows(folder)) == 4
    assert fake(f"resume={folder}") == 0
    assert rows(folder, "seconds") == whole
    assert [told(folder, f"{number:03d}")["resumed"] for number in range(6)] == [
        *[False] * 3,
        True,
        *[False] * 2,
    ]
    before = capsys.readouterr().out
    assert fake(f"resume={folder}") == 0
    again = capsys.readouterr().out
    assert "the sweep is finished with 6 trials" in again
    assert again.splitlines()[-8:] == before.splitlines()[-8:]


@pytest.mark.slow
def test_a_sweep_goes_on_with_more_trials_and_jobs(
    fake: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fake(*SPACES["tpe"]) == 0
    before = {row["trial"]: row for row in rows(the_sweep(), "rank")}
    assert fake("resume=latest", "sweep.trials=9", "sweep.jobs=2") == 0
    after = {row["trial"]: row for row in rows(the_sweep(), "rank")}
    assert len(after) == 9
    assert {name: after[name] for name in before} == before
    assert "9 trials in all (sweep=tpe), 2 at a time" in capsys.readouterr().out
    assert "sweep.trials=9" in (the_sweep() / "sweep.yaml").read_text()
    assert fake(f"resume={the_sweep()}") == 0
    assert len(rows(the_sweep())) == 9


@pytest.mark.slow
def test_a_sweep_goes_on_from_elsewhere(
    fake: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SIGNAL", "001")
    assert fake(*SPACES["grid"]) == 128 + signal.SIGTERM
    folder = the_sweep().resolve()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert fake(f"resume={folder}") == 0
    assert len(rows(folder)) == 6
    assert list(Path.cwd().iterdir()) == []


# --- mistakes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["optimizer.lr=0.1"], "-m: give a word several values to try, as in optimizer.lr=0.001,0.01,0.1"),
        (["optimzer.lr=0.1"], "optimzer.lr: there is no such key in `train`: did you mean optimizer.lr?"),
        (["optimzer.lr=0.1,0.2"], "optimzer.lr: there is no such key in `train`: did you mean optimizer.lr?"),
        (["model=resnet18,resnet43"], "model=resnet43: there is no such model: did you mean resnet34?"),
        (["optimizer.lr=0.1,0"], "optimizer.lr=0.0: must be above 0"),
        (["optimizer.lr=0.1,high"], "optimizer.lr=high: must be a number"),
        (["optimizer=sgd,adamw", "optimizer.momentum=0.8,0.9"], "optimizer=sgd would have it"),
        (["optimizer.lr=0.1,0.1"], "optimizer.lr=0.1,0.1: 0.1 is there twice"),
        (["seed=1,2", "seed=3"], "seed is given twice"),
        (["optimizer.lr=interval(0.1,1)"], "no grid has a whole interval: write sweep=tpe or sweep=random"),
        (
            ["sweep=tpe", "data.batch_size=interval(8,64)"],
            "data.batch_size: whole numbers are needed: write int(interval(8,64))",
        ),
        (["sweep=tpe", "optimizer.lr=interval(0,1)"], "optimizer.lr=0.0: must be above 0"),
        (["sweep=gird", "seed=1,2"], "sweep=gird: there is no such sweep: did you mean grid?"),
        (["sweep.trials=3", "seed=1,2"], "sweep=random and sweep=tpe would have it"),
        (["sweep=random", "seed=1,2"], "there are 2 combinations, fewer than sweep.trials=20: sweep=grid"),
        (["sweep.jobs=1,2"], "sweep.jobs: give it one value: it says how to sweep"),
        (["sweep=grid,tpe"], "sweep: give it one value: it says how to sweep"),
        (["trainer.monitor=val/loss,val/mae"], "trainer.monitor: give it one value: trials are ranked by it"),
        (
            ["trainer.evaluate=test", "seed=1,2"],
            "trainer.evaluate=test: trials are scored on val; test is left",
        ),
        (["launcher=sagemaker", "seed=1,2"], "launcher=sagemaker: trials run on this machine"),
        (["data.root=nowhere", "seed=1,2"], "data.root=nowhere: there is no such folder"),
        (["resume=nowhere"], "nowhere is no sweep: there is no sweep.yaml in nowhere"),
        (["resume=latest"], "latest is no sweep: there is no sweep.yaml in"),
        (["resume=nowhere", "optimizer.lr=1"], "optimizer.lr=1: a sweep goes on with its own words"),
        (["--multirun", "seed=1,2"], "--multirun: there is no such option"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_made(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "-m", *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("bincount: ")
    assert told in said.err
    assert said.err.count("\n") == 1
    assert not Path("runs").exists()


def test_more_of_the_data_is_looked_at_before_the_first_trial(
    fake: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fake("seed=1,2", "trainer.monitor=val/los") == 2
    assert "did you mean val/loss?" in capsys.readouterr().err
    assert fake("seed=1,2", "data.batch_size=800") == 2
    assert "a step takes 800 photos" in capsys.readouterr().err
    index = json.loads(Path("data/index.json").read_bytes())
    del index["splits"]["val"]
    Path("data/index.json").write_text(json.dumps(index))
    assert fake("seed=1,2") == 2
    assert "data has no split 'val', on which trials are scored" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_several_values_without_m_are_refused_and_m_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("optimizer.lr=0.1,0.2", "model=resnet18,resnet34", "optimizer.lr=range(1,3)"):
        assert cli.main(["train", word]) == 2
        assert capsys.readouterr().err == (
            f"bincount: {word}: to train with each value in turn add -m: `bincount train -m {word} …`\n"
        )
    assert cli.main(["predict", "photos=here", "batch_size=1,2"]) == 2
    assert "this is several values; quote it" in capsys.readouterr().err
    assert cli.main(["prepare", "-m"]) == 2
    assert "-m: only `bincount train` tries several values in turn" in capsys.readouterr().err


def test_a_sweep_is_no_run(fake: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert fake("optimizer.lr=0.1,0.2") == 0
    for words in (["evaluate", f"run={the_sweep()}"], ["train", f"resume={the_sweep()}"]):
        assert cli.main(words) == 2
        assert "is a sweep: name one of its trials; `bincount train -m resume=" in capsys.readouterr().err


def test_the_configuration_of_the_first_trial_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "-m", "--cfg", "job", "model=resnet50,resnet18", "sweep=tpe"]) == 0
    out = capsys.readouterr().out
    assert "name: resnet50" in out
    assert "startup: 8" in out


@pytest.mark.parametrize(
    "words", [["optimzer.lr=1,2"], ["optimizer.lr=interval(0.1,1)"], ["--cfg", "job", "seed=1,2"]]
)
def test_neither_torch_nor_optuna_is_imported_to_answer(words: list[str]) -> None:
    program = "import sys; from bincount.cli import main; main(sys.argv[1:]); "
    program += "print({'torch', 'optuna'} & set(sys.modules))"
    command = [sys.executable, "-c", program, "train", "-m", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


# --- this machine ------------------------------------------------------------------------------------------


def test_each_slot_has_its_own_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [each["CUDA_VISIBLE_DEVICES"] for each in slots(2, 2, ["0", "1", "4", "5", "7"])]
    assert found == ["0,1", "4,5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,6,GPU-8")
    words = ["launcher=gpu", "launcher.devices=2"]
    config: TrainConfig = typed("train", compose("train", words))
    assert sweep._slots([config]) == [{"CUDA_VISIBLE_DEVICES": "3,6"}]
    two: TrainConfig = typed("train", compose("train", [*words, "sweep.jobs=2"]))
    with pytest.raises(
        sweep.BadInput, match=r"sweep.jobs=2: a trial takes 2 GPUs \(launcher.devices\), and there are 3"
    ):
        sweep._slots([two])


def sleeping(folder: Path) -> Here:
    program = "import time; print('bincount: here I am', flush=True); time.sleep(3)"
    return Here(folder, lambda trial: [sys.executable, "-c", program], [{}], folder)


@pytest.mark.slow
def test_what_a_killed_sweep_left_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bincount")
    left, again, trials = sleeping(tmp_path), sleeping(tmp_path), [Trial(0, {}), Trial(1, {})]
    left.start(trials[0])
    output = tmp_path / "000/output.txt"
    wait_until(lambda: "here I am" in output.read_text())
    start = time.monotonic()
    again.settle(trials)
    assert 1 < time.monotonic() - start < 30
    assert [record.getMessage()[:16] for record in caplog.records] == ["trial 000 saves "]
    (ended,) = left.ended()
    assert (ended.code, ended.said) == (0, "here I am")


def test_a_trial_that_hears_no_signal_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bincount.trials.SAVING", 1.0)
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    program += "print(1, flush=True); time.sleep(60)"
    deaf = Here(tmp_path, lambda trial: [sys.executable, "-c", program], [{}], tmp_path)
    deaf.start(Trial(0, {}))
    pid = deaf.running[0].process.pid
    wait_until(lambda: "1" in (tmp_path / "000/output.txt").read_text())
    assert deaf.stop(signal.SIGTERM) == []
    deaf.kill()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


# --- with real runs ----------------------------------------------------------------------------------------


#: Two trials, of which the second diverges.
REAL = [*QUICK, "trainer.max_epochs=2", "trainer.checkpoint_every=3", "optimizer.lr=0.001,1e30"]
REAL.remove("trainer.max_epochs=1")


@pytest.fixture(scope="module")
def uninterrupted(without_test: Path, new_folder: NewFolder) -> Path:
    """The folder of a sweep with two real trials at the same time; not to be changed."""
    runs = new_folder("uninterrupted")
    words = [f"data.root={without_test}", f"runs={runs}", *REAL, "sweep.jobs=2"]
    assert cli.main(["train", "-m", *words]) == 0
    (folder,) = (runs / "default").iterdir()
    return folder


def checkpoints(run: Path) -> set[int]:
    """When each of a run's checkpoints was written."""
    found = set()
    for path in (run / "checkpoints").glob("*.ckpt"):
        with contextlib.suppress(FileNotFoundError):  # it just got another name
            found.add(path.stat().st_mtime_ns)
    return found


@pytest.mark.slow
def test_real_trials_two_at_a_time_and_one_that_diverges(uninterrupted: Path) -> None:
    good, bad = rows(uninterrupted)
    assert (good["trial"], good["state"], bad["trial"], bad["state"]) == ("000", "done", "001", "failed")
    assert bad["reason"] == "the run's weights have diverged (NaN): train again with a lower optimizer.lr"
    best = uninterrupted / "000"
    results = json.loads((best / "evaluation/val/results.json").read_bytes())
    assert all(float(good[figure]) == results[figure] for figure in ("accuracy", "rmse", "mae", "nll"))
    assert [path.name for path in (best / "evaluation").iterdir() if path.is_dir()] == ["val"]
    for name in ("config.yaml", "environment.json", "log.txt", "report.html", "checkpoints/best.ckpt"):
        assert (best / name).stat().st_size > 100
    assert (uninterrupted.parents[1] / "latest").resolve() == best
    assert f"`bincount evaluate run={best}`" in (uninterrupted / "log.txt").read_text().splitlines()[-1]


@pytest.mark.slow
def test_a_real_sweep_that_is_stopped_and_killed_gives_the_same_table(
    uninterrupted: Path, without_test: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "bincount", "train", "-m"]
    words = [f"data.root={without_test}", *REAL, "runs=runs"]
    with training(tmp_path, command=[*command, *words]) as first:
        first.wait_for((first.run / "000/checkpoints/last.ckpt").exists)
        first.main.terminate()
        code, seconds = first.end()
        assert code == 128 + signal.SIGTERM, first.told
        assert seconds < 30
        assert first.told.endswith(
            "stopped by SIGTERM: `bincount train -m resume=runs/default/run` goes on\n"
        )
    saved = checkpoints(first.run / "000")
    with training(tmp_path, command=[*command, "resume=runs/default/run"]) as second:
        second.wait_for(lambda: bool(checkpoints(first.run / "000") - saved))
        second.family()
        second.main.kill()
        _, seconds = second.end()
        assert seconds < 30
    assert cli.main(["train", "-m", "resume=runs/default/run"]) == 0
    assert rows(first.run, "seconds") == rows(uninterrupted, "seconds")
    assert (first.run / "000/log.txt").read_text().count("going on from") == 2
    assert not list(first.run.glob("*/evaluation/test"))
