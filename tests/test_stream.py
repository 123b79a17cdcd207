"""The stream: batches that follow the plan, whatever happens to the shards."""

import pickle
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import webdataset as wds
from conftest import NewFolder
from hypothesis import given, settings
from hypothesis import strategies as st
from making import jpeg, prepare, write_data

from bincount import config, storage
from bincount.data import stream
from bincount.data.datamodule import BinData, evaluation_loader, loader
from bincount.data.images import decode_jpeg, read_photo
from bincount.data.index import Index
from bincount.data.pixels import draws, fit
from bincount.data.plan import NO_ROW, Layout, Plan, Rows, evaluation_plan, training_plan
from bincount.data.stream import Batch, EpochStart, PhotoStream, in_planned_order, read_spans
from bincount.storage import Folder, Range

# More workers than processors: here they are only to come out in order.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

SIZE = (24, 28)
PHOTOS = {f"{n:05d}": n % 6 for n in range(1, 54)}


@pytest.fixture(scope="module")
def data(new_folder: NewFolder) -> Index:
    """53 photos of different sizes in seven shards."""
    return write_data(new_folder("stream"), PHOTOS)


def planned(index: Index, layout: Layout, *, epoch: int = 3, span: int = 5, window: int = 12) -> Plan:
    table = index.split("train")
    rows = np.arange(len(table))
    return training_plan(rows, table.shard, layout, seed=1, epoch=epoch, span=span, window=window)


def batches_of(index: Index, start: EpochStart, rank: int = 0, size: tuple[int, int] = SIZE) -> list[Batch]:
    photos = PhotoStream(index.split("train"), index.counts, size, rank, partial(itself, start))
    return list(loader(photos, start.plan.layout.workers))


def itself(start: EpochStart) -> EpochStart:
    return start


def assert_alike(some: list[Batch], others: list[Batch]) -> None:
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            alike = torch.equal(one[key], other[key]) if torch.is_tensor(one[key]) else one[key] == other[key]
            assert alike, key


def copied(index: Index, to: Path) -> Index:
    shutil.copytree(Path(index.store.address), to)
    return Index.open(str(to))


# --- what is in a batch -------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 2])
def test_batches_are_the_planned_rows_with_their_own_pixels_and_counts(
    data: Index, workers: int, world_size: int
) -> None:
    plan = planned(data, Layout(world_size, workers, 4))
    counts = list(PHOTOS.values())
    for rank in range(world_size):
        batches = batches_of(data, EpochStart(plan, epoch=3, seed=7), rank)
        assert [batch["row"].tolist() for batch in batches] == plan.batches[:, rank].tolist()
        for batch in batches:
            assert batch["pixels"].dtype == torch.uint8
            assert batch["pixels"].shape == (4, 3, *SIZE)
            assert batch["count"].tolist() == [counts[row] for row in batch["row"]]
            assert batch["weight"].tolist() == [1.0] * 4
            assert batch["unreadable"] == []
            assert torch.equal(batch["draws"], draws(7, 3, batch["row"].numpy()))
            for row, pixels in zip(batch["row"].tolist(), batch["pixels"], strict=True):
                photo = read_photo(jpeg(40 + row % 7, 32 + row % 5, seed=row))
                assert torch.equal(pixels, fit(photo, SIZE))


@pytest.mark.parametrize("world_size", [1, 3])
def test_evaluation_gives_every_photo_once_and_pads_with_masked_places(data: Index, world_size: int) -> None:
    rows = []
    for rank in range(world_size):
        for batch in evaluation_loader(data, "train", SIZE, Layout(world_size, 0, 8), rank):
            masked = batch["row"] == NO_ROW
            assert torch.equal(batch["weight"], (~masked).float())
            assert batch["pixels"][masked].sum() == 0
            assert batch["count"][masked].sum() == 0
            assert batch["unreadable"] == []
            assert "draws" not in batch
            rows += batch["row"][~masked].tolist()
    assert sorted(rows) == list(range(53))


def test_an_evaluation_loader_reaches_workers_that_are_not_forked(data: Index) -> None:
    dataset = evaluation_loader(data, "train", SIZE, Layout(1, 0, 8)).dataset
    assert_alike(list(pickle.loads(pickle.dumps(dataset))), list(dataset))


def test_counts_above_the_highest_are_the_class_more(tmp_path: Path) -> None:
    index = write_data(tmp_path, {"a": 5, "b": 6, "c": 88, "d": 0}, more=True)
    (batch,) = batches_of(index, EpochStart(evaluation_plan(np.arange(4), Layout(1, 0, 4))))
    assert batch["count"].tolist() == [5, 6, 6, 0]


