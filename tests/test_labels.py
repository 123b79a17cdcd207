"""Label files in each format, ids that cannot be used, and the list of what was left out."""

import csv
from collections import Counter
from pathlib import Path
from random import Random

import orjson
import pytest
from conftest import NewFolder
from hypothesis import example, given
from hypothesis import strategies as st

from bincount.data.ids import ID_BYTES, id_order, id_problem, id_series
from bincount.data.labels import Label, read_labels
from bincount.data.skipped import Skipped, as_csv, from_csv
from bincount.errors import BadInput


@pytest.fixture(scope="module")
def folder(new_folder: NewFolder) -> Path:
    return new_folder("labels")


def read(folder: Path, content: str | bytes, name: str = "labels.csv") -> tuple[list[Label], list[Skipped]]:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_labels(str(path))


def complaint(folder: Path, content: str | bytes) -> str:
    with pytest.raises(BadInput) as caught:
        read(folder, content)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"the labels {folder / 'labels.csv'} ")


def test_csv(folder: Path) -> None:
    labels, skipped = read(folder, "id,count,group\r\n00001,12,a\r\n1,0,\r\n")
    assert labels == [Label("00001", 12, "a"), Label("1", 0, None)]
    assert skipped == []


def test_csv_without_groups_with_a_bom_blank_lines_and_other_columns(folder: Path) -> None:
    labels, skipped = read(folder, '\ufeffcount, seen ,id\n3,"a,\nb",007\n\n4.0,,008\n')
    assert labels == [Label("007", 3, None), Label("008", 4, None)]
    assert skipped == []


def test_csv_rows_that_are_left_out(folder: Path) -> None:
    rows = [
        "a,1",
        "b,",
        "c",
        "d,-1",
        "e,2.5",
        "f,two",
        ",3",
        "g.h,4",
        "i/j,5",
        "k ,6",
        "l,7,8",
        "m,99999999999",
    ]
    labels, skipped = read(folder, "id,count\n" + "\n".join(rows))
    assert labels == [Label("a", 1, None)]
    assert [(row.id, row.reason) for row in skipped] == [
        ("b", "count is missing"),
        ("c", "count is missing"),
        ("d", "count is -1, not 0 or more"),
        ("e", "count is 2.5, not a whole number"),
        ("f", 'count is "two", not a whole number'),
        ("", "the id is empty"),
        ("g.h", "the id has a dot, which ends a WebDataset key"),
        ("i/j", "the id has a slash"),
        ("k ", "the id has whitespace or an unprintable character"),
        ("l", "the row has 3 cells, the header 2"),
        ("m", "count is 99999999999, too large for a count"),
    ]
    assert [row.file for row in skipped] == [f"labels.csv:{line}" for line in range(3, 14)]


def test_an_id_that_stands_there_again(folder: Path) -> None:
    labels, skipped = read(folder, "id,count\na,1\nb,2\na,1\nb,3\nb,2\n1,4\n01,5\nc,x\nc,6\n")
    assert labels == [Label("a", 1, None), Label("1", 4, None), Label("01", 5, None), Label("c", 6, None)]
    assert skipped == [
        Skipped("c", "labels.csv:9", 'count is "x", not a whole number'),
        Skipped("a", "labels.csv:4", "the id again, as in labels.csv:2"),
        Skipped("b", "labels.csv:3", "the id has different counts: 2, 3"),
        Skipped("b", "labels.csv:5", "the id has different counts: 2, 3"),
        Skipped("b", "labels.csv:6", "the id has different counts: 2, 3"),
    ]


def test_json_paths_by_count(folder: Path) -> None:
    text = (
        '{"1": ["data/metadata/100313.json", "1.json"], "2": ["00001.json", 7, "a.b.json"], "x": ["3.json"]}'
    )
    labels, skipped = read(folder, text, "list.json")
    assert labels == [Label("100313", 1, None), Label("1", 1, None), Label("00001", 2, None)]
    assert skipped == [
        Skipped("", 'list.json["2"][1]', "the path is not a text"),
        Skipped("a.b", 'list.json["2"][2]', "the id has a dot, which ends a WebDataset key"),
        Skipped("3", 'list.json["x"][0]', 'count is "x", not a whole number'),
    ]


def test_json_pairs_of_2018(folder: Path) -> None:
    text = "[[0, 3], [99999, 0], [1], [-1, 2], [true, 2], [7, null], [8, 1.5], [9, 2.0], [9, 1]]"
    labels, skipped = read(folder, text, "train.json")
    assert labels == [Label("00001", 3, None), Label("100000", 0, None)]
    assert skipped == [
        Skipped("", "train.json[2]", "the entry has 1 values, not [index, count]"),
        Skipped("", "train.json[3]", "the index is -1, not 0 or more"),
        Skipped("", "train.json[4]", "the index is true, not a whole number"),
        Skipped("00008", "train.json[5]", "count is null, not a whole number"),
        Skipped("00009", "train.json[6]", "count is 1.5, not a whole number"),
        Skipped("00010", "train.json[7]", "the id has different counts: 1, 2"),
        Skipped("00010", "train.json[8]", "the id has different counts: 1, 2"),
    ]


