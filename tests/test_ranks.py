"""Runs on several ranks: equal steps, each photo once, and figures that are the same on any number."""

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import killing
import pytest
import webdataset as wds
from conftest import NewFolder
from making import jpeg, prepare

SHARDS = [1, 19, 7, 30, 2, 11, 5]  # photos of each
VALIDATION = [3, 1, 9, 4]

#: One thread a rank, and rates so low that no weight changes: all runs validate the same network.
STILL = [
    "model.name=linear",
    "data.image_size=32",
    "data.batch_size=4",
    "optimizer=sgd",
    "optimizer.lr=1e-30",
]
STILL += ["optimizer.weight_decay=0", "trainer.max_epochs=2", "launcher.precision=32-true"]


@pytest.fixture(scope="module")
def unequal(new_folder: NewFolder) -> Path:
    """A data set of shards with very different numbers of photos."""
    out = new_folder("unequal")
    for split, sizes in {"train": SHARDS, "val": VALIDATION}.items():
        (out / split).mkdir()
        for shard, photos in enumerate(sizes):
            with wds.TarWriter(str(out / split / f"{shard}.tar")) as tar:
                for number in range(photos):
                    key = f"{split}-{shard}-{number}"
                    tar.write({"__key__": key, "jpg": jpeg(seed=1000 * shard + number), "cls": number % 6})
    assert prepare(out, "source=shards") == 0
    return out


@pytest.fixture(scope="module")
def run(unequal: Path, new_folder: NewFolder) -> Callable[..., Path]:
    """Trains on forked ranks, each of which notes the rows of each of its steps; gives the run's folder."""

    def run(*words: str) -> Path:
        job = {"name": "run", "words": words, "starts": [], "compare": False}
        top = new_folder("ranks")
        path = [str(Path(__file__).parent / "smddp_stand_in"), *filter(None, [os.environ.get("PYTHONPATH")])]
        done = subprocess.run(
            [sys.executable, killing.__file__, str(unequal), str(top)],
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "TORCH_CPP_LOG_LEVEL": "ERROR",
                "PYTHONPATH": os.pathsep.join(path),
            },
            input=json.dumps([job]),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-5000:]
        return Path(json.loads(done.stdout)["run"])

    return run


def validated(folder: Path) -> list[dict[str, Any]]:
    """The figures of each validation, as they stand in metrics.csv."""
    with (folder / "metrics.csv").open(newline="") as file:
        found = [row for row in csv.DictReader(file) if row["val/loss"]]
    return [{key: row[key] for key in row if key.startswith("val/")} for row in found]


@pytest.fixture(scope="module")
def alone(run: Callable[..., Path]) -> Path:
    """The run on one rank."""
    return run(*STILL, "launcher.devices=1", "data.workers=0")


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "workers"), [(2, 2), (3, 1), (5, 0), (5, 3)])
def test_unequal_shards_give_equal_steps_and_figures(
    run: Callable[..., Path], alone: Path, ranks: int, workers: int
) -> None:
    folder = run(*STILL, f"launcher.devices={ranks}", f"data.workers={workers}")
    steps = killing.rows_of_steps(folder)
    each = sum(SHARDS) // (4 * ranks)
    assert list(steps) == list(range(2 * each))
    assert {len(of_ranks) for of_ranks in steps.values()} == {ranks}
    for epoch in (0, 1):
        taken = range(epoch * each, (epoch + 1) * each)
        rows = Counter(row for step in taken for of_rank in steps[step] for row in of_rank)
        assert set(rows.values()) == {1}
        assert len(rows) == each * 4 * ranks
        assert set(rows) <= set(range(sum(SHARDS)))
    assert validated(folder) == validated(alone)
    assert len(validated(folder)) == 2


@pytest.mark.slow
def test_smddp_is_asked_for_nothing_that_it_does_not_have(run: Callable[..., Path], alone: Path) -> None:
    words = ["launcher.devices=2", "data.workers=1", "launcher.backend=smddp", "trainer.stop_after=5"]
    folder = run(*STILL, *words)
    assert validated(folder) == validated(alone)
    assert "smddp" not in (folder / "log.txt").read_text()  # it was there
