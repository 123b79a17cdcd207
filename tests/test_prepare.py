"""`bincount prepare`: what it writes."""

import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import NewFolder
from making import DRAWN, KNOWN, prepare, record, write_photos, write_records
from reading import contents, jpeg_of, rows, skipped, splits_of_groups

from bincount import cli, storage
from bincount.data.index import Index

# --- drawn bins ---------------------------------------------------------------------------------------


def test_a_data_set_holds_what_was_promised(drawn: Path) -> None:
    names = {"index.json", "index.parquet", "skipped.csv", "train", "val", "test"}
    assert {path.name for path in drawn.iterdir()} == names
    assert (drawn / "skipped.csv").read_text() == "id,file,reason\n"
    summary = json.loads((drawn / "index.json").read_bytes())
    assert summary["source"]["name"] == "synthetic"
    assert summary["source"]["seed"] == 3
    assert {name: told["samples"] for name, told in summary["splits"].items()} == {
        "train": 28,
        "val": 6,
        "test": 6,
    }
    assert [shard["samples"] for shard in summary["splits"]["train"]["shards"]] == [7] * 4
    assert sorted(rows(drawn)) == [f"{n:05d}" for n in range(1, 41)]
    assert list(drawn.parent.iterdir()) == [drawn]


def test_every_count_is_drawn_as_often(drawn: Path) -> None:
    counts = [row["count"] for row in rows(drawn).values()]
    assert sorted(np.bincount(counts).tolist()) == [6, 6, 7, 7, 7, 7]


def test_every_row_leads_to_its_photo(drawn: Path) -> None:
    for id, row in rows(drawn).items():
        start = storage.read_range(drawn / row["shard"], row["offset"], 512)
        assert start.startswith(f"{id}.jpg\0".encode())
        content = jpeg_of(drawn, row)
        assert content.startswith(b"\xff\xd8")
        assert content.endswith(b"\xff\xd9")
        assert (row["width"], row["height"]) == (48, 40)
        assert row["shard"].startswith(f"{row['split']}/")


def test_neighbouring_ids_do_not_lie_together(drawn: Path) -> None:
    order = [int(id) for id, row in rows(drawn).items() if row["split"] == "train"]
    assert sum(abs(after - before) == 1 for before, after in pairwise(order)) < 8


def test_the_same_seed_makes_the_same_bytes_whatever_the_workers(drawn: Path, tmp_path: Path) -> None:
    assert prepare(tmp_path / "again", *DRAWN, "seed=3", "workers=2") == 0
    assert contents(tmp_path / "again") == contents(drawn)


def test_another_seed_draws_other_bins(drawn: Path, tmp_path: Path) -> None:
    assert prepare(tmp_path / "other", *DRAWN, "seed=4") == 0
    photos, others = (
        {jpeg_of(out, row) for row in rows(out).values()} for out in (drawn, tmp_path / "other")
    )
    assert not photos & others


def test_ratios_and_sizes_are_as_asked(tmp_path: Path) -> None:
    words = ["split.train=0.9", "split.val=0", "split.test=0.1", "shortest_side=32", "max_count=3"]
    assert prepare(tmp_path / "out", *DRAWN, *words) == 0
    index = Index.open(str(tmp_path / "out"))
    assert index.splits == ["train", "test"]
    assert len(index.split("train")) == 36
    assert len(index.split("test")) == 4
    assert index.counts.names == ["0", "1", "2", "3"]
    assert {(row["width"], row["height"]) for row in rows(tmp_path / "out").values()} == {(38, 32)}


# --- folders: where the counts come from --------------------------------------------------------------


@pytest.fixture(scope="module")
def from_records(known: Path, new_folder: NewFolder) -> Path:
    out = new_folder("folder") / "out"
    words = ["source=folder", f"source.images={known}/images", f"source.metadata={known}/records"]
    assert prepare(out, *words) == 0
    return out


def test_records_give_the_counts_and_the_tables(from_records: Path) -> None:
    assert {id: row["count"] for id, row in rows(from_records).items()} == KNOWN
    assert skipped(from_records) == {}
    bins = pq.read_table(from_records / "tables" / "bins")
    assert bins["id"].to_pylist() == list(KNOWN)
    assert bins["expected_quantity"].to_pylist() == list(KNOWN.values())
    items = pq.read_table(from_records / "tables" / "items")
    assert items["id"].to_pylist() == [id for id, count in KNOWN.items() if count]
    path = next((from_records / "tables" / "items").glob("*.parquet"))
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "SNAPPY"


def test_photos_that_are_small_enough_keep_their_very_bytes(from_records: Path, known: Path) -> None:
    for id, row in rows(from_records).items():
        assert jpeg_of(from_records, row) == (known / "images" / f"{id}.jpg").read_bytes()