# --- going on -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_going_on_in_the_middle_gives_the_batches_that_were_left(data: Index, workers: int) -> None:
    plan = planned(data, Layout(1, workers, 4))
    whole = batches_of(data, EpochStart(plan, 3, 0, seed=7))
    for steps_done in {0: range(plan.steps + 1), 1: [5], 3: [4, plan.steps]}[workers]:
        left = batches_of(data, EpochStart(plan, 3, steps_done, seed=7))
        assert_alike(left, whole[steps_done:])


def test_a_data_module_goes_on_where_the_trainer_stands(data: Index) -> None:
    bins, trainer = data_module(data, workers=2)
    trainer.global_step = 0
    train = bins.train_dataloader()
    steps = len(train)
    assert steps == 53 // 4
    first = list(train)
    trainer.global_step = steps
    second = list(train)
    trainer.global_step = steps + 5
    rest = list(bins.train_dataloader())
    trainer.global_step = 2 * steps
    third = list(train)
    assert [len(first), len(second), len(third)] == [steps] * 3
    assert_alike(rest, second[5:])
    assert (
        len({tuple(torch.cat([b["row"] for b in epoch]).tolist()) for epoch in (first, second, third)}) == 3
    )


def test_a_fraction_streams_the_same_few_photos_in_every_epoch(data: Index) -> None:
    bins, trainer = data_module(data, workers=0, fraction=0.25, batch_size=1)
    train = bins.train_dataloader()
    epochs = []
    for epoch in range(3):
        trainer.global_step = epoch * len(train)
        epochs.append([row for batch in train for row in batch["row"].tolist()])
    assert len(epochs[0]) == round(53 * 0.25)
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(epochs[2])
    assert epochs[0] != epochs[1]


def test_an_image_size_is_height_and_width(data: Index) -> None:
    bins, _ = data_module(data, workers=0, image_size=[16, 48])
    batch = next(iter(bins.train_dataloader()))
    assert batch["pixels"].shape == (4, 3, 16, 48)


def test_a_batch_reaches_the_model_as_floats_without_what_only_the_loader_needs(data: Index) -> None:
    bins, _ = data_module(data, workers=0)
    batch = bins.on_before_batch_transfer(next(iter(bins.train_dataloader())), 0)
    batch = bins.on_after_batch_transfer(batch, 0)
    assert batch.keys() == {"pixels", "count", "weight", "row"}
    assert batch["pixels"].dtype == torch.float32


def test_loaders_leave_the_global_random_numbers_alone(data: Index) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    next(iter(evaluation_loader(data, "train", SIZE, Layout(1, 2, 8))))
    assert torch.equal(torch.rand(3), expected)


def data_module(index: Index, **changed: Any) -> tuple[BinData, SimpleNamespace]:
    still = config.Augment(**dict.fromkeys((key.name for key in fields(config.Augment)), 0))
    keys: dict[str, Any] = {"batch_size": 4, "workers": 0, "image_size": 24, "fraction": 1.0, "span": 5}
    keys |= {
        "window": 12,
        "max_bad": 0.001,
        "reader": "ranges",
        "cache": None,
        "cache_gb": 1.0,
        "balance": "none",
    }
    bins = BinData(
        index, config.Data(root=str(Path(index.store.address)), **{**keys, **changed}, augment=still), seed=1
    )
    trainer = SimpleNamespace(world_size=1, global_rank=0, global_step=0, current_epoch=0)
    bins.trainer = trainer  # type: ignore[assignment]
    return bins, trainer


# --- damage -------------------------------------------------------------------------------------------