def test_a_file_in_no_known_format(folder: Path) -> None:
    assert complaint(folder, "photo,label\n1,2\n").startswith(
        "have the columns 'photo,label': wanted a CSV with"
    )
    assert complaint(folder, "").startswith("have the columns '': wanted")
    assert complaint(folder, "id,count,count\n1,2,3\n") == "name a column twice, 'id,count,count': keep one"
    assert complaint(folder, '{"EXPECTED_QUANTITY": 3}').startswith("are JSON of another shape: wanted a CSV")
    assert complaint(folder, "[1, 2]").startswith("are JSON of another shape")
    assert complaint(folder, '{"1": [').startswith("are invalid JSON: unexpected end of data: line 1")
    assert complaint(folder, b"id,count\nk\xfcche,1\n") == "are not UTF-8 at line 2: save them as UTF-8"
    assert complaint(folder, 'id,count\n1,2\n"3,4\n5,6\n').startswith("are no valid CSV at line 4: ")


def test_a_file_that_cannot_be_read(folder: Path) -> None:
    with pytest.raises(BadInput, match=r"^cannot read the labels: there is no .*none\.csv$"):
        read_labels(str(folder / "none.csv"))
    with pytest.raises(BadInput, match=r"Is a directory$"):
        read_labels(str(folder))


ids = st.text(st.sampled_from('01a.ü/ \n,"'), max_size=4)
counts = st.sampled_from(["0", "1", "2", "-1", "", "1.5", "x"])


@given(st.lists(st.tuples(ids, counts), max_size=12))
def test_every_csv_row_is_a_label_or_skipped(tmp_rows: Path, rows: list[tuple[str, str]]) -> None:
    with tmp_rows.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "count"), *rows])
    labels, skipped = read_labels(str(tmp_rows))
    found = [label.id for label in labels]
    assert len(labels) + len(skipped) == len(rows)
    assert len(set(found)) == len(found)
    assert not any(id_problem(id) for id in found)
    assert {(label.id, str(label.count)) for label in labels} <= set(rows)
    assert Counter([*found, *(row.id for row in skipped)]) == Counter(id for id, _ in rows)


@pytest.fixture(scope="module")
def tmp_rows(folder: Path) -> Path:
    return folder / "rows.csv"


@pytest.mark.parametrize("id", ["1", "00001", "bin-3_a", "küche", "(7)", "a" * ID_BYTES])
def test_usable_ids(id: str) -> None:
    assert id_problem(id) is None


@pytest.mark.parametrize(
    "id",
    [
        "",
        ".",
        "a.b",
        "a/b",
        "a\\b",
        " a",
        "a b",
        "a\t",
        "a\nb",
        "a\0",
        "a\u00a0b",
        "\u200b",
        "\udcff",
        "ü" * 48,
    ],
)
def test_unusable_ids(id: str) -> None:
    assert id_problem(id)


def test_id_order_is_by_series_then_by_number() -> None:
    ordered = ["00001", "00010", "99999", "100000", "1", "9", "10", "9999", "01", "000002", "b2", "b10", "c1"]
    assert sorted(Random(0).sample(ordered, len(ordered)), key=id_order) == ordered
    assert [id_series(id) for id in ordered] == [0] * 4 + [1] * 4 + [2] * 5


@given(st.integers(0, 10**12), st.integers(0, 10**12))
@example(0, 1)
def test_id_order_of_abid_ids_is_numeric(a: int, b: int) -> None:
    assert (id_order(f"{a:05d}") < id_order(f"{b:05d}")) == (a < b)


def test_skipped_rows_are_written_as_csv() -> None:
    rows = [Skipped("a,b", "labels.csv:2", 'count is "x", not a whole number'), Skipped("\udcff", "x", "y")]
    assert list(csv.reader(as_csv(rows).decode().splitlines())) == [
        ["id", "file", "reason"],
        list(rows[0]),
        ["\\udcff", "x", "y"],
    ]
    assert from_csv(as_csv(rows)) == [rows[0], Skipped("\\udcff", "x", "y")]
    assert as_csv([]) == b"id,file,reason\n"
    assert from_csv(as_csv([])) == []


@pytest.mark.abid
def test_real_label_files_name_the_records_counts(abid: Path, abid_records: Path) -> None:
    counts = {
        path.stem: orjson.loads(path.read_bytes())["EXPECTED_QUANTITY"] for path in abid_records.iterdir()
    }
    for name, size, here in (("labels.csv", 7_405, 7_405), ("file_list.json", 10_441, 6_320)):
        labels, skipped = read_labels(str(abid / name))
        known = [label for label in labels if label.id in counts]
        assert (len(labels), len(known), skipped) == (size, here, [])
        assert all(counts[label.id] == label.count for label in known)
