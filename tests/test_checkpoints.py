"""Checkpoint files: whole or known not to be, whatever happens to the machine; and their copies."""

import logging
import math
import os
import signal
import zipfile
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from conftest import Bucket
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch.utils.data import DataLoader
from trouble import small_disk, wait_until

from bincount import run
from bincount.errors import BincountError
from bincount.training.checkpoints import KeepBest
from bincount.training.copies import Copies
from bincount.training.sealed import Damaged, SealedIO, newest, opened, sealed

LAST, PREVIOUS, BEST = run.LAST.name, run.PREVIOUS.name, run.BEST.name


def checkpoint(step: int, size: int = 50) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(step)
    return {"global_step": step, "state_dict": {"weight": torch.randn(size, generator=generator)}}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    alike = torch.equal(one["state_dict"]["weight"], other["state_dict"]["weight"])
    return bool(alike and one["global_step"] == other["global_step"])


def saved(folder: Path, *steps: int) -> Path:
    """A run's folder in which these steps were saved, one after the other."""
    for step in steps:
        SealedIO().save_checkpoint(checkpoint(step), folder / run.LAST)
    return folder


def found(folder: Path) -> tuple[str, int]:
    """The name and the step of the checkpoint that a resumed run takes."""
    newest_one = newest(folder)
    assert newest_one is not None
    path, content = newest_one
    assert same(content, checkpoint(content["global_step"]))
    return path.name, content["global_step"]


# --- a file -------------------------------------------------------------------------------------------


def test_any_reader_of_checkpoints_reads_a_sealed_one(tmp_path: Path) -> None:
    path = saved(tmp_path, 3) / run.LAST
    for how in ({}, {"mmap": True}):
        assert same(torch.load(path, weights_only=True, **how), checkpoint(3))
    with zipfile.ZipFile(path) as archive:
        assert archive.comment.startswith(b"bincount sha256 ")
        assert archive.testzip() is None
    assert list(path.parent.iterdir()) == [path]


@given(st.data())
def test_any_damage_is_found(data: st.DataObject) -> None:
    content = bytearray(sealed(checkpoint(1)))
    assert same(opened(bytes(content), "x"), checkpoint(1))
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[place:]
    else:
        content[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Damaged, match=r"^x (has no SHA-256|does not fit its SHA-256)"):
        opened(bytes(content), "x")


def test_what_is_whole_but_no_checkpoint_is_told(tmp_path: Path) -> None:
    content = bytes(sealed({"object": print}))
    with pytest.raises(Damaged, match="x cannot be read: Weights only load failed"):
        opened(content, "x")


# --- the last two -------------------------------------------------------------------------------------


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2, 3)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {LAST, PREVIOUS}
    assert same(torch.load(tmp_path / run.PREVIOUS, weights_only=True), checkpoint(2))
    assert found(tmp_path) == (LAST, 3)


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert newest(tmp_path) is None


def test_of_a_torn_checkpoint_the_one_before_it_is_used_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved(tmp_path, 1, 2)
    os.truncate(tmp_path / run.LAST, 700)
    assert found(tmp_path) == (PREVIOUS, 1)
    assert caplog.messages == [
        f"{tmp_path / run.LAST} has no SHA-256 at its end: it is torn: put aside as damaged.ckpt, "
        "to go on from the checkpoint before it"
    ]
    saved(tmp_path, 3)  # must not put the torn one in the place of the one before it
    os.truncate(tmp_path / run.LAST, 700)
    assert found(tmp_path) == (PREVIOUS, 1)


