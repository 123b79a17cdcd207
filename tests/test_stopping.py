"""Runs that end before their last epoch: real processes that are signalled, stopped and killed."""

import contextlib
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import killing
import lightning as L
import pytest
from processes import Training, training

from bincount import cli
from bincount.run import LAST
from bincount.training.checkpoints import KeepLast
from bincount.training.heartbeat import Beat, Watch, kill_beside
from bincount.training.sealed import read
from bincount.training.stopping import Patience

#: A run without end: of 68 photos an epoch takes 17 or fewer steps of some milliseconds.
ENDLESS = ["model=resnet18", "data.image_size=32", "data.batch_size=4", "data.workers=1"]
ENDLESS += ["launcher.precision=32-true", "trainer.max_epochs=10000", "trainer.checkpoint_every=5"]


@pytest.fixture
def started(small_data: Path, tmp_path: Path) -> Iterator[Callable[..., Training]]:
    """Starts an endless run and waits until it has saved itself twice."""
    with contextlib.ExitStack() as stack:

        def start(*words: str, saved: int = 2) -> Training:
            words = (f"data.root={small_data}", *ENDLESS, *words)
            found = stack.enter_context(training(tmp_path, *words))
            found.wait_for_steps(saved)
            return found

        yield start


def saved_step(folder: Path) -> int:
    return int(read(folder / LAST)["global_step"])


def stopped_step(log: list[str]) -> int:
    """The step that the log says was the last."""
    line = next(line for line in log if line.startswith("training stops after step "))
    return int(line.removeprefix("training stops after step ").partition(":")[0])


def to_all(run: Training, ranks: list[int]) -> None:
    for each in run.family():
        os.kill(each.pid, signal.SIGTERM)


SIGNALLED: dict[str, tuple[int, Callable[[Training, list[int]], None], str]] = {
    "the only process": (1, lambda run, ranks: run.main.terminate(), "SIGTERM on rank 0"),
    "the terminal": (1, lambda run, ranks: os.killpg(run.main.pid, signal.SIGINT), "the keyboard on rank 0"),
    "torchrun": (2, lambda run, ranks: run.main.terminate(), "SIGTERM"),
    "one rank": (2, lambda run, ranks: os.kill(ranks[1], signal.SIGTERM), "SIGTERM on rank 1"),
    "all, with their workers": (2, to_all, "SIGTERM"),
}


@pytest.mark.slow
@pytest.mark.parametrize("whom", SIGNALLED)
def test_a_signal_ends_all_with_one_checkpoint(started: Callable[..., Training], whom: str) -> None:
    devices, send, by = SIGNALLED[whom]
    run = started(f"launcher.devices={devices}")
    ranks = run.ranks()
    send(run, ranks)
    code, seconds = run.end()
    assert seconds < 20
    assert code == 128 + (signal.SIGINT if whom == "the terminal" else signal.SIGTERM)
    last = f"stopped by {by}: `bincount train resume={run.run.relative_to(run.folder)}` goes on"
    assert run.log[-1] == last
    assert run.told.splitlines()[-1] == f"bincount: {last}"
    assert "Traceback" not in run.told
    assert saved_step(run.run) == stopped_step(run.log)
    assert not list((run.run / "checkpoints").glob(".*"))


@pytest.mark.slow
def test_without_torchrun_the_ranks_stop_too(started: Callable[..., Training]) -> None:
    run = started("launcher.devices=2")
    run.family()
    run.main.kill()
    _, seconds = run.end()
    assert seconds < 30
    assert "torchrun, which started the ranks, cannot be reached any more" in run.log
    assert saved_step(run.run) == stopped_step(run.log)


def stop_the_worker(run: Training, ranks: list[int]) -> None:
    for pid in run.workers(1):
        os.kill(pid, signal.SIGSTOP)