def overwrite_a_photo(index: Index) -> set[int]:
    table = index.split("train")
    with (Path(index.store.address) / table.shards[1]).open("r+b") as shard:
        shard.seek(int(table.jpeg_offset[10]) + int(table.jpeg_length[10]) // 2)
        shard.write(b"\xff\xd9" * 32)
    return {10}


def overwrite_a_photo_with_a_bomb(index: Index) -> set[int]:
    table = index.split("train")
    with (Path(index.store.address) / table.shards[0]).open("r+b") as shard:
        shard.seek(int(table.jpeg_offset[2]))
        content = shard.read(int(table.jpeg_length[2]))
        shard.seek(int(table.jpeg_offset[2]) + content.index(b"\xff\xc0") + 5)
        shard.write(b"\xff\x00\xff\x00")
    return {2}


def truncate_a_shard(index: Index) -> set[int]:
    """Cut a shard inside its fourth photo; it starts with row 16."""
    table = index.split("train")
    with (Path(index.store.address) / table.shards[2]).open("r+b") as shard:
        shard.truncate(int(table.jpeg_offset[19]) + 100)
    return {19, 20, 21, 22, 23}


def empty_a_shard(index: Index) -> set[int]:
    (Path(index.store.address) / index.split("train").shards[2]).write_bytes(b"")
    return set(range(16, 24))


def remove_a_shard(index: Index) -> set[int]:
    (Path(index.store.address) / index.split("train").shards[3]).unlink()
    return set(range(24, 32))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "damage",
    [
        overwrite_a_photo,
        overwrite_a_photo_with_a_bomb,
        truncate_a_shard,
        empty_a_shard,
        remove_a_shard,
    ],
)
def test_damage_leaves_masked_places_and_moves_no_other_photo(
    data: Index, tmp_path: Path, damage: Callable[[Index], set[int]], workers: int
) -> None:
    index = copied(data, tmp_path / "damaged")
    lost = damage(index)
    start = EpochStart(planned(data, Layout(1, workers, 4)), 3, 0, seed=7)
    told = 0
    for whole, damaged in zip(batches_of(data, start), batches_of(index, start), strict=True):
        hit = torch.tensor([row in lost for row in whole["row"].tolist()])
        assert torch.equal(damaged["row"], whole["row"])
        assert torch.equal(damaged["draws"], whole["draws"])
        assert torch.equal(damaged["weight"], (~hit).float())
        assert torch.equal(damaged["pixels"][~hit], whole["pixels"][~hit])
        assert torch.equal(damaged["count"][~hit], whole["count"][~hit])
        assert damaged["pixels"][hit].sum() == 0
        assert damaged["count"][hit].sum() == 0
        assert len(damaged["unreadable"]) == hit.sum()
        told += len(damaged["unreadable"])
        for row, reason in zip(whole["row"][hit].tolist(), damaged["unreadable"], strict=True):
            assert f"{row + 1:05d} in train/bins-" in str(reason)
            assert "\n" not in str(reason)
    assert told == len(lost & set(start.plan.batches.ravel().tolist())) > 0