def test_no_shortest_side_keeps_the_very_bytes_of_large_photos(tmp_path: Path) -> None:
    write_photos(tmp_path / "images", ["1", "2", "3"], 640, 480)
    write_records(tmp_path / "records", {"1": 1, "2": 2, "3": 3})
    words = ["source=folder", f"source.images={tmp_path}/images", f"source.metadata={tmp_path}/records"]
    assert prepare(tmp_path / "whole", *words, "shortest_side=null") == 0
    assert prepare(tmp_path / "small", *words, "shortest_side=64") == 0
    for id, row in rows(tmp_path / "whole").items():
        assert jpeg_of(tmp_path / "whole", row) == (tmp_path / "images" / f"{id}.jpg").read_bytes()
    for row in rows(tmp_path / "small").values():
        assert (row["width"], row["height"]) == (85, 64)


def test_photos_of_one_product_side_by_side_stay_in_one_split(tmp_path: Path) -> None:
    ids = [f"{n:05d}" for n in range(1, 61)]
    write_photos(tmp_path / "images", ids)
    (tmp_path / "records").mkdir()
    for n, id in enumerate(ids):
        (tmp_path / "records" / f"{id}.json").write_text(json.dumps(record(1 + n % 5, f"P{n // 3}")))
    words = ["source=folder", f"source.images={tmp_path}/images", f"source.metadata={tmp_path}/records"]
    assert prepare(tmp_path / "out", *words) == 0
    groups = splits_of_groups(tmp_path / "out")
    assert len(groups) == 20
    assert all(len(splits) == 1 for splits in groups.values())
    assert set.union(*groups.values()) == {"train", "val", "test"}


def test_labels_csv_gives_counts_and_groups(known: Path, tmp_path: Path) -> None:
    lines = [f"{id},{count},shelf-{int(id) % 10}" for id, count in KNOWN.items()]
    (tmp_path / "labels.csv").write_text("id,count,group\n" + "\n".join(lines) + "\n")
    words = [f"source.images={known}/images", f"source.labels={tmp_path}/labels.csv"]
    assert prepare(tmp_path / "out", "source=folder", *words) == 0
    assert {id: row["count"] for id, row in rows(tmp_path / "out").items()} == KNOWN
    groups = splits_of_groups(tmp_path / "out")
    assert set(groups) == {f"shelf-{n}" for n in range(10)}
    assert all(len(splits) == 1 for splits in groups.values())
    assert not (tmp_path / "out" / "tables").exists()


def test_a_file_list_gives_counts_and_blocks_of_ids_stay_together(known: Path, tmp_path: Path) -> None:
    paths: defaultdict[str, list[str]] = defaultdict(list)
    for id, count in KNOWN.items():
        paths[str(count)].append(f"data/metadata/{id}.json")
    (tmp_path / "file_list.json").write_text(json.dumps(paths))
    words = [f"source.images={known}/images", f"source.labels={tmp_path}/file_list.json", "source.block=5"]
    assert prepare(tmp_path / "out", "source=folder", *words) == 0
    assert {id: row["count"] for id, row in rows(tmp_path / "out").items()} == KNOWN
    groups = splits_of_groups(tmp_path / "out")
    assert set(groups) == {"00001", "00006", "00011", "00016", "00021", "00026"}
    assert all(len(splits) == 1 for splits in groups.values())


def test_pairs_of_2018_count_from_0(known: Path, tmp_path: Path) -> None:
    pairs = [[int(id) - 1, count] for id, count in KNOWN.items()]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    words = [f"source.images={known}/images", f"source.labels={tmp_path}/pairs.json", "source.block=5"]
    assert prepare(tmp_path / "out", "source=folder", *words) == 0
    assert {id: row["count"] for id, row in rows(tmp_path / "out").items()} == KNOWN


def test_labels_choose_among_records_and_nothing_is_lost(known: Path, tmp_path: Path) -> None:
    write_records(tmp_path / "records", {**KNOWN, "00099": 1})
    (tmp_path / "labels.csv").write_text("id,count\n00001,4\n00002,2\n00003,1\n00098,3\n")
    words = [f"source.images={known}/images", f"source.metadata={tmp_path}/records"]
    assert prepare(tmp_path / "out", "source=folder", *words, f"source.labels={tmp_path}/labels.csv") == 0
    assert {id: row["count"] for id, row in rows(tmp_path / "out").items()} == {
        "00001": 4,
        "00002": 2,
        "00003": 1,
    }
    left_out = skipped(tmp_path / "out")
    assert left_out.keys() == {f"{n:05d}" for n in [*range(4, 31), 98, 99]}
    assert left_out["00004"] == [("00004.jpg", "the photo has no label")]
    assert left_out["00098"] == [("00098", "the label has no photo")]
    assert left_out["00099"] == [("00099.json", "the record has neither a label nor a photo")]


