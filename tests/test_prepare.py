"""`bincount prepare`, as it is typed: what it writes, what it leaves out, and how it ends badly."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset as wds
from hypothesis import given, settings
from hypothesis import strategies as st
from killed_prepares import MOMENTS, WORDS
from making import encoded, jpeg, photo, prepare, record, write_photos, write_records

from bincount import cli, storage
from bincount.data.index import Index
from bincount.errors import BadInput

DRAWN = ["source.photos=40", "source.width=48", "source.height=40", "photos_per_shard=7"]
KNOWN = {f"{n:05d}": n % 6 for n in range(1, 31)}


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 photos with records: ``images`` and ``records``."""
    folder = tmp_path_factory.mktemp("known")
    write_photos(folder / "images", list(KNOWN))
    write_records(folder / "records", KNOWN)
    return folder


def rows(out: Path) -> dict[str, dict[str, Any]]:
    """The index, by id."""
    table = pq.read_table(out / "index.parquet").to_pylist()
    by_id = {row["id"]: row for row in table}
    assert len(by_id) == len(table)
    return by_id


def skipped(out: Path) -> dict[str, list[tuple[str, str]]]:
    """skipped.csv, by id: (file, reason)."""
    with (out / "skipped.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        assert reader.fieldnames == ["id", "file", "reason"]
        by_id = defaultdict(list)
        for row in reader:
            by_id[row["id"]].append((row["file"], row["reason"]))
        return dict(by_id)


def jpeg_of(out: Path, row: dict[str, Any]) -> bytes:
    return storage.read_range(out / row["shard"], row["jpeg_offset"], row["jpeg_length"])


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under the folder."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def splits_of_groups(out: Path) -> dict[str, set[str]]:
    found = defaultdict(set)
    for row in rows(out).values():
        found[row["group"]].add(row["split"])
    return found


class Complaint:
    """Runs commands that must end badly: exit code 2, one line, nothing left behind."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]):
        self._out, self._capsys = folder / "new" / "out", capsys

    def __call__(self, *words: str, out: Path | None = None) -> str:
        self._capsys.readouterr()
        assert prepare(out or self._out, *words) == 2
        assert not self._out.exists()
        assert not self._out.with_name(".out.partial").exists()
        told = self._capsys.readouterr()
        assert told.out == ""
        assert told.err.count("\n") == 1
        assert told.err.startswith("bincount: ")
        return told.err.removeprefix("bincount: ").strip()


@pytest.fixture
def complaint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Complaint:
    return Complaint(tmp_path, capsys)


# --- drawn bins ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("drawn") / "out"
    assert prepare(out, *DRAWN, "seed=3") == 0
    return out


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
def from_records(known: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("folder") / "out"
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
    assert skipped(tmp_path / "out") == {"00004": [("00004.jpg", "above max_count 5: the count is 12")]}


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


# --- what is left out, and why ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def messy_folder(known: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 30 known photos, among everything that can be wrong with a photo or a record."""
    folder = tmp_path_factory.mktemp("messy")
    images, records = folder / "images", folder / "records"
    shutil.copytree(known / "images", images)
    shutil.copytree(known / "records", records)
    write_photos(images, ["1", "no-record", "a.b", "a b"], 44)
    write_records(records, {"1": 2, "no-photo": 2, "a.b": 1, "a b": 1, "above": 6})
    bad_records = {
        "missing": json.dumps({"BIN_FCSKU_DATA": {}}),
        "negative": json.dumps(record(-1)),
        "fraction": json.dumps(record(2.5)),
        "text": json.dumps(record("three")),
        "invalid": '{"EXPECTED_QUANTITY": 3',
        "list": "[]",
        "empty-record": "",
    }
    for id, text in bad_records.items():
        (records / f"{id}.json").write_text(text)
    bad_photos = {
        "truncated": jpeg(seed=7)[:-50],
        "empty": b"",
        "html": b"<html>not found</html>",
        "gif": encoded(photo(), "GIF"),
    }
    for id, content in bad_photos.items():
        (images / f"{id}.jpg").write_bytes(content)
    (images / "broken-png.png").write_bytes(encoded(photo(), "PNG")[:200])
    (images / "above-png.PNG").write_bytes(encoded(photo(), "PNG"))
    write_records(records, {**dict.fromkeys(bad_photos, 3), "broken-png": 3, "above-png": 7})
    write_photos(images, [*bad_records, "above", "twice", "TWICE"])
    (images / "twice.png").write_bytes(encoded(photo(), "PNG"))
    (images / "TWICE.JPG").write_bytes(jpeg(seed=9))
    write_records(records, {"twice": 1, "TWICE": 1})
    (images / "notes.txt").write_text("not a photo")
    (images / ".hidden.jpg").write_bytes(jpeg())
    return folder


@pytest.fixture(scope="module")
def messy(messy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("messy-out") / "out"
    words = [f"source.images={messy_folder}/images", f"source.metadata={messy_folder}/records"]
    assert prepare(out, "source=folder", *words) == 0
    return out


@pytest.mark.parametrize(
    ("id", "file", "reason"),
    [
        ("no-record", "no-record.jpg", "the photo has no record"),
        ("no-photo", "no-photo.json", "the record has no photo"),
        ("missing", "missing.json", "EXPECTED_QUANTITY is missing"),
        ("negative", "negative.json", "EXPECTED_QUANTITY is -1, not 0 or more"),
        ("fraction", "fraction.json", "EXPECTED_QUANTITY is 2.5, not a whole number"),
        ("text", "text.json", 'EXPECTED_QUANTITY is "three", not a whole number'),
        ("invalid", "invalid.json", "invalid JSON: "),
        ("list", "list.json", "the record is [], not a mapping"),
        ("empty-record", "empty-record.json", "the file is empty"),
        ("truncated", "truncated.jpg", "unreadable photo: damaged or truncated"),
        ("empty", "empty.jpg", "unreadable photo: the file is empty (0 bytes)"),
        ("html", "html.jpg", "unreadable photo: not a JPEG or PNG"),
        ("gif", "gif.jpg", "unreadable photo: not a JPEG or PNG"),
        ("broken-png", "broken-png.png", "unreadable photo: a damaged PNG: "),
        ("above", "above.jpg", "above max_count 5: the count is 6"),
        ("above-png", "above-png.PNG", "above max_count 5: the count is 7"),
        ("a.b", "a.b.jpg", "the id has a dot"),
        ("a b", "a b.jpg", "the id has whitespace"),
        ("twice", "twice.jpg", "2 files have this id: twice.jpg, twice.png"),
        ("twice", "twice.png", "2 files have this id: twice.jpg, twice.png"),
        ("TWICE", "TWICE.JPG", "2 files have this id: TWICE.JPG, TWICE.jpg"),
    ],
)
def test_what_cannot_be_used_is_listed_with_its_reason(messy: Path, id: str, file: str, reason: str) -> None:
    assert id not in rows(messy)
    reasons = dict(skipped(messy)[id])
    assert reasons[file].startswith(reason)


def test_ids_that_differ_only_by_zero_padding_are_two_photos(messy: Path, known: Path) -> None:
    found = rows(messy)
    assert (found["1"]["count"], found["00001"]["count"]) == (2, 1)
    assert jpeg_of(messy, found["1"]) == jpeg(44, 32, 0)
    assert jpeg_of(messy, found["00001"]) == (known / "images" / "00001.jpg").read_bytes()


def test_ids_that_differ_only_by_zero_padding_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(tmp_path / "images", ["1", "00001", "2"])
    write_records(tmp_path / "records", {"1": 1, "00001": 2, "2": 3})
    words = [f"source.images={tmp_path}/images", f"source.metadata={tmp_path}/records"]
    assert prepare(tmp_path / "out", "source=folder", *words) == 0
    told = capsys.readouterr().out
    assert "1 times ids differ only by zero padding and are kept as different photos: 00001 and 1" in told


def test_good_photos_among_bad_ones_are_all_there(messy: Path) -> None:
    assert {id: row["count"] for id, row in rows(messy).items()} == {**KNOWN, "1": 2}


def test_every_photo_and_record_is_either_in_the_index_or_listed(messy: Path, messy_folder: Path) -> None:
    given_ids = {path.stem for path in messy_folder.glob("*/[!.]*") if path.suffix != ".txt"}
    assert rows(messy).keys() | skipped(messy).keys() == given_ids
    assert not rows(messy).keys() & skipped(messy).keys()


ids = st.lists(st.text("01ab. é", min_size=1, max_size=4), unique=True, min_size=1, max_size=8)
contents_of_photos = st.sampled_from([None, jpeg(), jpeg()[:-40], b"", encoded(photo(), "PNG")])
contents_of_records = st.sampled_from(
    [None, *(json.dumps(record(count)).encode() for count in (0, 3, 9, -1)), b"{", b""]
)
bins = ids.flatmap(
    lambda ids: st.fixed_dictionaries(
        {id: st.tuples(contents_of_photos, contents_of_records, st.booleans()) for id in ids}
    )
)


@settings(max_examples=40)
@given(bins, st.sampled_from(["skip", "class", "unlabelled"]))
def test_nothing_is_lost_whatever_is_in_the_folders(
    bins: dict[str, tuple[bytes | None, bytes | None, bool]], overflow: str
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        (folder / "records").mkdir()
        given_ids = set()
        for id, (content, text, twice) in bins.items():
            if content is not None:
                (folder / "images" / f"{id}.jpg").write_bytes(content)
                if twice:
                    (folder / "images" / f"{id}.jpeg").write_bytes(content)
            if text is not None:
                (folder / "records" / f"{id}.json").write_bytes(text)
            if content is not None or text is not None:
                # A name that starts with a dot is a hidden file, and belongs to nobody's photos.
                given_ids |= {id} - {id if id.startswith(".") else None}
        words = [f"source.images={folder}/images", f"source.metadata={folder}/records"]
        code = prepare(folder / "out", "source=folder", *words, f"overflow={overflow}")
        if code == 0:
            assert rows(folder / "out").keys() | skipped(folder / "out").keys() == given_ids
            assert not rows(folder / "out").keys() & skipped(folder / "out").keys()
        else:
            assert code == 2
            assert not (folder / "out").exists()


# --- what ends the command ----------------------------------------------------------------------------


def test_a_missing_folder_is_told(complaint: Complaint, known: Path, tmp_path: Path) -> None:
    assert complaint("source=folder", f"source.images={tmp_path}/no") == (
        f"source.images: there is no folder {tmp_path}/no"
    )
    words = ["source=folder", f"source.images={known}/images"]
    assert complaint(*words, f"source.metadata={tmp_path}/no") == (
        f"source.metadata: there is no folder {tmp_path}/no"
    )
    assert complaint(*words, f"source.labels={tmp_path}/no.csv").startswith(
        f"cannot read the labels {tmp_path}/no.csv"
    )
    assert complaint("source=folder") == "source.images is not given: add source.images=…"


def test_a_file_in_place_of_a_folder_is_told(complaint: Complaint, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert complaint("source=folder", f"source.images={tmp_path}/file") == (
        f"source.images: {tmp_path}/file is a file, and a folder is needed"
    )


def test_a_folder_without_photos_is_told(complaint: Complaint, known: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "notes.txt").touch()
    words = ["source=folder", f"source.images={tmp_path}/images", f"source.metadata={known}/records"]
    assert complaint(*words) == (
        f"source.images={tmp_path}/images: there are no photos in it (.jpg, .jpeg or .png)"
    )


def test_photos_without_any_record_are_told(complaint: Complaint, known: Path, tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    words = ["source=folder", f"source.images={known}/images"]
    assert complaint(*words, f"source.metadata={tmp_path}/records") == (
        f"source.metadata={tmp_path}/records: there are no records in it (ID.json)"
    )
    write_records(tmp_path / "records", {"others": 1})
    assert complaint(*words, f"source.metadata={tmp_path}/records") == (
        "no photo is left to prepare: the photo has no record (30); the record has no photo (1)"
    )


def test_records_of_which_none_can_be_used_are_told(
    complaint: Complaint, known: Path, tmp_path: Path
) -> None:
    write_records(tmp_path / "records", {"00001": -1, "00002": -1})
    words = ["source=folder", f"source.images={known}/images", f"source.metadata={tmp_path}/records"]
    assert complaint(*words) == (
        f"source.metadata={tmp_path}/records: there is no usable count in it: "
        "EXPECTED_QUANTITY is -1, not 0 or more (2)"
    )


def test_photos_without_anything_that_tells_their_counts_are_told(complaint: Complaint, known: Path) -> None:
    told = complaint("source=folder", f"source.images={known}/images")
    assert told.startswith(f"source.images={known}/images: nothing tells its photos' counts")


def test_a_tree_with_a_folder_that_is_no_count_is_told(complaint: Complaint, tmp_path: Path) -> None:
    write_photos(tmp_path / "tree" / "train" / "many", ["a"])
    assert complaint("source=folder", f"source.images={tmp_path}/tree") == (
        f"source.images={tmp_path}/tree: train/many is not named after a count"
    )


def test_photos_of_which_none_can_be_read_are_told(complaint: Complaint, tmp_path: Path) -> None:
    write_records(tmp_path / "records", {"1": 1, "2": 2})
    (tmp_path / "images").mkdir()
    for id in ("1", "2"):
        (tmp_path / "images" / f"{id}.jpg").touch()
    words = ["source=folder", f"source.images={tmp_path}/images", f"source.metadata={tmp_path}/records"]
    assert complaint(*words) == "not one photo could be read: unreadable photo (2)"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["split.train=0.8"], "the split ratios train=0.8, val=0.15, test=0.15 sum to 1.1"),
        (["split.train=-0.1"], "the split ratios train=-0.1, val=0.15, test=0.15 must all be 0 or more"),
        (["overflow=drop"], "overflow=drop: must be one of skip, class, unlabelled"),
        (["quality=0"], "quality=0: must be from 1 to 100"),
        (["photos_per_shard=0"], "photos_per_shard=0: must be 1 or above"),
        (["shortest_side=8"], "shortest_side=8: must be 16 or above"),
        (["source.photos=0"], "source.photos=0: must be 1 or above"),
        (["source.difficulty=2"], "source.difficulty=2.0: must be from 0 to 1"),
        (["out=s3://bucket/data"], "s3://bucket/data is not a folder"),
    ],
)
def test_a_value_out_of_its_range_is_told(complaint: Complaint, words: list[str], told: str) -> None:
    assert complaint(*words).startswith(told)


# --- where it is written ------------------------------------------------------------------------------


def test_a_folder_with_other_files_is_refused(complaint: Complaint, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    told = f"out={tmp_path}/mine has other files in it: name an empty or a new folder"
    assert complaint(out=tmp_path / "mine") == told
    assert complaint("overwrite=true", out=tmp_path / "mine") == told
    assert contents(tmp_path / "mine") == {"thesis.txt": b"all of it"}


def test_a_file_is_refused(complaint: Complaint, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("all of it")
    assert complaint(out=tmp_path / "mine") == f"out={tmp_path}/mine is a file: name a folder"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert prepare(tmp_path / "out", *WORDS[:3]) == 0
    assert len(rows(tmp_path / "out")) == 12


def test_a_data_set_is_not_replaced_unasked(complaint: Complaint, drawn: Path) -> None:
    before = contents(drawn)
    assert complaint(*DRAWN, out=drawn) == (
        f"out={drawn} is a data set already: name another folder, or add overwrite=true"
    )
    assert contents(drawn) == before


def test_a_data_set_is_replaced_when_asked_and_only_by_a_whole_one(
    complaint: Complaint, drawn: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(drawn, tmp_path / "out"))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.jpg").touch()
    write_records(tmp_path / "records", {"1": 1})
    words = ["source=folder", f"source.images={tmp_path}/images", f"source.metadata={tmp_path}/records"]
    complaint(*words, "overwrite=true", out=out)
    assert contents(out) == contents(drawn)
    write_photos(tmp_path / "images", ["1"])
    assert prepare(out, *words, "overwrite=true") == 0
    assert set(rows(out)) == {"1"}
    assert not (out / "val").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"out", "images", "records"}


def test_replacing_a_data_set_never_takes_other_files_away(
    complaint: Complaint, drawn: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(drawn, tmp_path / "out"))
    write_photos(out / "photos", ["1"])
    before = contents(out)
    assert complaint(*DRAWN, "overwrite=true", out=out) == (
        f"out={out} has other files in it: name an empty or a new folder"
    )
    assert contents(out) == before


def test_a_data_set_behind_a_link_is_replaced_where_it_is(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    shutil.copytree(drawn, tmp_path / "disk" / "data")
    (tmp_path / "data").symlink_to(tmp_path / "disk" / "data")
    assert prepare(tmp_path / "data", *WORDS) == 0
    assert (tmp_path / "data").is_symlink()
    assert len(rows(tmp_path / "disk" / "data")) == 12
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "data"}
    assert {path.name for path in (tmp_path / "disk").iterdir()} == {"data"}


# --- killed -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    program = Path(__file__).with_name("killed_prepares.py")
    subprocess.run([sys.executable, str(program), str(folder)], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_prepare_leaves_nothing_that_is_taken_for_a_data_set(killed: Path, moment: str) -> None:
    out = killed / moment / "fresh"
    if moment == "between the renames":  # a new data set has but one
        assert len(rows(out)) == 12
        return
    with pytest.raises(BadInput):
        Index.open(str(out))
    assert not out.exists()
    assert prepare(out, *WORDS, "seed=2") == 0
    assert len(rows(out)) == 12
    assert [path.name for path in out.parent.iterdir() if "fresh" in path.name] == ["fresh"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_prepare_killed_while_replacing_leaves_the_data_set_that_was_there(
    killed: Path, moment: str
) -> None:
    out = killed / moment / "again"
    if moment == "between the renames":  # it stands beside its place, and the next writer puts it back
        assert not out.exists()
        with pytest.raises(RuntimeError), storage.folder_written_whole(out):
            raise RuntimeError
    index = Index.open(str(out))
    assert index.summary["source"]["seed"] == 1
    for split in index.splits:
        for shard in index.summary["splits"][split]["shards"]:
            assert storage.sha256(out / shard["name"]) == f"sha256:{shard['sha256']}"
    assert prepare(out, *WORDS, "seed=2") == 0
    assert Index.open(str(out)).summary["source"]["seed"] == 2
    assert [path.name for path in out.parent.iterdir() if "again" in path.name] == ["again"]


def test_a_killed_prepare_takes_its_workers_with_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bincount", "prepare", "source.photos=100000", "workers=2"]
    process = subprocess.Popen(
        [*command, f"out={tmp_path}/out"],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: any((tmp_path / ".out.partial").rglob("*.tar")))
        assert len(members(process.pid)) > 2
        process.kill()
        process.wait()
        wait_for(lambda: not members(process.pid))
    finally:
        if members(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
    assert not (tmp_path / "out").exists()


def wait_for(happened: Any, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.05)


def members(session: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(its_session) == session and state != "Z":
            found.append(int(path.parent.name))
    return found


# --- shards made elsewhere ----------------------------------------------------------------------------


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """14 photos with counts 0 to 6 in two shards of another program."""
    (tmp_path / "out" / "train").mkdir(parents=True)
    for shard in range(2):
        with wds.TarWriter(str(tmp_path / "out" / "train" / f"their-{shard}.tar")) as tar:
            for count in range(7):
                tar.write({"__key__": f"{shard}{count}", "jpg": jpeg(seed=count), "cls": count})
    return tmp_path / "out"


def test_foreign_shards_are_indexed_where_they_are(foreign: Path) -> None:
    before = contents(foreign)
    assert prepare(foreign, "source=shards") == 0
    assert {id: row["count"] for id, row in rows(foreign).items()} == {
        f"{shard}{count}": count for shard in range(2) for count in range(6)
    }
    assert skipped(foreign)["16"] == [("train/their-1.tar", "above max_count 5: the count is 6")]
    for row in rows(foreign).values():
        assert jpeg_of(foreign, row) == jpeg(seed=row["count"])
    after = contents(foreign)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {"index.json", "index.parquet", "skipped.csv"}


def test_foreign_counts_above_the_highest_can_go_without_labels(foreign: Path) -> None:
    assert prepare(foreign, "source=shards", "overflow=unlabelled") == 0
    index = Index.open(str(foreign))
    assert index.splits == ["train", "unlabelled"]
    assert index.split("unlabelled").id.to_pylist() == ["06", "16"]
    assert {rows(foreign)[id]["count"] for id in ("06", "16")} == {None}
    assert index.split("train").count.max() == 5


def test_foreign_counts_above_the_highest_can_be_a_class(foreign: Path) -> None:
    assert prepare(foreign, "source=shards", "overflow=class") == 0
    assert Index.open(str(foreign)).photos_per_count("train")["more"] == 2


def test_an_id_in_two_foreign_shards_is_used_once_and_listed(foreign: Path) -> None:
    (foreign / "val").mkdir()
    shutil.copy(foreign / "train" / "their-1.tar", foreign / "val")
    assert prepare(foreign, "source=shards") == 0
    assert len(rows(foreign)) == 12
    assert ("val/their-1.tar", "the id again, as in train/their-1.tar") in skipped(foreign)["10"]


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100, None])
def test_a_foreign_shard_that_is_no_whole_tar_is_told(
    foreign: Path, complaint: Complaint, content: bytes | None
) -> None:
    shard = foreign / "train" / "their-1.tar"
    shard.write_bytes(shard.read_bytes()[:3000] if content is None else content)
    assert complaint("source=shards", out=foreign).startswith(f"{shard} is no whole tar file: ")
    assert not (foreign / "index.json").exists()


def test_a_folder_without_foreign_shards_is_told(complaint: Complaint, tmp_path: Path) -> None:
    assert complaint("source=shards", out=tmp_path / "no") == f"out: there is no folder {tmp_path}/no"
    (tmp_path / "empty").mkdir()
    assert complaint("source=shards", out=tmp_path / "empty") == (
        f"out={tmp_path}/empty: there are no shards in it: put them in train/*.tar, val/*.tar, test/*.tar"
    )


def test_foreign_shards_without_counts_are_told(foreign: Path, complaint: Complaint) -> None:
    for path in foreign.rglob("*.tar"):
        with wds.TarWriter(str(path)) as tar:
            tar.write({"__key__": "a", "jpg": jpeg()})
    assert complaint("source=shards", out=foreign) == (
        f"out={foreign}: not one sample of its shards can be used: has no count (2)"
    )


def test_foreign_shards_are_never_replaced(foreign: Path, complaint: Complaint) -> None:
    told = f"out={foreign} has other files in it: name an empty or a new folder"
    assert complaint("overwrite=true", out=foreign) == told
    assert prepare(foreign, "source=shards") == 0
    before = contents(foreign)
    told = f"out={foreign} has shards that were made elsewhere: name an empty or a new folder"
    assert complaint("overwrite=true", out=foreign) == told
    assert contents(foreign) == before
    assert complaint("source=shards", out=foreign).startswith(f"out={foreign} is a data set already")
    assert prepare(foreign, "source=shards", "overwrite=true") == 0


# --- the real photos ----------------------------------------------------------------------------------


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