def test_without_a_whole_checkpoint_it_says_so(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    for name in (run.LAST, run.PREVIOUS):
        (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(Damaged, match="and there is none before it: start a new run"):
        newest(tmp_path)


MOMENTS: dict[str, tuple[Any, str, int]] = {
    "before anything": (torch, "save", 1),
    "before it is written": (Path, "open", 1),
    "before it is on the disk": (os, "fsync", 1),
    "before the last gets its name": (os, "replace", 1),
    "between the names": (os, "replace", 2),
    "before the names are on the disk": (os, "fsync", 2),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_while_saving_there_is_a_whole_checkpoint(tmp_path: Path, moment: str) -> None:
    saved(tmp_path, 1, 2)
    child = os.fork()
    if child == 0:
        _kill_at(*MOMENTS[moment])
        saved(tmp_path, 3)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    name, step = found(tmp_path)
    expected = {"between the names": (PREVIOUS, 2), "before the names are on the disk": (LAST, 3)}
    assert (name, step) == expected.get(moment, (LAST, 2))
    left = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert left <= {LAST, PREVIOUS}  # what the killed one wrote in part is gone
    assert found(saved(tmp_path, 4)) == (LAST, 4)


def _kill_at(owner: Any, name: str, call: int) -> None:
    function, calls = getattr(owner, name), 0

    def killing(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    setattr(owner, name, killing)


# --- no room ------------------------------------------------------------------------------------------


def test_on_a_full_disk_the_older_checkpoints_stay_and_the_end_tells(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "checkpoints", "100k"):
        written: list[Path] = []
        files = SealedIO(written=written.append)
        for step in (1, 2):
            files.save_checkpoint(checkpoint(step, 5000), tmp_path / run.LAST)
        for step in (3, 4):
            files.save_checkpoint(checkpoint(step, 20000), tmp_path / run.LAST)
            reason = f"{tmp_path / run.LAST} of step {step} cannot be saved: No space left on device"
            assert caplog.messages[-1] == f"{reason}; training goes on, the checkpoints before it are whole"
        assert len(caplog.messages) == 2
        assert written == [tmp_path / run.LAST] * 2
        assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {LAST, PREVIOUS}
        newest_one = newest(tmp_path)
        assert newest_one is not None
        assert same(newest_one[1], checkpoint(2, 5000))
        with pytest.raises(
            BincountError, match=r"of step 4 cannot be saved: No space .*: make room and resume"
        ):
            files.finish()
        files.save_checkpoint(checkpoint(5), tmp_path / run.LAST)
        files.finish()


# --- the best -----------------------------------------------------------------------------------------


class Scored(L.LightningModule):
    """Learns nothing; its validations give the scores."""

    def __init__(self, scores: list[float]):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self._scores = scores

    def training_step(self, batch: Any, batch_index: int) -> torch.Tensor:
        return self.weight * 0

    def validation_step(self, batch: Any, batch_index: int) -> None:
        self.log("val/score", self._scores[self.current_epoch])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize(
    ("mode", "scores", "best"),
    [
        ("max", [1.0, 3.0, 2.0, 3.0], 1),
        ("min", [1.0, 3.0, 0.5, 0.5], 2),
        ("max", [math.nan, math.nan, 1.0, math.nan], 2),
        ("max", [math.nan, math.nan], 1),
    ],
)
@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
def test_the_best_is_kept(tmp_path: Path, mode: str, scores: list[float], best: int) -> None:
    path = tmp_path / run.BEST
    batches = DataLoader([torch.zeros(1)], batch_size=None)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=len(scores),
        callbacks=[KeepBest(path, "val/score", mode)],
        plugins=[SealedIO()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(Scored(scores), batches, batches)
    assert torch.load(path, weights_only=True)["epoch"] == best


# --- copies -------------------------------------------------------------------------------------------


@pytest.fixture(params=["folder", "s3"])
def second_place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty place for copies."""
    if request.param == "folder":
        return str(tmp_path / "elsewhere")
    bucket: Bucket = request.getfixturevalue("bucket")
    return f"{bucket.address}/runs"


def test_a_copy_is_where_another_machine_goes_on(tmp_path: Path, second_place: str) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    copies = Copies(here, f"{second_place}/default/run")
    files = SealedIO(written=copies.put)
    files.save_checkpoint(checkpoint(1), here / run.BEST)
    for step in range(2, 6):
        files.save_checkpoint(checkpoint(step), here / run.LAST)
    copies.finish()
    Copies(there, f"{second_place}/default/run").fetch()
    assert {path.name for path in (there / "checkpoints").iterdir()} == {LAST, BEST}
    assert found(there) == (LAST, 5)
    assert (there / run.BEST).read_bytes() == (here / run.BEST).read_bytes()


def test_an_empty_copy_brings_nothing(tmp_path: Path, second_place: str) -> None:
    Copies(tmp_path / "run", f"{second_place}/default/run").fetch()
    assert newest(tmp_path / "run") is None


def test_a_copy_that_fails_is_told_and_made_with_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    copies = Copies(tmp_path / "run", str(tmp_path / "file"))
    path = tmp_path / "run" / run.LAST
    SealedIO(written=copies.put).save_checkpoint(checkpoint(1), path)
    with pytest.raises(
        BincountError, match=r"trainer.checkpoint_copy: .*/run is not all copied: .*Not a direc"
    ):
        copies.finish()
    assert len(caplog.messages) == 2  # it was tried once more at the end
    assert "a checkpoint is not copied, and will be with the next" in caplog.text
    (tmp_path / "file").unlink()
    copies.finish()
    assert (tmp_path / "file" / run.LAST).read_bytes() == path.read_bytes()


def test_copying_ends_its_work_where_training_is_killed(tmp_path: Path) -> None:
    folder, copy = tmp_path / "run", tmp_path / "copy"
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        SealedIO(written=Copies(folder, str(copy)).put).save_checkpoint(checkpoint(1), folder / run.LAST)
        os.killpg(0, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    wait_until((copy / run.LAST).exists)
    assert (copy / run.LAST).read_bytes() == (folder / run.LAST).read_bytes()


# --- a run's folder -----------------------------------------------------------------------------------


def test_runs_that_begin_together_get_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BINCOUNT_RUN_ID", raising=False)
    children = []
    for _ in range(12):
        child = os.fork()
        if child == 0:
            # One random digit: two of the twelve draw the same for certain, or nearly so.
            run.secrets.token_hex = lambda size: os.urandom(1).hex()[0]  # type: ignore[attr-defined]
            folder = run.create(str(tmp_path / "runs"), "default", OmegaConf.create({"pid": os.getpid()}))
            os._exit(run.saved_config(folder).pid != os.getpid())
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 12
    folders = list((tmp_path / "runs/default").iterdir())
    assert len(folders) == 12
    assert {run.saved_config(folder).pid for folder in folders} == set(children)


def test_the_folder_that_a_run_is_told_may_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINCOUNT_RUN_ID", "job-7")
    for _ in range(2):
        assert run.create(str(tmp_path), "default", OmegaConf.create({})) == tmp_path / "default/job-7"


@pytest.fixture(autouse=True)
def _told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "bincount")
