"""The stream from S3: the same batches as from a folder, whatever the server does."""

import shutil
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import Bucket
from faulty_proxy import Faults, Request, faulty
from test_stream import SIZE, assert_alike, itself

from bincount import cli
from bincount.data.datamodule import loader
from bincount.data.index import Index
from bincount.data.plan import Layout, training_plan
from bincount.data.stream import Batch, EpochStart, PhotoStream
from bincount.errors import BincountError, Denied
from bincount.storage import RangeReader, objects
from bincount.storage.cache import Cached

# More workers than processors: here they are only to come out in order.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


@pytest.fixture
def far(small_data: Path, bucket: Bucket) -> str:
    """The data set in S3."""
    shutil.copytree(small_data, bucket.folder / "data")
    return f"{bucket.address}/data"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "FIRST_PAUSE", 0.001)


def batches(address: str, workers: int = 0, reader: RangeReader | None = None) -> list[Batch]:
    index = Index.open(address)
    table = index.split("train")
    rows, layout = np.arange(len(table)), Layout(1, workers, 8)
    plan = training_plan(rows, table.shard, layout, seed=1, epoch=2, span=5, window=20)
    start = partial(itself, EpochStart(plan, 2, 0, seed=7))
    return list(loader(PhotoStream(table, index.counts, SIZE, 0, start, reader), workers))


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_the_batches_are_those_of_the_folder(small_data: Path, far: str, workers: int) -> None:
    assert_alike(batches(far, workers), batches(str(small_data), workers))


def test_faults_change_nothing(
    small_data: Path, far: str, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = ("503", "500", "refuse", "reset", "truncated")
    with faulty(bucket.server.endpoint, Faults(seed=3, rate=0.3, kinds=kinds)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        found = batches(far)
        assert proxy.injected.total() > 5
    assert_alike(found, batches(str(small_data)))


def test_a_shard_that_is_gone_leaves_masked_places(small_data: Path, far: str, bucket: Bucket) -> None:
    (bucket.folder / "data/train/bins-000001.tar").unlink()
    whole, found = batches(str(small_data)), batches(far)
    lost = {str(photo) for batch in found for photo in batch["unreadable"]}
    assert len(lost) == 16
    assert all(each.endswith("in train/bins-000001.tar: the shard is not there") for each in lost)
    for one, other in zip(found, whole, strict=True):
        assert one["row"].equal(other["row"])
        assert one["pixels"][one["weight"] > 0].equal(other["pixels"][one["weight"] > 0])
    assert sum(int((batch["weight"] == 0).sum()) for batch in found) == 16


def test_a_cache_gives_the_same_and_asks_once(
    small_data: Path, far: str, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty(bucket.server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        cached = Cached(Index.open(far).store, tmp_path, 100_000_000, "1")
        expected = batches(str(small_data))
        assert_alike(batches(far, reader=cached), expected)
        asked = sum("/train/" in request.path for request in proxy.seen)
        assert asked > 0
        assert_alike(batches(far, reader=cached), expected)
        assert sum("/train/" in request.path for request in proxy.seen) == asked


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_store_that_fails_ends_the_stream_in_one_line(
    far: str, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    def denied(request: Request) -> str | None:
        return "denied" if "/train/" in request.path else None

    with faulty(bucket.server.endpoint, denied) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        with pytest.raises(Denied) as told:
            batches(far, workers)
    assert "/data/train/bins-0" in str(told.value)
    assert "access denied" in str(told.value)
    assert "\n" not in str(told.value)
    assert isinstance(told.value, BincountError)


def trained(root: str, runs: Path) -> bytes:
    """The predictions of a run on the data set."""
    words = ["model=resnet18", "data.image_size=32", "data.batch_size=8", "trainer.max_epochs=1"]
    words += ["data.workers=1", "launcher.precision=32-true", f"data.root={root}", f"runs={runs}"]
    assert cli.main(["train", *words]) == 0
    return (runs / "latest" / "evaluation/test/predictions.parquet").read_bytes()


class Away:
    """A server that is gone for ``seconds`` from the first photos on; then it fails one in five requests."""

    def __init__(self, seconds: float):
        self._seconds, self._until = seconds, float("inf")
        self._later = Faults(rate=0.2, kinds=("503", "reset"))

    def __call__(self, request: Request) -> str | None:
        if "/train/" in request.path and self._until == float("inf"):
            self._until = time.monotonic() + self._seconds
        if self._until == float("inf") or time.monotonic() > self._until:
            return self._later(request)
        return "refuse"


@pytest.mark.slow
def test_a_run_on_s3_is_the_run_on_the_folder_also_after_20_s_without_s3(
    small_data: Path, far: str, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = trained(str(small_data), tmp_path / "near")
    assert trained(far, tmp_path / "far") == near
    with faulty(bucket.server.endpoint, Away(20)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        assert trained(far, tmp_path / "away") == near
        assert proxy.injected["refuse"] > 3
        assert proxy.injected["503"] + proxy.injected["reset"] > 3
