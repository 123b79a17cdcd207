"""`bincount prepare source.images=null`: records become tables, and nothing else."""

import csv
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import NewFolder
from hypothesis import given, settings
from hypothesis import strategies as st
from making import KNOWN, Complaint, prepare, record, write_photos, write_records
from reading import contents, rows, skipped

from bincount import cli
from bincount.data import tables
from bincount.data.records import BINS_SCHEMA, ITEMS_SCHEMA, parse_record

TABLES = {"bins": BINS_SCHEMA, "items": ITEMS_SCHEMA}


def words(records: Path) -> list[str]:
    """What makes tables of the records, and nothing else."""
    return ["source=folder", "source.images=null", f"source.metadata={records}"]


def table(out: Path, name: str) -> pa.Table:
    """All parts of a table, in the order of their names."""
    return pa.concat_tables([pq.read_table(path) for path in sorted((out / "tables" / name).iterdir())])


def parts(out: Path) -> list[str]:
    return sorted(name for name in contents(out) if name.startswith("tables/"))


# --- what is written ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def holes(new_folder: NewFolder) -> Path:
    """Five records: one whole, one with every hole there is, an empty bin, one flagged, one unusable."""
    folder = new_folder("holes")
    sides = {"height": 1.5, "length": 4, "width": 3}
    whole = {side: {"unit": "IN", "value": value} for side, value in sides.items()}
    whole |= {"weight": {"unit": "pounds", "value": 0.25}, "name": "a mug", "normalizedName": "mug"}
    hole = dict.fromkeys(whole)
    for id, items, count in [
        ("00001", {"A": {"asin": "A", "quantity": 2, **whole}, "B": {"quantity": 1, **hole}}, 3),
        ("00002", {"A": {"asin": "A", "quantity": 4}}, 4),
        ("00003", {}, 0),
        ("1", {"C": {"asin": "C", "quantity": 1}}, 2),
        ("bad", {}, -1),
    ]:
        (folder / f"{id}.json").write_text(json.dumps({"BIN_FCSKU_DATA": items, "EXPECTED_QUANTITY": count}))
    return folder