def test_a_tree_of_folders_keeps_its_splits(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for split, count, ids in [
        ("train", "0", ["a", "b"]),
        ("train", "3", ["00001", "00002"]),
        ("valid", "3", ["00003"]),
        ("test", "12", ["00004"]),
        ("test", "5", ["00005"]),
    ]:
        write_photos(tree / split / count, ids)
    assert prepare(tmp_path / "out", "source=folder", f"source.images={tree}") == 0
    assert {id: (row["split"], row["count"]) for id, row in rows(tmp_path / "out").items()} == {
        "a": ("train", 0),
        "b": ("train", 0),
        "00001": ("train", 3),
        "00002": ("train", 3),
        "00003": ("val", 3),
        "00005": ("test", 5),
    }
    assert skipped(tmp_path / "out") == {
        "00004": [("test/12/00004.jpg", "above max_count 5: the count is 12")]
    }


def test_a_photo_in_no_folder_of_a_tree_and_an_id_in_two_are_listed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    write_photos(tree / "train" / "1", ["a", "b"])
    write_photos(tree / "val" / "2", ["b"])
    write_photos(tree / "train", ["c"])
    write_photos(tree / "dev" / "3", ["d"])
    write_photos(tree / "train" / "1" / "deeper", ["e"])
    assert prepare(tmp_path / "out", "source=folder", f"source.images={tree}") == 0
    assert set(rows(tmp_path / "out")) == {"a"}
    lost = "the photo lies in no folder split/count"
    twice = "2 files have this id: train/1/b.jpg, val/2/b.jpg"
    assert skipped(tmp_path / "out") == {
        "b": [("train/1/b.jpg", twice), ("val/2/b.jpg", twice)],
        "c": [("train/c.jpg", lost)],
        "d": [("dev/3/d.jpg", lost)],
        "e": [("train/1/deeper/e.jpg", lost)],
    }


# --- counts above the highest -------------------------------------------------------------------------


@pytest.fixture
def above(tmp_path: Path) -> list[str]:
    counts = {f"{n:05d}": [0, 1, 2, 5, 6, 88][n % 6] for n in range(24)}
    write_photos(tmp_path / "images", list(counts))
    write_records(tmp_path / "records", counts)
    return ["source=folder", f"source.images={tmp_path}/images", f"source.metadata={tmp_path}/records"]


def test_counts_above_the_highest_are_left_out_and_listed(above: list[str], tmp_path: Path) -> None:
    assert prepare(tmp_path / "out", *above) == 0
    assert len(rows(tmp_path / "out")) == 16
    assert skipped(tmp_path / "out") == {
        f"{n:05d}": [(f"{n:05d}.jpg", f"above max_count 5: the count is {[6, 88][n % 6 - 4]}")]
        for n in range(24)
        if n % 6 > 3
    }


def test_counts_above_the_highest_can_be_a_class(above: list[str], tmp_path: Path) -> None:
    assert prepare(tmp_path / "out", *above, "overflow=class") == 0
    index = Index.open(str(tmp_path / "out"))
    assert len(rows(tmp_path / "out")) == 24
    assert skipped(tmp_path / "out") == {}
    assert index.counts.names[-1] == "more"
    assert sum(index.photos_per_count(split)["more"] for split in index.splits) == 8
    assert {row["count"] for row in rows(tmp_path / "out").values()} == {0, 1, 2, 5, 6, 88}


def test_counts_above_the_highest_can_be_a_split_without_labels(above: list[str], tmp_path: Path) -> None:
    assert prepare(tmp_path / "out", *above, "overflow=unlabelled") == 0
    index = Index.open(str(tmp_path / "out"))
    assert len(index.split("unlabelled")) == 8
    assert index.counts.names == list("012345")
    unlabelled = [row for row in rows(tmp_path / "out").values() if row["split"] == "unlabelled"]
    assert {row["count"] for row in unlabelled} == {None}
    assert {row["shard"] for row in unlabelled} == {"unlabelled/bins-000000.tar"}
    assert skipped(tmp_path / "out") == {}


# --- the real photos ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.abid
def test_the_real_bucket_is_prepared_whole(abid: Path, tmp_path: Path) -> None:
    bucket = abid / "bucket"
    words = [f"source.images={bucket}/bin-images", f"source.metadata={bucket}/metadata"]
    assert cli.main(["prepare", "source=folder", *words, f"out={tmp_path}/out"]) == 0
    found, left_out = rows(tmp_path / "out"), skipped(tmp_path / "out")
    assert len(found) == 749
    assert len(left_out) == 251
    assert all(reason.startswith("above max_count 5") for ((_, reason),) in left_out.values())
    assert found.keys() | left_out.keys() == {path.stem for path in (bucket / "bin-images").glob("*.jpg")}
    for id, row in found.items():
        expected = json.loads((bucket / "metadata" / f"{id}.json").read_bytes())["EXPECTED_QUANTITY"]
        assert row["count"] == expected
    assert all(len(splits) == 1 for splits in splits_of_groups(tmp_path / "out").values())
    assert {row["split"] for row in found.values()} == {"train", "val", "test"}
    for row in found.values():
        assert min(row["width"], row["height"]) <= 256
    shrunk = [row for row in found.values() if min(row["width"], row["height"]) == 256]
    assert len(shrunk) > 700
    assert pq.read_table(tmp_path / "out" / "tables" / "bins").num_rows == 1000
    index = Index.open(str(tmp_path / "out"))
    shares = {split: len(index.split(split)) / 749 for split in index.splits}
    assert shares == pytest.approx({"train": 0.7, "val": 0.15, "test": 0.15}, abs=0.01)
