"""The index: what is written is read back, and nothing half or mixed is taken for a data set."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import NewFolder
from hypothesis import given
from hypothesis import strategies as st
from making import jpeg, write_data

from bincount.data.index import COLUMNS, SCHEMA_VERSION, Counts, ImageSize, Index
from bincount.errors import BadInput
from bincount.storage import read_range, sha256

PHOTOS = {"00001": 3, "1": 0, "100313": 5, "00007": 3, "x-9": 1}


@pytest.fixture(scope="module")
def data(new_folder: NewFolder) -> Path:
    folder = new_folder("index")
    write_data(folder, PHOTOS, per_shard=2)
    return folder


@pytest.fixture
def copy(data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(data, tmp_path / "copy"))


def complaint(root: Path) -> str:
    with pytest.raises(BadInput) as caught:
        Index.open(str(root))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(root: Path, **fields: Any) -> Path:
    summary = json.loads((root / "index.json").read_bytes())
    (root / "index.json").write_text(json.dumps({**summary, **fields}))
    return root


# --- what is in it ------------------------------------------------------------------------------------


def test_a_row_a_photo_with_the_columns_of_the_schema(data: Path) -> None:
    table = pq.read_table(data / "index.parquet")
    assert table.schema.equals(COLUMNS)
    assert table["id"].to_pylist() == list(PHOTOS)
    assert table["count"].to_pylist() == list(PHOTOS.values())


def test_a_split_knows_where_its_photos_lie(data: Path) -> None:
    table = Index.open(str(data)).split("train")
    assert len(table) == len(PHOTOS)
    assert table.id.to_pylist() == list(PHOTOS)
    assert table.count.tolist() == list(PHOTOS.values())
    assert table.shards == [f"train/bins-{n:06d}.tar" for n in range(3)]
    assert table.shard.tolist() == [0, 0, 1, 1, 2]
    for row in range(len(table)):
        shard = Path(table.store.address) / table.shards[table.shard[row]]
        content = read_range(shard, int(table.jpeg_offset[row]), int(table.jpeg_length[row]))
        assert content == jpeg(40 + row % 7, 32 + row % 5, row)


def test_index_json_tells_the_whole_in_a_page(data: Path) -> None:
    summary = json.loads((data / "index.json").read_bytes())
    assert summary["schema_version"] == SCHEMA_VERSION
    assert summary["index_digest"] == sha256(data / "index.parquet")
    assert summary["image_size"] == {"shortest_side": None, "quality": None}
    assert summary["source"] == {"name": "test"}
    train = summary["splits"]["train"]
    assert train["samples"] == 5
    assert train["photos_per_count"] == {"0": 1, "1": 1, "2": 0, "3": 2, "4": 0, "5": 1}
    assert [shard["samples"] for shard in train["shards"]] == [2, 2, 1]
    for shard in train["shards"]:
        assert f"sha256:{shard['sha256']}" == sha256(data / shard["name"])
    assert summary["splits"]["val"]["samples"] == 0


def test_only_splits_with_photos_can_be_read(data: Path) -> None:
    index = Index.open(str(data))
    assert index.splits == ["train"]
    assert index.image_size == ImageSize(None, None)
    assert index.photos_per_count("val") == dict.fromkeys("012345", 0)
    with pytest.raises(BadInput, match="no photos in split 'val': it has train"):
        index.split("val")


def test_counts_above_the_highest_are_one_class_more(tmp_path: Path) -> None:
    index = write_data(tmp_path, {"a": 6, "b": 88, "c": 5}, more=True)
    assert index.counts == Counts(5, more=True)
    assert index.photos_per_count("train") == {"0": 0, "1": 0, "2": 0, "3": 0, "4": 0, "5": 1, "more": 2}
    assert index.split("train").count.tolist() == [6, 88, 5]


@given(st.integers(1, 20), st.booleans(), st.lists(st.integers(0, 100), max_size=20))
def test_every_count_has_one_of_the_named_classes(max_count: int, more: bool, found: list[int]) -> None:
    counts = Counts(max_count, more)
    assert len(counts) == len(counts.names)
    usable = np.array([count for count in found if more or count <= max_count], dtype=np.int64)
    for count, its_class in zip(usable.tolist(), counts.classes(usable).tolist(), strict=True):
        assert counts.names[its_class] == (str(count) if count <= max_count else "more")


# --- what is no data set ------------------------------------------------------------------------------


def test_a_missing_folder_a_file_or_an_address_is_no_data_set(tmp_path: Path) -> None:
    told = f"data.root={tmp_path}/no: there is no such folder: make it with `bincount prepare`"
    assert complaint(tmp_path / "no") == told
    (tmp_path / "file").touch()
    assert complaint(tmp_path / "file") == f"data.root: {tmp_path}/file is a file, and a folder is needed"
    told = r"memory://no/x is no prepared data set \(it has no index.json\)"
    with pytest.raises(BadInput, match=told):
        Index.open("memory://no/x")


def test_a_folder_without_index_json_is_no_data_set(copy: Path) -> None:
    (copy / "index.json").unlink()
    assert complaint(copy) == (
        f"{copy} is no prepared data set (it has no index.json): make one with `bincount prepare`"
    )


def cut(root: Path) -> None:
    content = (root / "index.json").read_bytes()
    (root / "index.json").write_bytes(content[: len(content) // 2])


def write(content: bytes) -> Callable[[Path], object]:
    return lambda root: (root / "index.json").write_bytes(content)


def without(field: str) -> Callable[[Path], object]:
    def remove(root: Path) -> None:
        summary = json.loads((root / "index.json").read_bytes())
        del summary[field]
        (root / "index.json").write_text(json.dumps(summary))

    return remove


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        write(b""),
        write(b"[]"),
        write(b"{}"),
        write(b"null"),
        write(b"\xff\xfe"),
        *map(without, ["schema_version", "max_count", "overflow", "image_size", "splits", "index_digest"]),
        lambda root: changed(root, image_size=3),
        lambda root: changed(root, splits=[]),
        lambda root: changed(root, splits={"train": {}}),
    ],
)
def test_a_damaged_index_json_is_told_in_one_line(copy: Path, damage: Callable[[Path], object]) -> None:
    damage(copy)
    assert complaint(copy) == f"{copy}/index.json is damaged: prepare the data set again"


def test_another_schema_version_is_refused(copy: Path) -> None:
    changed(copy, schema_version=99)
    assert complaint(copy) == (
        f"{copy}/index.json has schema version 99, this program reads {SCHEMA_VERSION}: prepare again"
    )


def test_files_of_two_data_sets_are_never_taken_together(copy: Path, tmp_path: Path) -> None:
    write_data(tmp_path / "other", {"a": 1})
    shutil.copy(tmp_path / "other" / "index.parquet", copy)
    assert complaint(copy) == (
        f"{copy}/index.parquet is not the one that index.json names: prepare the data set again"
    )


@pytest.mark.parametrize("length", [None, 0, 100])
def test_a_missing_or_truncated_index_parquet_is_refused(copy: Path, length: int | None) -> None:
    path = copy / "index.parquet"
    content = path.read_bytes()
    path.unlink()
    if length is not None:
        path.write_bytes(content[:length])
    assert "is not the one that index.json names" in complaint(copy)
