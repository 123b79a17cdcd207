"""`bincount explore`: what is in a data set, as tables, as a page, and in answer to SQL."""

import csv
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Bucket, NewFolder
from hypothesis import given
from hypothesis import strategies as st
from making import prepare, write_data

from bincount import cli
from bincount.data.records import Record, record_tables
from bincount.errors import BadInput
from bincount.exploring.database import Database, open_database
from bincount.exploring.facts import Facts, gather
from bincount.exploring.telling import grouped


@pytest.fixture(scope="module")
def whole(known: Path, new_folder: NewFolder) -> Path:
    """A data set of 30 photos with records; not to be changed."""
    out = new_folder("whole") / "data"
    assert (
        prepare(out, "source=folder", f"source.images={known}/images", f"source.metadata={known}/records")
        == 0
    )
    return out


@pytest.fixture(scope="module")
def real(abid_records: Path, new_folder: NewFolder) -> Facts:
    """The facts of the 10,677 real records, as tables without photos."""
    out = new_folder("real") / "tables"
    words = ["source=folder", "source.images=null", f"source.metadata={abid_records}"]
    assert prepare(out, *words) == 0
    return gather(open_database(str(out)))


def explored(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(["explore", *words]) == 0
    return capsys.readouterr().out


# --- facts --------------------------------------------------------------------------------------------


@pytest.mark.abid
@pytest.mark.slow
def test_the_facts_of_the_real_records(real: Facts) -> None:
    assert real.photos is None
    records = real.records
    assert records is not None
    assert (records.bins, records.items, records.flagged) == (10_677, 28_144, 6)
    assert {name: each.missing for name, each in records.measures.items()} == {
        "weight, lb": 606,
        "shortest side, in": 46,
        "middle side, in": 46,
        "longest side, in": 46,
    }
    assert records.per_quantity[0] == records.per_items[0] == 158
    assert max(records.per_quantity) == 88
    assert sum(records.per_quantity.values()) == 10_677
    assert sum(bins * items for bins, items in records.recurring.items()) == 28_144
    assert records.consecutive.share == pytest.approx(0.45, abs=0.005)


@pytest.mark.abid
def test_the_published_list_has_the_counts_that_were_published(abid: Path, tmp_path: Path) -> None:
    listed = json.loads((abid / "file_list.json").read_bytes())
    records = [Record(Path(name).stem, int(count), ()) for count, names in listed.items() for name in names]
    for table, rows in zip(("bins", "items"), record_tables(records), strict=True):
        folder = tmp_path / "tables" / table
        folder.mkdir(parents=True)
        pq.write_table(rows, folder / "part-000000.parquet")
    found = gather(open_database(str(tmp_path))).records
    assert found is not None
    assert found.bins == 10_441
    assert found.per_quantity == {1: 1_228, 2: 2_299, 3: 2_666, 4: 2_373, 5: 1_875}
    assert found.guesses["majority"]["accuracy"] == pytest.approx(0.2553, abs=5e-5)  # as was published


def test_the_facts_of_photos_with_records(whole: Path) -> None:
    facts = gather(open_database(str(whole)))
    assert facts.photos is not None
    assert facts.records is not None
    together = sum((Counter(held) for held in facts.photos.per_count.values()), Counter[str]())
    assert together == {str(count): 5 for count in range(6)}
    assert sum(facts.photos.per_split.values()) == facts.records.bins == 30
    assert facts.photos.sides["width"].quantiles == [40] * 5
    assert facts.photos.sides["width / height"].values == [1.25] * 30
    # A photo weighs 1 on average, and all counts together weigh the same.
    weighed = [
        facts.photos.weights[name] * number for name, number in facts.photos.per_count["train"].items()
    ]
    assert weighed == pytest.approx([sum(facts.photos.per_count["train"].values()) / 6] * 6, rel=1e-5)


def test_pairs_are_consecutive_numbers_of_one_series_and_neighbours_pass_over_empty_bins(
    tmp_path: Path,
) -> None:
    held = {
        "00001": "A",
        "00002": "AB",
        "00003": "",
        "00004": "B",
        "00006": "B",
        "1": "A",
        "2": "C",
        "x": "C",
    }
    items = [(id, asin) for id, asins in held.items() for asin in asins]
    (tmp_path / "tables/bins").mkdir(parents=True)
    (tmp_path / "tables/items").mkdir()
    bins, of_items = record_tables(Record(id, len(asins), ()) for id, asins in held.items())
    pq.write_table(bins, tmp_path / "tables/bins/part-000000.parquet")
    columns = {name: [None] * len(items) for name in of_items.column_names}
    columns |= {
        "id": [id for id, _ in items],
        "asin": [asin for _, asin in items],
        "quantity": [1] * len(items),
    }
    pq.write_table(type(of_items).from_pydict(columns, of_items.schema), tmp_path / "tables/items/p.parquet")
    records = gather(open_database(str(tmp_path))).records
    assert records is not None
    # 1-2 share A; 2-3 and 3-4 have an empty bin; 1-2 without padding are another series.
    assert (records.consecutive.pairs, records.consecutive.sharing) == (4, 1)
    # 1-2, 2-4, 4-6 of the first series, 1-2 of the second.
    assert (records.neighbours.pairs, records.neighbours.sharing) == (4, 3)
    assert records.recurring == {2: 1, 3: 2}


@given(st.dictionaries(st.integers(0, 90), st.integers(1, 50)), st.sets(st.integers(0, 30), min_size=1))
def test_grouping_loses_nothing_and_names_what_it_holds(numbers: dict[int, int], firsts: set[int]) -> None:
    told = grouped(numbers, sorted(firsts))
    assert sum(told.values()) == sum(numbers.values())
    below = sum(many for number, many in numbers.items() if number < min(firsts))
    for place, (name, many) in enumerate(told.items()):
        bounds = [int(each) for each in re.findall(r"\d+", name)]
        last = 10**9 if name.endswith("or more") else bounds[-1]
        held = sum(many for number, many in numbers.items() if bounds[0] <= number <= last)
        assert many == held + (below if place == 0 and bounds[0] == min(firsts) else 0)


# --- tables and the page ------------------------------------------------------------------------------


def test_it_prints_and_writes_one_page(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = explored(capsys, f"data.root={whole}")
    assert "30 records of bins, with 25 items, 25 different ones." in told
    assert "page: explore.html" in told
    assert [path.name for path in tmp_path.iterdir()] == ["explore.html"]
    page = Path("explore.html").read_text()
    pictures = re.findall(r'<img alt="([^"]+)" src="data:image/png;base64,', page)
    assert len(pictures) == page.count("<img") == 5
    assert any("photos of each count: 0: 5, 1: 5" in alt for alt in pictures)
    assert "http" not in page
    for line in ("10", "What there is", "Neighbours", "Balance"):
        assert line in page


def test_the_words_of_the_terminal_are_those_of_the_page(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = explored(capsys, f"data.root={whole}", f"out={tmp_path}/a.html")
    page = re.sub("<[^>]+>", " ", (tmp_path / "a.html").read_text())
    figures = set(re.findall(r"\d+\.\d+%?", told)) - {""}
    assert figures
    assert figures <= set(re.findall(r"\d+\.\d+%?", page))


def test_photos_without_records_and_records_without_photos_are_told(
    drawn: Path, known: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = explored(capsys, f"data.root={drawn}", f"out={tmp_path}/photos.html")
    assert "There are no records (tables/): `bincount prepare` makes them with source.metadata=…." in photos
    assert "Photos of each count" in photos
    assert "Neighbours" not in photos
    words = ["source=folder", "source.images=null", f"source.metadata={known}/records"]
    assert prepare(tmp_path / "tables", *words) == 0
    capsys.readouterr()
    records = explored(capsys, f"data.root={tmp_path}/tables", f"out={tmp_path}/records.html")
    assert "There are no photos (index.parquet)" in records
    assert "bins of 0 to 5 items, at random" in records
    assert "Balance" not in records


def test_photos_without_any_count_are_explored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data(tmp_path / "data", {"1": 3, "2": 3})
    told = explored(capsys, f"data.root={tmp_path}/data", f"out={tmp_path}/a.html")
    assert "In train there is no photo of 0, 1, 2, 4, 5." in told
    assert "2 photos: 2 train." in told


def test_a_data_set_in_s3_is_explored(
    bucket: Bucket, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in whole.rglob("*"):
        if path.is_file() and path.suffix != ".tar":
            to = bucket.folder / "bins" / path.relative_to(whole)
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(path.read_bytes())
    told = explored(capsys, f"data.root={bucket.address}/bins", f"out={tmp_path}/a.html")
    assert "30 records of bins" in told
    assert f"Data set {bucket.address}/bins" in (tmp_path / "a.html").read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data.root=nowhere"], "data.root: there is no folder nowhere"),
        (["data.root=."], "has neither photos (index.json) nor records (tables/)"),
        (["data.root=.", "sql=select 1"], "has neither photos"),
        (["out=a.pdf"], "out=a.pdf: the page's name must end in .html"),
        (["sql=select 1", "out=a.txt"], "out=a.txt: an answer is written as .csv or .parquet"),
        (["photos=here"], "against=RUN tells what they are compared with"),
        (["sql=select 1", "against=latest"], "give one of them"),
        (["against=latest", "runs=none"], "there is no run in none yet"),
    ],
)
def test_mistakes_are_told_in_a_line(
    words: list[str],
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["explore", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_table_is_told(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tables/bins").mkdir(parents=True)
    (tmp_path / "tables/bins/part-000000.parquet").write_bytes(b"PAR1")
    assert cli.main(["explore", f"data.root={tmp_path}", "sql=from bins"]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path}/tables/bins cannot be read" in error
    assert error.count("\n") == 1


# --- SQL ----------------------------------------------------------------------------------------------


@pytest.fixture
def database(whole: Path) -> Database:
    return open_database(str(whole))


@pytest.mark.parametrize(
    "question",
    [
        "select count(*), max(expected_quantity) from bins",
        "select count(*) from items where name like 'thing%' and quantity >= 1, (select 1)",
        "select 'it''s', [1, 2], {'a': 1}, 'back\\slash', \"count\" from photos limit 1",
        "  select 1 -- a comment",
        "select\n  count(*)\nfrom bins",
        "from bins limit 2",
    ],
)
def test_a_question_needs_no_quotes_of_its_own(
    question: str, whole: Path, database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.parquet"
    if "(select 1)" in question:
        question = "select count(*) from items, (select 1) where name like 'thing%' and quantity >= 1"
    assert "rows in" in explored(capsys, f"data.root={whole}", f"sql={question}", f"out={out}")
    assert pq.read_table(out).to_pylist() == database.ask(question).to_pylist() != []


def test_an_answer_is_printed(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    question = (
        "sql=select expected_quantity as n, count(*), null as none, avg(n) from bins group by n order by n"
    )
    lines = [line.split() for line in explored(capsys, f"data.root={whole}", question).splitlines()]
    assert [line for line in lines if line[:1] and line[0].isdigit()] == [
        [str(n), "5", "null", str(n)] for n in range(6)
    ]


def test_a_long_answer_is_cut_on_a_terminal_and_whole_in_a_file(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    question = "sql=select range as n, 'a,b' as t from range(250)"
    told = explored(capsys, f"data.root={whole}", question)
    assert "100 of 250 rows; out=FILE.csv has them all" in told
    explored(capsys, f"data.root={whole}", question, f"out={tmp_path}/a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["n", "t"], *([str(n), "a,b"] for n in range(250))]


@pytest.mark.parametrize(
    "question",
    [
        "copy bins to '{there}/stolen.csv'",
        "copy (select 1) to '{there}/stolen.parquet'",
        "export database '{there}/stolen'",
        "attach '{there}/stolen.db'",
        "install httpfs",
        "load httpfs",
        "set enable_external_access=true",
        "create table stolen as select 1",
        "delete from bins",
        "select 1; select 2",
        "",
        "from read_text('{there}/secret.csv')",
        "from '{there}/secret.csv'",
        "from glob('{there}/*')",
        "from read_parquet('https://127.0.0.1:9/a.parquet')",
        "from read_csv('s3://bucket/a.csv')",
    ],
)
def test_sql_reaches_neither_files_nor_the_network_and_changes_nothing(
    question: str, database: Database, tmp_path: Path
) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with pytest.raises(BadInput, match=r"^sql: .*; there is bins \(id, "):
        database.ask(question.format(there=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]
    assert database.rows("select count(*) from bins") == [(30,)]


@pytest.mark.parametrize(
    ("question", "told"),
    [
        ("selec 1", "syntax error"),
        ("select nope from bins", 'Referenced column "nope" not found'),
        ("select * from bin", "Table with name bin does not exist"),
        ("select 1 / 'a'", "Could not convert string"),
    ],
)
def test_an_error_of_sql_is_one_line_with_tables_and_columns(
    question: str, told: str, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["explore", f"data.root={whole}", f"sql={question}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert told in error
    assert "bins (id, expected_quantity, distinct_items, quantity_sum, quantity_differs)" in error
    assert 'photos (id, count, split, "group", shard' in error


def test_a_table_that_is_not_there_is_not_offered(drawn: Path) -> None:
    with pytest.raises(BadInput, match=r"there is photos \(id, count"):
        open_database(str(drawn)).ask("from bins")


def test_sql_needs_no_torch(whole: Path) -> None:
    program = "import sys; from bincount.cli import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    for words in (["--help"], [f"data.root={whole}", "sql=select 1"]):
        command = [sys.executable, "-c", program, "explore", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "False"


def test_help_needs_no_duckdb() -> None:
    program = "import sys; from bincount.cli import main; main(sys.argv[1:]); print('duckdb' in sys.modules)"
    command = [sys.executable, "-c", program, "explore", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_numbers_come_as_they_are(database: Database) -> None:
    answer = database.ask("select sum(quantity) as n, avg(quantity) as mean from items")
    assert int(answer["n"][0].as_py()) == sum(range(6)) * 5
    assert np.isclose(answer["mean"][0].as_py(), 3)