def test_without_photos_there_are_tables_and_what_was_left_out_and_nothing_else(
    holes: Path, tmp_path: Path
) -> None:
    assert prepare(tmp_path / "out", *words(holes)) == 0
    assert contents(tmp_path / "out").keys() == {
        "skipped.csv",
        "tables/bins/part-000000.parquet",
        "tables/items/part-000000.parquet",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert skipped(tmp_path / "out") == {"bad": [("bad.json", "EXPECTED_QUANTITY is -1, not 0 or more")]}


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_snappy_with_the_schema_that_was_promised(holes: Path, tmp_path: Path, name: str) -> None:
    assert prepare(tmp_path / "out", *words(holes)) == 0
    for path in (tmp_path / "out" / "tables" / name).iterdir():
        assert pq.read_schema(path).equals(TABLES[name])
        groups = pq.ParquetFile(path).metadata
        compressions = {
            groups.row_group(group).column(column).compression
            for group in range(groups.num_row_groups)
            for column in range(groups.num_columns)
        }
        assert compressions == {"SNAPPY"}


def test_a_row_a_bin_and_a_row_an_item_with_nulls_for_holes(holes: Path, tmp_path: Path) -> None:
    assert prepare(tmp_path / "out", *words(holes)) == 0
    columns = ["id", "expected_quantity", "distinct_items", "quantity_sum", "quantity_differs"]
    bins = table(tmp_path / "out", "bins")
    assert bins.column_names == columns
    assert [tuple(row.values()) for row in bins.to_pylist()] == [
        ("00001", 3, 2, 3, False),
        ("00002", 4, 1, 4, False),
        ("00003", 0, 0, 0, False),
        ("1", 2, 1, 1, True),
    ]
    nulls = [None] * 4
    assert [tuple(row.values()) for row in table(tmp_path / "out", "items").to_pylist()] == [
        ("00001", "A", "a mug", "mug", 2, 1.5, 4.0, 3.0, 0.25),
        ("00001", "B", None, None, 1, *nulls),
        ("00002", "A", None, None, 4, *nulls),
        ("1", "C", None, None, 1, *nulls),
    ]


def test_it_is_told_what_the_tables_hold_and_what_was_left_out(
    holes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(tmp_path / "out", *words(holes)) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert told.out.splitlines() == [
        f"{tmp_path}/out/tables: 4 bins, 4 items, 1 flagged: their quantity is not the sum of their items'",
        f"1 left out, each with its reason in {tmp_path}/out/skipped.csv: "
        "EXPECTED_QUANTITY is -1, not 0 or more (1)",
    ]


@pytest.mark.parametrize("counts", [{"1": -1, "2": "two"}, {"a b": 1, "c.d": 2}])
def test_records_of_which_none_can_be_used_give_empty_tables(counts: dict[str, Any], tmp_path: Path) -> None:
    write_records(tmp_path / "records", counts)
    assert prepare(tmp_path / "out", *words(tmp_path / "records")) == 0
    for name, schema in TABLES.items():
        assert table(tmp_path / "out", name).equals(schema.empty_table())
    assert skipped(tmp_path / "out").keys() == counts.keys()


def test_tables_alone_are_those_of_a_data_set_with_photos(known: Path, tmp_path: Path) -> None:
    photos = ["source=folder", f"source.images={known}/images", f"source.metadata={known}/records"]
    assert prepare(tmp_path / "whole", *photos) == 0
    assert prepare(tmp_path / "alone", *words(known / "records")) == 0
    alone, whole = contents(tmp_path / "alone"), contents(tmp_path / "whole")
    assert {name: whole[name] for name in alone} == alone
    assert sorted(alone) == ["skipped.csv", *parts(tmp_path / "whole")]


def test_a_list_gives_the_tables_of_its_records_and_loses_none_of_its_rows(
    known: Path, tmp_path: Path
) -> None:
    (tmp_path / "list.csv").write_text("id,count\n00003,3\n00001,1\n00099,2\n00002,two\na b,1\n")
    listed = ["source=s3", f"source.bucket={known}", "source.images=null", "source.metadata=records"]
    assert prepare(tmp_path / "out", *listed, f"source.list={tmp_path}/list.csv") == 0
    assert table(tmp_path / "out", "bins")["id"].to_pylist() == ["00001", "00003"]
    left_out = skipped(tmp_path / "out")
    assert {id: [file for file, _ in told] for id, told in left_out.items()} == {
        "00099": ["00099.json"],
        "00002": ["list.csv:5"],
        "a b": ["list.csv:6"],
    }


# --- nothing is lost ----------------------------------------------------------------------------------

GOOD = [json.dumps(record(count)).encode() for count in (0, 1, 88)]
BAD = [b"", b" \n", b"{", b"\xff", b"[]", b"{}", *(json.dumps(record(count)).encode() for count in (-1, "2"))]

#: What may stand in an id, and what may not: a newline, a return, a byte that is no Unicode, a dot, a space.
ids = st.text('01a,"é\n\r\udcff. ', min_size=1, max_size=4)
names = st.tuples(ids, st.sampled_from([".json", ".JSON", ".txt"])).map("".join)
folders = st.dictionaries(names, st.sampled_from([*GOOD, *BAD, None]), min_size=1, max_size=9)


@pytest.mark.slow
@settings(max_examples=25)
@given(folders, st.integers(1, 5))
def test_every_record_ends_in_the_tables_or_is_listed(
    folder: dict[str, bytes | None], records_per_part: int
) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patched:
        patched.setattr(tables, "RECORDS_PER_PART", records_per_part)
        records, out = Path(name, "records"), Path(name, "out")
        records.mkdir()
        for file, content in folder.items():
            if content is None:
                (records / file).mkdir()
            else:
                (records / file).write_bytes(content)
        # Hidden files, folders and other files are nobody's records.
        given_names = {
            file: content
            for file, content in folder.items()
            if content is not None and file.lower().endswith(".json") and not file.startswith(".")
        }
        code = prepare(out, *words(records))
        assert code == (0 if given_names else 2)
        assert out.exists() == bool(given_names)
        assert [path.name for path in Path(name).iterdir() if path.name.startswith(".")] == []
        if code == 0:
            check_nothing_is_lost(out, given_names)


def check_nothing_is_lost(out: Path, given_names: dict[str, bytes]) -> None:
    same = Counter(file[:-5] for file in given_names)
    good, bad = [], []
    for file, content in given_names.items():
        id = file[:-5]
        usable = same[id] == 1 and set(id) <= set('01a,"é') and content in GOOD
        (good if usable else bad).append(id if usable else file)
    bins = table(out, "bins")
    assert sorted(bins["id"].to_pylist()) == sorted(good)
    assert set(table(out, "items")["id"].to_pylist()) <= set(good)
    with (out / "skipped.csv").open(newline="") as file:
        listed = [row["file"] for row in csv.DictReader(file)]
    assert sorted(listed) == sorted(map(escaped, bad))


def escaped(name: str) -> str:
    """A name as it stands in skipped.csv."""
    return name.replace("\r", "\\r").encode("utf-8", "backslashreplace").decode()


# --- several parts ------------------------------------------------------------------------------------


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    """30 good records among four that cannot be used."""
    write_records(tmp_path / "records", {**KNOWN, "00011x": -1, "no": "three", "two.dots": 1, "ünï": 2.5})
    return tmp_path / "records"


@pytest.mark.parametrize("size", [1, 7, 33, 34])
def test_parts_one_after_the_other_equal_one_part(
    messy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    assert prepare(tmp_path / "one", *words(messy)) == 0
    monkeypatch.setattr(tables, "RECORDS_PER_PART", size)
    assert prepare(tmp_path / "parts", *words(messy)) == 0
    number = -(-33 // size)  # of the 34 records the one with dots has no usable id
    assert parts(tmp_path / "parts") == [
        f"tables/{name}/part-{n:06d}.parquet" for name in TABLES for n in range(number)
    ]
    for name in TABLES:
        assert table(tmp_path / "parts", name).equals(table(tmp_path / "one", name))
    assert (tmp_path / "parts" / "skipped.csv").read_bytes() == (
        tmp_path / "one" / "skipped.csv"
    ).read_bytes()


def test_the_parts_of_the_tables_change_no_split_and_no_shard(
    known: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = ["source=folder", f"source.images={known}/images", f"source.metadata={known}/records"]
    assert prepare(tmp_path / "one", *photos) == 0
    monkeypatch.setattr(tables, "RECORDS_PER_PART", 4)
    assert prepare(tmp_path / "parts", *photos) == 0
    one, several = (
        {name: content for name, content in contents(tmp_path / out).items() if "tables/" not in name}
        for out in ("one", "parts")
    )
    assert several == one
    assert len(parts(tmp_path / "parts")) == 16


#: Runs the command in children, each killed one call later than the one before, until one comes to its end.
#: Child n writes to FOLDER/OWNER.NAME-n/out.
KILLING = """
import os, sys
from pathlib import Path
from killed_prepares import kill_at
from bincount import cli, compose
from bincount.data import tables
from bincount.storage import Folder

folder, *words = sys.argv[1:]
tables.RECORDS_PER_PART = 12
compose.groups("prepare")
for owner, name in [(os, "replace"), (Folder, "delete"), (Path, "rename")]:
    code, call = -9, 0
    while code == -9:
        call += 1
        out = Path(folder, f"{owner.__name__}.{name}-{call}", "out")
        out.parent.mkdir(parents=True)
        child = os.fork()
        if child == 0:
            kill_at(owner, name, call)
            os._exit(cli.main(["prepare", f"out={out}", *words]))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0, code
"""


@pytest.mark.slow
def test_tables_killed_at_any_step_go_on_and_end_the_same(
    messy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "RECORDS_PER_PART", 12)
    assert prepare(tmp_path / "whole", *words(messy)) == 0
    uninterrupted = contents(tmp_path / "whole")
    folder = tmp_path / "killed"
    command = [sys.executable, "-c", KILLING, str(folder), *words(messy)]
    subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parent)
    killed = sorted(path.name for path in folder.iterdir())
    steps = Counter(name.partition("-")[0] for name in killed)
    # Three parts with two files and a note each, before them the arguments and the list,
    # after them skipped.csv; each step once more than it is taken.
    assert steps == {"os.replace": 13, "Folder.delete": 3, "Path.rename": 2}
    for name in killed:
        assert prepare(folder / name / "out", *words(messy)) == (2 if is_last(name, steps) else 0)
        assert contents(folder / name / "out") == uninterrupted
        assert [path.name for path in (folder / name).iterdir()] == ["out"]


def is_last(name: str, steps: Counter[str]) -> bool:
    """Whether nobody was killed there: the tables were whole."""
    step, _, call = name.partition("-")
    return int(call) == steps[step]


def test_a_killed_prepare_does_not_read_the_records_of_whole_parts_again(
    known: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "RECORDS_PER_PART", 7)
    read: list[str] = []

    def reading(id: str, content: bytes) -> object:
        read.append(id)
        if len(read) == 24:
            raise KeyboardInterrupt
        return parse_record(id, content)

    monkeypatch.setattr(tables, "parse_record", reading)
    assert prepare(tmp_path / "out", *words(known / "records")) == 130
    assert not (tmp_path / "out").exists()
    assert prepare(tmp_path / "out", *words(known / "records")) == 0
    ids = list(KNOWN)
    assert read == ids[:24] + ids[21:]


# --- where they are written ---------------------------------------------------------------------------


def test_tables_alone_are_not_replaced_unasked(complaint: Complaint, known: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert prepare(out, *words(known / "records")) == 0
    before = contents(out)
    write_records(tmp_path / "others", {"1": 1})
    photos = ["source=folder", f"source.images={known}/images", f"source.metadata={known}/records"]
    for others in (words(tmp_path / "others"), words(known / "records"), photos, []):
        assert complaint(*others, out=out) == (
            f"out={out} has tables already: name another folder, or add overwrite=true"
        )
        assert contents(out) == before
        assert not (tmp_path / ".out.partial").exists()


def test_tables_alone_are_replaced_when_asked_and_no_old_part_stays(
    known: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as small:
        small.setattr(tables, "RECORDS_PER_PART", 7)
        assert prepare(out, *words(known / "records")) == 0
    assert len(parts(out)) == 10
    write_records(tmp_path / "others", {"1": 1})
    assert prepare(out, *words(tmp_path / "others"), "overwrite=true") == 0
    assert table(out, "bins")["id"].to_pylist() == ["1"]
    assert len(parts(out)) == 2
    write_photos(tmp_path / "images", ["1"])
    photos = ["source=folder", f"source.images={tmp_path}/images", f"source.metadata={tmp_path}/others"]
    assert prepare(out, *photos, "overwrite=true") == 0
    assert rows(out).keys() == {"1"}
    assert {path.name for path in tmp_path.iterdir()} == {"out", "others", "images"}


def test_tables_that_cannot_be_made_replace_none(complaint: Complaint, known: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert prepare(out, *words(known / "records")) == 0
    before = contents(out)
    (tmp_path / "empty").mkdir()
    complaint(*words(tmp_path / "empty"), "overwrite=true", out=out)
    assert contents(out) == before
    assert not (tmp_path / ".out.partial").exists()


def test_a_data_set_is_not_replaced_by_tables_unasked(complaint: Complaint, drawn: Path, known: Path) -> None:
    before = contents(drawn)
    assert complaint(*words(known / "records"), out=drawn) == (
        f"out={drawn} is a data set already: name another folder, or add overwrite=true"
    )
    assert contents(drawn) == before


def test_tables_killed_when_all_but_the_tidying_was_done_are_not_replaced_unasked(
    complaint: Complaint, known: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as killed:
        killed.setattr("bincount.prepare._tell", None)
        killed.setattr("bincount.prepare.ARGUMENTS", "no-such-file")
        assert prepare(out, *words(known / "records")) == 1
    assert (out / ".prepare" / "arguments.json").exists()
    before = contents(out)
    write_records(tmp_path / "others", {"1": 1})
    assert complaint(*words(tmp_path / "others"), out=out) == (
        f"out={out} has tables already: name another folder, or add overwrite=true"
    )
    assert contents(out) == before
    assert prepare(out, *words(known / "records")) == 0
    assert contents(out).keys() == {"skipped.csv", *parts(out)}


def test_neither_photos_nor_records_are_told(complaint: Complaint, known: Path) -> None:
    told = "there is nothing to prepare: give source.images=…, source.metadata=…, or both"
    assert complaint("source=folder", "source.images=null") == told
    assert (
        complaint("source=s3", f"source.bucket={known}", "source.images=null", "source.metadata=null") == told
    )


def test_a_folder_without_records_is_told(complaint: Complaint, tmp_path: Path) -> None:
    assert complaint(*words(tmp_path / "no")) == f"source.metadata: there is no folder {tmp_path}/no"
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "notes.txt").touch()
    assert complaint(*words(tmp_path / "records")) == (
        f"source.metadata={tmp_path}/records: there are no records in it (ID.json)"
    )


# --- the real records ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(abid_records: Path, new_folder: NewFolder) -> Path:
    out = new_folder("real") / "out"
    assert cli.main(["prepare", *words(abid_records), f"out={out}"]) == 0
    return out


@pytest.mark.slow
@pytest.mark.abid
def test_every_real_record_is_in_the_tables(real: Path, abid_records: Path) -> None:
    assert skipped(real) == {}
    bins, items = table(real, "bins"), table(real, "items")
    assert bins["id"].to_pylist() == sorted(path.stem for path in abid_records.iterdir())
    assert (len(bins), len(items)) == (10_677, 28_144)
    assert {name: items[name].null_count for name in items.column_names if items[name].null_count} == {
        "name": 4,
        "normalized_name": 44,
        "height_in": 46,
        "length_in": 46,
        "width_in": 46,
        "weight_lb": 606,
    }


@pytest.mark.abid
def test_the_six_real_bins_with_another_sum_are_flagged(real: Path) -> None:
    flagged = table(real, "bins").filter(pc.field("quantity_differs")).to_pylist()
    assert [(row["id"], row["expected_quantity"], row["quantity_sum"]) for row in flagged] == [
        ("01405", 5, 4),
        ("01406", 6, 5),
        ("02081", 2, 1),
        ("02082", 4, 3),
        ("09032", 3, 1),
        ("09033", 4, 2),
    ]


@pytest.mark.abid
def test_real_records_in_parts_equal_those_in_one(
    real: Path, abid_records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "RECORDS_PER_PART", 1000)
    assert prepare(tmp_path / "out", *words(abid_records)) == 0
    assert len(parts(tmp_path / "out")) == 22
    for name in TABLES:
        assert table(tmp_path / "out", name).equals(table(real, name))


def test_records_that_come_while_a_draft_is_half_made_are_neither_mixed_in_nor_counted_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "RECORDS_PER_PART", 2)
    write_records(tmp_path / "records", {"1": 1, "2": 2, "3": 3, "4": 4})
    words = ["source=folder", "source.images=null", f"source.metadata={tmp_path}/records"]
    with monkeypatch.context() as failing:
        failing.setattr(tables, "_piece", lambda number: {0: "tables/part-000000"}[number])
        assert prepare(tmp_path / "out", *words) == 1
    write_records(tmp_path / "records", {"0": 5})
    assert prepare(tmp_path / "out", *words) == 0
    assert pq.read_table(tmp_path / "out/tables/bins")["id"].to_pylist() == ["1", "2", "3", "4"]