LOST: dict[str, tuple[Callable[[Training, list[int]], None], str]] = {
    "killed": (
        lambda run, ranks: os.kill(ranks[1], signal.SIGKILL),
        r"rank 1 (was killed by SIGKILL|on \S+ does not answer any more: it was killed)",
    ),
    "stopped": (
        lambda run, ranks: os.kill(ranks[1], signal.SIGSTOP),
        r"rank 1 on \S+ has not answered for \d+ s: it was killed or stopped, or hangs",
    ),
    "waiting for its photos": (
        stop_the_worker,
        r"rank 1 on \S+ lives, but the others have waited for it for \d+ s",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", LOST)
def test_a_lost_rank_of_three_ends_the_others_and_is_named(
    started: Callable[..., Training], how: str
) -> None:
    lose, told = LOST[how]
    # Not less: on a busy machine rank 0 may keep the others waiting for some seconds, at an epoch's end.
    run = started("launcher.devices=3", "launcher.stalled_after=15")
    lose(run, run.ranks())
    code, seconds = run.end(90)
    assert code == 1
    assert seconds < 60
    assert re.fullmatch(told, run.log[-1])
    assert run.told.splitlines()[-1] == f"bincount: {run.log[-1]}"
    assert read(run.run / LAST)


# --- decided by rank 0 --------------------------------------------------------------------------------


@pytest.mark.slow
def test_ranks_stop_at_the_same_step_when_nothing_gets_better(
    started: Callable[..., Training], small_data: Path, tmp_path: Path
) -> None:
    words = [f"data.root={small_data}", *ENDLESS, "launcher.devices=2", "trainer.stop_after=2"]
    with training(tmp_path, *words, "trainer.min_delta=10") as run:
        code, _ = run.end(120)
        assert code == 0, run.told
        # The first is better than nothing; then two are not.
        assert "training stops after step 24: no better for 2 epochs (trainer.stop_after)" in run.log
        assert saved_step(run.run) == 24
        assert (run.run / "evaluation/test/results.json").exists()


def bincount(*words: str) -> int:
    return cli.main(["train", *words])


@pytest.fixture
def quick(small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A run in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BINCOUNT_RUN_ID", "run")
    killing.register()
    yield [f"data.root={small_data}", *ENDLESS, "data.workers=0", "model.name=small_with_dropout"]
    killing.unregister()


LOG = Path("runs/default/run/log.txt")


@pytest.mark.slow
def test_a_run_that_stopped_early_goes_on_with_more_patience_alone(quick: list[str]) -> None:
    assert bincount(*quick, "trainer.stop_after=1", "trainer.min_delta=10") == 0
    assert "training stops after step 34: no better for 1 epochs" in LOG.read_text()
    assert bincount("resume=latest") == 0
    assert LOG.read_text().count("training stops after step 34: no better for 1 epochs") == 2
    assert bincount("resume=latest", "trainer.stop_after=2") == 0
    assert "training stops after step 51: no better for 2 epochs" in LOG.read_text()


@pytest.mark.slow
def test_a_time_limit_ends_the_training_and_not_the_command(quick: list[str]) -> None:
    assert bincount(*quick, "trainer.max_hours=0.0005") == 0
    log = LOG.read_text()
    assert "h are over (trainer.max_hours)" in log
    assert Path("runs/latest/evaluation/test/results.json").exists()
    step = saved_step(Path("runs/latest"))
    assert f"training stops after step {step}:" in log
    assert bincount("resume=latest", "trainer.max_hours=null", f"trainer.max_steps={step + 3}") == 0
    assert saved_step(Path("runs/latest")) == step + 3


@pytest.mark.slow
def test_a_signal_while_the_last_epoch_is_saved_is_heeded(
    quick: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save = KeepLast.on_train_epoch_end

    def signalled(self: KeepLast, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        save(self, trainer, pl_module)

    with monkeypatch.context() as patch:
        patch.setattr(KeepLast, "on_train_epoch_end", signalled)
        assert bincount(*quick, "trainer.max_epochs=1") == 128 + signal.SIGTERM
    assert "stopped by SIGTERM after training: `bincount train resume=" in LOG.read_text().splitlines()[-1]
    assert not Path("runs/latest/evaluation").exists()
    assert bincount("resume=latest") == 0
    assert saved_step(Path("runs/latest")) == 17
    assert Path("runs/latest/evaluation/test/results.json").exists()


@pytest.mark.slow
def test_too_many_bad_photos_end_the_run_with_their_list(
    quick: list[str], small_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(small_data, "damaged")
    Path("damaged/train/bins-000002.tar").unlink()
    words = [*quick, "data.root=damaged"]
    assert bincount(*words) == 1
    told = capsys.readouterr().err
    assert re.fullmatch(
        r"bincount: \d+ photos of this epoch cannot be read, more than data.max_bad=0.001 allows, which is 1"
        r": train/bins-000002.tar: the shard is not there \(\d+\)\n",
        told,
    )
    assert LOG.read_text().endswith(told.removeprefix("bincount: "))
    shutil.copy(small_data / "train/bins-000002.tar", "damaged/train")
    assert bincount("resume=latest", "trainer.max_epochs=1") == 0


# --- what decides ---------------------------------------------------------------------------------------


def seen(patience: Patience, *figures: float) -> list[bool]:
    """Whether patience was over after each figure."""
    over = []
    for figure in figures:
        patience.see(figure)
        over.append(patience.over)
    return over


@pytest.mark.parametrize(
    ("patience", "figures", "over"),
    [
        (Patience("val/accuracy", "max", 2), [0.1, 0.2, 0.2, 0.3, 0.1, 0.3], [0, 0, 0, 0, 0, 1]),
        (Patience("val/rmse", "min", 1), [3.0, 2.0, 1.5, 1.5], [0, 0, 0, 1]),
        (Patience("val/rmse", "min", 2, 0.5), [3.0, 2.6, 2.4, 2.0, 1.9], [0, 0, 0, 0, 1]),
        (Patience("val/loss", "min", 2), [math.nan, math.nan, 1.0], [0, 1, 0]),
    ],
)
def test_patience_ends_when_nothing_got_better(
    patience: Patience, figures: list[float], over: list[bool]
) -> None:
    assert seen(patience, *figures) == over


def test_patience_goes_on_where_it_was_saved_unless_it_watches_something_else() -> None:
    first = Patience("val/accuracy", "max", 2)
    seen(first, 0.5, 0.4)
    for monitor, over in {"val/accuracy": [True], "val/rmse": [False]}.items():
        again = Patience(monitor, "max", 2)
        again.load_state_dict(first.state_dict())
        assert seen(again, 0.45) == over


def watched(*looks: tuple[float, Beat | None, int]) -> list[str | None]:
    """What is said of a rank after each look: (time, its beat, how far this rank has come)."""
    watch = Watch(stalled_after=45, now=0)
    return [watch.problem(beat, passed, now) for now, beat, passed in looks]


def test_a_rank_is_given_up_when_it_is_silent_or_waited_for_too_long() -> None:
    beating = [(float(n), Beat(n, 7, "a"), 7) for n in range(100)]
    assert not any(watched(*beating))
    behind = [(float(n), Beat(n, 7, "a"), 8) for n in range(60)]
    found = watched(*behind)
    assert not any(found[:46])
    assert found[46] == "lives, but the others have waited for it for 46 s"
    coming_along = [(float(n), Beat(n, n // 40, "a"), n // 40 + 1) for n in range(200)]
    assert not any(watched(*coming_along))
    silent = [(float(n), Beat(3, 7, "a"), 7) for n in range(30)]
    found = watched(*silent)
    assert not any(found[:21])
    assert found[21] == "has not answered for 21 s: it was killed or stopped, or hangs"
    assert watched((0.0, None, 1), (10.0, None, 1), (21.0, None, 1))[-1] is not None


def test_only_a_rank_of_the_same_torchrun_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        other.send_signal(signal.SIGSTOP)
        here = socket.gethostname()
        for beat, parent in (
            (Beat(1, 1, here, other.pid), 1),
            (Beat(1, 1, "elsewhere", other.pid), os.getpid()),
        ):
            kill_beside(beat, parent)
            with pytest.raises(subprocess.TimeoutExpired):
                other.wait(0.2)
        kill_beside(Beat(1, 1, here, other.pid), os.getpid())
        assert other.wait(20) == -signal.SIGKILL
    kill_beside(Beat(1, 1, here, other.pid), os.getpid())  # it is gone
