"""What would stop a run is found before anything costs time, and told in one line."""

import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
from making import write_data
from processes import held_elsewhere

from bincount import cli, pretraining, train
from bincount.compose import compose, typed
from bincount.config import TrainConfig
from bincount.data.index import Index
from bincount.errors import BadInput, BincountError

Complaint = Callable[..., str]


@pytest.fixture
def complaint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Complaint:
    """Run `bincount train` with the words; gives the line that it ends with. No run folder may be left."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        assert cli.main(["train", *words]) == 2
        assert not Path("runs").exists()
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        return err.removeprefix("bincount: ").strip()

    return run


def test_one_class_only(complaint: Complaint, tmp_path: Path) -> None:
    write_data(tmp_path / "data", {f"{n:05d}": 3 for n in range(20)})
    assert "every training photo has the count 3: there is nothing to learn" in complaint("data.root=data")


def test_fewer_photos_than_a_batch(complaint: Complaint, small_data: Path) -> None:
    root = f"data.root={small_data}"
    assert (
        complaint(root, "data.batch_size=69")
        == "data.batch_size=69: a step takes 69 photos, and there are 68"
    )
    assert "a step of 2 ranks takes 80 photos" in complaint(root, "data.batch_size=40", "launcher.devices=2")
    assert "there are 7" in complaint(root, "data.batch_size=8", "data.fraction=0.1")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["trainer.max_hours=2"],
            "trainer.max_hours=2: it would count anew after the 3 epochs",
        ),
        (["pretrain.photos=8"], "pretrain.photos=8: a step takes 8 photos, and 92% of them are learnt from"),
    ],
)
def test_what_no_pre_training_can_have(
    complaint: Complaint, small_data: Path, words: list[str], told: str
) -> None:
    root = f"data.root={small_data}"
    assert complaint(root, "data.batch_size=8", "pretrain.epochs=3", *words).startswith(told)


def test_a_pre_training_is_refused_on_several_nodes(small_data: Path) -> None:
    words = [f"data.root={small_data}", "data.batch_size=8", "pretrain.epochs=3", "launcher=sagemaker"]
    config: TrainConfig = typed("train", compose("train", [*words, "launcher.nodes=2"]))
    config.launcher.accelerator = "cpu"
    with pytest.raises(BadInput, match="that runs on one node"):
        train.check(config, Index.open(str(small_data)))


def test_a_run_that_another_process_trains(small_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saving = small_run / "checkpoints/.last.ckpt.0123.partial"
    saving.touch()
    try:
        with held_elsewhere(small_run / ".lock"):
            assert cli.main(["train", f"resume={small_run}", "trainer.max_epochs=2"]) == 2
        assert "another process trains this run: wait for its end" in capsys.readouterr().err
        assert saving.exists()
    finally:
        saving.unlink()


def test_no_training_split(complaint: Complaint, tmp_path: Path) -> None:
    write_data(tmp_path / "data", {f"{n:05d}": n % 4 for n in range(20)}, split="test")
    assert "has no photos in split 'train'" in complaint("data.root=data")


def test_no_data_set(complaint: Complaint, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert "data is no prepared data set (it has no index.json)" in complaint("data.root=data")


def test_half_a_data_set(complaint: Complaint, small_data: Path, tmp_path: Path) -> None:
    shutil.copytree(small_data, tmp_path / "data")
    (tmp_path / "data/index.parquet").write_bytes(b"another")
    assert "index.parquet is not the one that index.json names" in complaint("data.root=data")


def test_an_unknown_monitor(complaint: Complaint, small_data: Path) -> None:
    told = complaint(f"data.root={small_data}", "trainer.monitor=val/acuracy", "data.batch_size=8")
    assert told.startswith("trainer.monitor=val/acuracy: must be one of val/loss, val/accuracy")
    assert told.endswith("; did you mean val/accuracy?")


def test_a_plateau_needs_something_to_watch(complaint: Complaint, small_data: Path, tmp_path: Path) -> None:
    write_data(tmp_path / "data", {f"{n:05d}": n % 4 for n in range(20)})
    told = complaint("data.root=data", "data.batch_size=8", "scheduler=plateau")
    assert told.startswith("scheduler=plateau: it watches validation, and data has no split 'val'")
    words = [f"data.root={small_data}", "data.batch_size=8", "scheduler=plateau"]
    assert complaint(*words, "scheduler.monitor=val/los").endswith("; did you mean val/loss?")


def test_stopping_early_needs_something_to_watch(complaint: Complaint, tmp_path: Path) -> None:
    write_data(tmp_path / "data", {f"{n:05d}": n % 4 for n in range(20)})
    told = complaint("data.root=data", "data.batch_size=8", "trainer.stop_after=3")
    assert told == "trainer.stop_after=3: it watches validation, and data has no split 'val'"


@pytest.mark.parametrize("word", ["trainer.sync_batchnorm=true", "launcher.backend=nccl"])
def test_what_only_gpus_have(complaint: Complaint, small_data: Path, word: str) -> None:
    told = complaint(f"data.root={small_data}", "data.batch_size=8", word)
    assert told == f"{word}: that is for GPUs alone, and launcher.accelerator is cpu: leave it out"


def test_more_gpus_than_there_are(
    complaint: Complaint, small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    told = complaint(f"data.root={small_data}", "launcher=gpu", "data.batch_size=8")
    assert told == "launcher.devices=1: there are 0 GPUs; launcher=local needs none"


def test_a_size_that_the_model_cannot_take(complaint: Complaint, small_data: Path) -> None:
    told = complaint(f"data.root={small_data}", "model=vit_b_16", "data.image_size=100", "data.batch_size=8")
    assert "vit_b_16 needs a square size divisible by 16" in told


def test_weights_that_are_not_there(complaint: Complaint, small_data: Path) -> None:
    told = complaint(f"data.root={small_data}", "model.weights=nowhere.pt", "data.batch_size=8")
    assert told == "model.weights=nowhere.pt: there is no such file"


@pytest.mark.parametrize(
    ("wanted", "splits", "evaluated"),
    [
        ("test", ["train", "val", "test"], "test"),
        ("val", ["train", "val", "test"], "val"),
        ("test", ["train", "val"], "val"),
        ("val", ["train", "test"], None),  # who asks for val is not shown test
        (None, ["train", "val", "test"], None),
    ],
)
def test_a_run_is_evaluated_on_the_split_that_is_asked_for(
    wanted: str | None, splits: list[str], evaluated: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config: TrainConfig = typed("train", compose("train", [f"trainer.evaluate={wanted or 'null'}"]))
    index, seen = Mock(splits=splits), []
    monkeypatch.setattr(train, "calibrate", lambda *_: None)
    monkeypatch.setattr(train, "evaluate", lambda asked: seen.append(asked.split))
    train._evaluate(config, index, Path("runs"))
    assert seen == ([evaluated] if evaluated else [])


def test_calibration_does_not_outlive_the_weights_that_it_is_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config: TrainConfig = typed("train", compose("train", []))
    for name in ("calibration.json", "calibration.parquet"):
        (tmp_path / name).touch()

    def stopped(*_: object) -> None:
        raise BincountError("stopped in the middle")

    monkeypatch.setattr(train, "fit", stopped)
    with pytest.raises(BincountError, match="in the middle"):
        train.carry_out(config, Mock(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_collages_are_read_by_ranges_whatever_reads_the_photos(tmp_path: Path) -> None:
    config: TrainConfig = typed("train", compose("train", ["data.reader=pipe", "pretrain.epochs=1"]))
    assert pretraining._own(config, tmp_path, resumed=False).data.reader == "ranges"
