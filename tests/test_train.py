"""Training through the command line: runs, resuming, several ranks, new backbones."""

import csv
import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from bincount import cli, compose, run, train
from bincount.data.index import Index
from bincount.model import backbones
from bincount.training import ranks

pytestmark = pytest.mark.slow

#: A run of seconds.
QUICK = [
    "model=resnet18",
    "data.image_size=32",
    "data.batch_size=8",
    "data.workers=0",
    "trainer.max_epochs=2",
    "launcher.precision=32-true",
]


@pytest.fixture(autouse=True)
def _leave_nothing_behind() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks this small lose more to waiting for a second thread
    yield
    torch.set_num_threads(threads)
    for handler in list(logging.getLogger("bincount").handlers):
        logging.getLogger("bincount").removeHandler(handler)
        handler.close()


@pytest.fixture
def data(small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return f"data.root={small_data}"


def bincount(*words: str) -> None:
    assert cli.main(words) == 0


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def weights(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


def test_a_run_has_everything_that_is_promised(data: str) -> None:
    bincount("train", data, *QUICK)
    folder = Path("runs/latest").resolve()
    assert folder.parent == Path("runs/default").resolve()
    for name in ("config.yaml", "environment.json", "log.txt", "report.html"):
        assert (folder / name).stat().st_size > 100
    for name in ("best", "last"):
        assert (folder / f"checkpoints/{name}.ckpt").exists()
    results = json.loads((folder / "evaluation/test/results.json").read_bytes())
    assert results["samples"] == sum(each["samples"] for each in results["per_count"])
    assert "epoch 2 of 2" in (folder / "log.txt").read_text()
    epochs = [row for row in rows(folder) if row["val/accuracy"]]
    assert [row["epoch"] for row in epochs] == ["0", "1"]
    assert Path(run.saved_config(folder).data.root).is_absolute()


def test_the_same_seed_gives_the_same_weights(data: str) -> None:
    for name in ("a", "b"):
        bincount("train", data, *QUICK, f"runs={name}", "trainer.max_epochs=1")
    first, second = (weights(Path(name) / "latest" / run.LAST) for name in ("a", "b"))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_resume_goes_on_in_the_same_folder_and_ends_as_if_never_stopped(data: str) -> None:
    schedule = "scheduler=step"  # a schedule that does not look at how long the run will be
    bincount("train", data, *QUICK, schedule, "runs=whole")
    bincount("train", data, *QUICK, schedule, "runs=parts", "trainer.max_epochs=1")
    folder = Path("parts/latest").resolve()
    bincount("train", "resume=latest", "runs=parts", "trainer.max_epochs=2")
    assert Path("parts/latest").resolve() == folder
    assert [row["epoch"] for row in rows(folder) if row["val/loss"]] == ["0", "1"]
    whole, parts = weights(Path("whole/latest") / run.LAST), weights(folder / run.LAST)
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_resume_in_the_middle_of_an_epoch_sees_the_photos_that_are_left(data: str) -> None:
    schedule = ["scheduler=step", "trainer.max_epochs=2", "data.workers=2"]
    bincount("train", data, *QUICK, *schedule, "runs=whole")
    bincount(
        "train", data, *QUICK, *schedule, "runs=parts", "trainer.max_steps=3", "trainer.checkpoint_every=3"
    )
    bincount(
        "train", "resume=latest", "runs=parts", "trainer.max_steps=null", "trainer.checkpoint_every=null"
    )
    whole, parts = (weights(Path(name) / "latest" / run.LAST) for name in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    lines = [
        line.split()
        for line in (Path("parts/latest") / "log.txt").read_text().splitlines()
        if " of 2 " in line
    ]
    assert len(lines) == 3  # the first part of epoch 1, its rest, and epoch 2
    assert all(float(words[words.index("s") - 1]) < 600 for words in lines)


def test_two_ranks_with_two_workers_see_every_photo_once(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [data, *QUICK, "data.workers=2", "launcher.devices=2", "data.batch_size=4"]
    config = compose.typed("train", compose.compose("train", words))
    folder = train.run_folder(config)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    ranks.start(2, "logging_rank", folder)

    seen = [[line.split() for line in (folder / f"ids-{r}.txt").read_text().splitlines()] for r in (0, 1)]
    steps = [[tuple(words[:2]) for words in lines] for lines in seen]
    assert steps[0] == steps[1]
    all_ids = set(Index.open(config.data.root).split("train").id.to_pylist())
    batch = config.data.batch_size * 2
    orders = []
    for epoch in ("0", "1"):
        ids = [id for lines in seen for words in lines if words[0] == epoch for id in words[2:]]
        assert max(Counter(ids).values()) == 1
        assert set(ids) <= all_ids
        assert len(ids) == len(all_ids) // batch * batch
        orders.append(ids)
    assert orders[0] != orders[1]


def test_two_ranks_through_the_command_line_end_with_an_evaluated_run(data: str) -> None:
    bincount("train", data, *QUICK, "launcher.devices=2", "trainer.max_epochs=1")
    assert [path.name for path in Path("runs/default").iterdir()] == [Path("runs/latest").resolve().name]
    assert "epoch 1 of 1" in Path("runs/latest/log.txt").read_text()
    assert Path("runs/latest/evaluation/test/results.json").exists()


def test_a_failing_rank_is_a_failure_of_the_command(data: str, capfd: pytest.CaptureFixture[str]) -> None:
    words = [
        data,
        *QUICK,
        "launcher.devices=2",
        "optimizer=sgd",
        "optimizer.nesterov=true",
        "optimizer.momentum=0",
    ]
    assert cli.main(["train", *words]) == 2
    told = "bincount: optimizer=sgd: Nesterov momentum requires a momentum and zero dampening\n"
    assert capfd.readouterr().err.endswith(told)


def test_a_new_backbone_is_one_function_and_one_yaml(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = shutil.copytree(compose.conf_dir(), tmp_path / "conf")
    monkeypatch.setattr(compose, "conf_dir", lambda: conf)
    (conf / "model/pooled.yaml").write_text("name: pooled\nweights: null\nfreeze: false\nmirror: false\n")

    @backbones.register("pooled", head="1")
    def pooled(outputs: int) -> nn.Module:
        return nn.Sequential(nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten()), nn.Linear(48, outputs))

    try:
        bincount("train", data, *QUICK[1:], "model=pooled", "trainer.max_epochs=1")
    finally:
        del backbones.BACKBONES["pooled"]
    assert Path("runs/latest/evaluation/test/results.json").exists()


def test_wandb_offline_needs_no_account(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    bincount("train", data, *QUICK, "trainer.max_epochs=1", "logger=wandb", "logger.mode=offline")
    assert list(Path("runs/latest/wandb").glob("offline-run-*"))


@pytest.mark.gpu
def test_a_gpu_trains(data: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    bincount("train", data, *QUICK, "launcher=gpu", "launcher.precision=auto", "trainer.max_epochs=1")
    assert Path("runs/latest/evaluation/test/results.json").exists()
