"""`bincount prepare`: what it leaves out and lists, and what ends it."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest
from conftest import NewFolder
from hypothesis import given, settings
from hypothesis import strategies as st
from making import KNOWN, Complaint, encoded, jpeg, photo, prepare, record, write_photos, write_records
from reading import jpeg_of, rows, skipped

# --- what is left out, and why ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def messy_folder(known: Path, new_folder: NewFolder) -> Path:
    """The 30 known photos, among everything that can be wrong with a photo or a record."""
    folder = new_folder("messy")
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
def messy(messy_folder: Path, new_folder: NewFolder) -> Path:
    out = new_folder("messy-out") / "out"
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


@pytest.mark.slow
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
        f"cannot read the labels: there is no {tmp_path}/no.csv"
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
        (["out=ftp://bucket/data"], "ftp://bucket/data is no address: give a folder, or s3://bucket/prefix"),
    ],
)
def test_a_value_out_of_its_range_is_told(complaint: Complaint, words: list[str], told: str) -> None:
    assert complaint(*words).startswith(told)