def test_bad_photos_are_counted_and_named_once_per_cause(
    data: Index, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = copied(data, tmp_path / "damaged")
    remove_a_shard(index)
    bins, _ = data_module(index, max_bad=0.1)
    lost = 0
    for batch in bins.train_dataloader():
        lost += int((batch["weight"] == 0).sum())
        bins.on_before_batch_transfer(batch, 0)
    assert len(bins.unreadable.of_epoch) == lost > bins.most_unreadable == 6
    assert len(caplog.messages) == 1
    assert bins.unreadable.summary() == f"train/bins-000003.tar: the shard is not there ({lost})"


# --- reading ------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 40), st.data())
def test_a_worker_holds_back_at_most_the_window_and_gives_out_in_the_planned_order(
    photos: int, span: int, window: int, data: st.DataObject
) -> None:
    rows = np.arange(photos)
    plan = training_plan(rows, rows // 9, Layout(1, 2, 3), seed=0, epoch=0, span=span, window=window)
    lane = plan.lane(0, 1, data.draw(st.integers(0, plan.steps)))
    held: set[int] = set()

    class Sample(dict[str, int]):
        """A sample that tells when nothing holds it any more."""

        def __del__(self) -> None:
            held.discard(self["row"])

    def photos_read() -> Iterator[stream.Sample]:
        for row in lane.reads.tolist():
            held.add(row)
            yield Sample(row=row)

    order = []
    for sample in in_planned_order(lane.batches.ravel(), photos_read()):
        order.append(sample["row"])
        # Those that wait, the one that was read last, and the one that is given out.
        assert len(held) <= window + 1
    assert order == lane.batches.ravel().tolist()


def test_no_row_gives_an_empty_sample_and_reads_nothing() -> None:
    samples = list(in_planned_order(np.array([NO_ROW, NO_ROW]), iter([])))
    assert [sample["jpg"] for sample in samples] == [None, None]


def test_photos_come_out_in_the_order_of_reading_with_their_own_bytes(data: Index) -> None:
    reads = np.array([30, 31, 32, 5, 6, 4, 52, 0])
    samples = list(read_spans(data.split("train"), data.store, reads))
    assert [sample["row"] for sample in samples] == reads.tolist()
    assert [sample["jpg"] for sample in samples] == [jpeg(40 + r % 7, 32 + r % 5, seed=r) for r in reads]
    assert [sample["__key__"] for sample in samples] == [f"{row + 1:05d}" for row in reads]


def counted_reads(monkeypatch: pytest.MonkeyPatch, index: Index, reads: Rows) -> list[int]:
    """The length of each read that ``reads`` takes."""
    lengths = []
    read_ranges = Folder.read_ranges

    def counting(folder: Folder, ranges: Iterable[Range]) -> Iterator[bytes | str]:
        asked = list(ranges)
        lengths.extend(each.length for each in asked)
        return read_ranges(folder, asked)

    monkeypatch.setattr(Folder, "read_ranges", counting)
    assert all(sample["cause"] is None for sample in read_spans(index.split("train"), index.store, reads))
    return lengths


def test_neighbours_in_a_shard_are_read_in_one_piece(data: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(counted_reads(monkeypatch, data, np.arange(53))) == 7


def test_a_span_is_one_read(data: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(data, Layout(1, 0, 53), span=8, window=100)
    assert len(counted_reads(monkeypatch, data, plan.lane(0, 0).reads)) == 7


def test_copies_of_a_photo_are_read_once(data: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = np.repeat(np.arange(53), 3)
    assert len(counted_reads(monkeypatch, data, reads)) == 7
    samples = list(read_spans(data.split("train"), data.store, reads))
    assert [sample["jpg"] for sample in samples] == [jpeg(40 + r % 7, 32 + r % 5, seed=r) for r in reads]


def test_a_long_piece_is_cut(data: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MOST_BYTES", 6000)
    table = data.split("train")
    lengths = counted_reads(monkeypatch, data, np.arange(53))
    assert len(lengths) > 7
    assert max(lengths) <= 6000 + int(table.jpeg_length.max()) + 2048


def test_a_wide_gap_is_not_read(data: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MOST_GAP", 3000)
    table = data.split("train")
    lengths = counted_reads(monkeypatch, data, np.array([0, 1, 6, 7]))
    assert len(lengths) == 2
    assert sum(lengths) < table.jpeg_offset[7] + table.jpeg_length[7] - table.jpeg_offset[0] - 3000


# --- other WebDataset programs ------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves them to Python
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_plain_webdataset_reads_our_shards(small_data: Path) -> None:
    index = Index.open(str(small_data))
    table = index.split("train")
    urls = [str(small_data / shard) for shard in table.shards]
    samples = list(wds.WebDataset(urls, shardshuffle=False).decode("rgb8"))
    assert [sample["__key__"] for sample in samples] == table.id.to_pylist()
    assert [sample["json"]["count"] for sample in samples] == table.count.tolist()
    assert [sample["json"]["id"] for sample in samples] == table.id.to_pylist()
    for row, sample in enumerate(samples[:8]):
        content = storage.read_range(
            small_data / table.shards[table.shard[row]],
            int(table.jpeg_offset[row]),
            int(table.jpeg_length[row]),
        )
        assert np.array_equal(sample["jpg"], decode_jpeg(content))


@pytest.fixture(scope="module")
def foreign(new_folder: NewFolder) -> Path:
    """20 photos written by webdataset's own ShardWriter, with the count as a class, indexed by `prepare`."""
    root = new_folder("foreign")
    (root / "train").mkdir()
    with warnings.catch_warnings(action="ignore"):
        writer = wds.ShardWriter(f"{root}/train/their-%04d.tar", maxcount=7, verbose=0)
    with writer:
        for row in range(20):
            writer.write({"__key__": f"k{row:03d}", "jpg": jpeg(seed=row), "cls": row % 6})
    assert prepare(root, "source=shards") == 0
    return root


def test_shards_of_a_plain_shard_writer_are_indexed_and_streamed(foreign: Path) -> None:
    index = Index.open(str(foreign))
    table = index.split("train")
    assert table.id.to_pylist() == [f"k{row:03d}" for row in range(20)]
    assert len(table.shards) == 3
    plan = training_plan(np.arange(20), table.shard, Layout(1, 2, 5), seed=0, epoch=0, span=3, window=6)
    batches = batches_of(index, EpochStart(plan, 0, 0, seed=0))
    assert [batch["row"].tolist() for batch in batches] == plan.batches[:, 0].tolist()
    for batch in batches:
        assert batch["count"].tolist() == [row % 6 for row in batch["row"].tolist()]
        assert batch["weight"].tolist() == [1.0] * 5
        for row, pixels in zip(batch["row"].tolist(), batch["pixels"], strict=True):
            assert torch.equal(pixels, fit(read_photo(jpeg(seed=row)), SIZE))
