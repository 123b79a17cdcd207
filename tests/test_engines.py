"""The engines of the tables: Spark and Athena give the rows that local gives, and list what it lists."""

import csv
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import athena_stand_in
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlglot
from conftest import Bucket
from hypothesis import given
from hypothesis import strategies as st
from making import Complaint, prepare, write_records
from reading import skipped
from test_records import ITEM, record
from test_tables import table

from bincount import cli
from bincount.auditing.expected import read_expected
from bincount.config import PrepareConfig
from bincount.data import ids
from bincount.data.records import BINS_SCHEMA, ITEMS_SCHEMA, MAX_COUNT
from bincount.engines import athena, session, spark

JAVA = pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java")

SCHEMAS = {"bins": BINS_SCHEMA, "items": ITEMS_SCHEMA}


def words(records: Path) -> list[str]:
    return ["source=folder", "source.images=null", f"source.metadata={records}"]


def sorted_rows(found: pa.Table) -> list[tuple[object, ...]]:
    return sorted((tuple(row.values()) for row in found.to_pylist()), key=repr)


#: Records that every engine takes.
GOOD = {
    "00001": record(),
    "1": record(weight=None, height=None),
    "bare": b'{"EXPECTED_QUANTITY": 1, "BIN_FCSKU_DATA": {"B": {"quantity": 1}}}',
    "case": record(normalizedName=None, name="caf\u00e9 \U0001f600\t\u00a0\n\"'"),
    "empty-bin": b'{"BIN_FCSKU_DATA": {}, "EXPECTED_QUANTITY": 0}',
    "extra": record()[:-1] + b', "image_fname": "1.jpg"}',
    "float": record(4.0, quantity=3.0),
    "largest": record(MAX_COUNT),
    "no-asin": record(asin=None),
    "no-text-asin": record(asin=""),
    "no-value": record(weight={"unit": "cm", "value": None}, width={}),
    "order": json.dumps(
        {"BIN_FCSKU_DATA": {key: ITEM | {"asin": key} for key in "ZA"}, "EXPECTED_QUANTITY": 8}
    ).encode(),
    "small": record(weight={"unit": "pounds", "value": 0.1 + 0.2}, width={"unit": "IN", "value": 5e-3}),
    "spaced": b"\n " + json.dumps(json.loads(record()), indent=4).encode() + b"\n\n",
}

#: Records that none takes, and for the same reason.
BAD = {
    "minus": record(-1),
    "half": record(2.5),
    "huge": record(10**9 * 5),
    "q-minus": record(quantity=-3),
    "q-half": record(quantity=1.5),
    "centimetres": record(width={"unit": "CM", "value": 7}),
    "no-unit": record(weight={"value": 7}),
    "v-minus": record(weight={"unit": "pounds", "value": -7.5}),
    "item-null": b'{"EXPECTED_QUANTITY": 1, "BIN_FCSKU_DATA": {"B": null}}',
    "two.dots": record(),
    "a b": record(),
    "back\\slash": record(),
    "\u200b": record(),
    "x" * 96: record(),
}

#: Records that none takes, for a reason that each tells in its own way. The reason of Spark; of Athena.
MISSING = " is missing or null"
TOLD = {
    "nothing": (b"{}", f"EXPECTED_QUANTITY{MISSING}"),
    "null-count": (record(None), f"EXPECTED_QUANTITY{MISSING}"),
    "no-items": (b'{"EXPECTED_QUANTITY": 1}', f"BIN_FCSKU_DATA{MISSING}"),
    "no-quantity": (record(quantity=None), f"quantity of B000C33MI2{MISSING}"),
}

#: What is no JSON: Spark's reason.
TYPE = "invalid JSON, or a value of another type"
NO_JSON = {
    "brace": (b"{", TYPE),
    "cut": (record()[:-9], TYPE),
    "latin": (record(name="x").replace(b'"x"', b'"\xff"'), "invalid JSON: it is not UTF-8"),
    "blank": (b" \n\t", "the file is empty"),
}

#: A value of another type: Spark refuses it, and so does local; in Athena it ends the query.
TYPES = {
    "text": record("2"),
    "true": record(True),
    "list": b"[1]",
    "height": record(height=7),
    "value": record(weight={"unit": "pounds", "value": "7"}),
    "nan": record(weight={"unit": "pounds", "value": "NaN"}),
    "item": b'{"EXPECTED_QUANTITY": 1, "BIN_FCSKU_DATA": {"B": 2}}',
    "quotes": b"{'EXPECTED_QUANTITY': 0, 'BIN_FCSKU_DATA': {}}",
    "comment": b'{"EXPECTED_QUANTITY": 0, /* no */ "BIN_FCSKU_DATA": {}}',
    "twice": record() + b"{}",
    "rest": record() + b" x",
    "mark": b"\xef\xbb\xbf" + record(),
}


def write(folder: Path, contents: dict[str, bytes]) -> Path:
    folder.mkdir()
    for id, content in contents.items():
        (folder / f"{id}.json").write_bytes(content)
    return folder


def mixed() -> dict[str, bytes]:
    others = {id: content for id, (content, _) in (TOLD | NO_JSON).items()}
    return GOOD | BAD | others


# --- Spark --------------------------------------------------------------------------------------------


@JAVA
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_spark_gives_the_rows_of_local_and_lists_what_it_lists(tmp_path: Path) -> None:
    twice = b'{"EXPECTED_QUANTITY": 3, "BIN_FCSKU_DATA": {"A": {"quantity": 1}, "A": {"quantity": 3}}}'
    folder = write(
        tmp_path / "[a]{b}*c %20+", mixed() | TYPES | {"no-byte": b"", "x%20y": record(), "dup": twice}
    )
    for name in ("same.json", "same.JSON", "other.txt", 'a,"b.json'):
        (folder / name).write_bytes(record())
    for name in ("dir.json", "k=1", "sub"):
        (folder / name).mkdir()
        (folder / name / f"in-{name}").write_bytes(record())
    for engine in ("local", "spark"):
        assert prepare(tmp_path / engine, *words(folder), f"tables.engine={engine}") == 0
    for name, schema in SCHEMAS.items():
        for path in (tmp_path / "spark" / "tables" / name).iterdir():
            assert path.suffix == ".parquet"
            metadata = pq.ParquetFile(path).metadata
            if metadata.num_rows:
                assert metadata.row_group(0).column(0).compression == "SNAPPY"
            assert pq.read_schema(path).types == schema.types
        assert table(tmp_path / "spark", name).cast(schema).equals(table(tmp_path / "local", name))
    ours, theirs = skipped(tmp_path / "local"), skipped(tmp_path / "spark")
    assert ours.keys() == theirs.keys() == {*BAD, *TOLD, *NO_JSON, *TYPES, "no-byte", "same"}
    assert {id: theirs[id] for id in (*BAD, "no-byte", "blank", "same")} == {
        id: ours[id] for id in (*BAD, "no-byte", "blank", "same")
    }
    for id, (_, reason) in (TOLD | NO_JSON | dict.fromkeys(TYPES, (b"", TYPE))).items():
        assert theirs[id] == [(f"{id}.json", reason)]


@JAVA
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_spark_makes_the_tables_of_a_data_set_with_photos(known: Path, tmp_path: Path) -> None:
    photos = ["source=folder", f"source.images={known}/images", f"source.metadata={known}/records"]
    for engine in ("local", "spark"):
        assert prepare(tmp_path / engine, *photos, f"tables.engine={engine}") == 0
    index = [pq.read_table(tmp_path / engine / "index.parquet") for engine in ("local", "spark")]
    assert index[0].equals(index[1])
    assert cli.main(["explore", f"data.root={tmp_path}/spark", "sql=select count(*) from items"]) == 0


@JAVA
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_script_runs_by_itself_and_leaves_glues_own_arguments_alone(known: Path, tmp_path: Path) -> None:
    script = shutil.copy(spark.__file__, tmp_path / "script.py")
    command = [
        sys.executable,
        "-W",
        "ignore",
        str(script),
        "--records",
        f"{known}/records",
        "--out",
        f"{tmp_path}/out",
    ]
    command += ["--JOB_NAME", "bincount", "--job-bookmark-option", "job-bookmark-disable"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == (
        f"{tmp_path}/out/tables: of 30 records 0 left out, each with its reason in skipped.csv"
    )
    assert (tmp_path / "out" / "skipped.csv").read_text() == "id,file,reason\n"
    assert prepare(tmp_path / "local", *words(known / "records")) == 0
    for name, schema in SCHEMAS.items():
        parts = sorted((tmp_path / "out" / "tables" / name).glob("*.parquet"))
        read = pa.concat_tables([pq.read_table(part).cast(schema) for part in parts])
        assert read.equals(table(tmp_path / "local", name))


def test_the_script_knows_nothing_of_bincount() -> None:
    text = Path(spark.__file__).read_text()
    assert "import bincount" not in text
    assert "from bincount" not in text
    assert (spark.MAX_COUNT, spark.ID_BYTES, spark.UNITS) == (athena.MAX_COUNT, athena.ID_BYTES, athena.UNITS)
    assert (spark.MAX_COUNT, spark.ID_BYTES) == (MAX_COUNT, ids.ID_BYTES)


@given(st.text(max_size=100))
def test_the_script_judges_ids_as_the_rest_does(id: str) -> None:
    assert spark.id_problem(id) == ids.id_problem(id)


# --- Athena -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_athena_gives_the_rows_of_local_and_lists_what_it_lists(tmp_path: Path) -> None:
    folder = write(tmp_path / "records", mixed() | {"twice": record() + b"{}"})
    (folder / "other.txt").write_bytes(record())
    assert prepare(tmp_path / "local", *words(folder)) == 0
    found = athena_stand_in.run(folder)
    for name, rows in athena_stand_in.written(found).items():
        assert sorted_rows(rows) == sorted_rows(table(tmp_path / "local", name))
    theirs = {row["id"]: [(row["file"], row["reason"])] for row in found.tables["skipped"].to_pylist()}
    ours = skipped(tmp_path / "local")
    assert ours.keys() == theirs.keys() == {*BAD, *TOLD, *NO_JSON, "twice"}
    for id in (*BAD, "blank", "twice"):
        assert theirs[id] == ours[id]
    for id, (_, reason) in TOLD.items():
        assert theirs[id] == [(f"{id}.json", reason)]
    for id in NO_JSON.keys() - {"blank"}:
        assert theirs[id] == [(f"{id}.json", "invalid JSON")]


@pytest.mark.parametrize("id", ["text", "height", "value", "item"])
def test_a_value_of_another_type_ends_athenas_query(id: str, tmp_path: Path) -> None:
    with pytest.raises(athena_stand_in.Ended):
        athena_stand_in.run(write(tmp_path / "records", GOOD | {id: TYPES[id]}))


def test_a_file_of_no_byte_is_what_athena_does_not_see(tmp_path: Path) -> None:
    found = athena_stand_in.run(write(tmp_path / "records", GOOD | {"no-byte": b""}))
    assert found.tables["skipped"].num_rows == 0


def test_athena_writes_snappy_parquet_where_the_tables_are_looked_for(tmp_path: Path) -> None:
    found = athena_stand_in.run(write(tmp_path / "records", GOOD), "s3://mine/bins/")
    for name in SCHEMAS:
        assert found.properties[f"{name}.external_location"] == f"s3://mine/bins/tables/{name}/"
        assert found.properties[f"{name}.format"] == "PARQUET"
        assert found.properties[f"{name}.write_compression"] == "SNAPPY"


@pytest.mark.parametrize(
    "address", ["s3://m/a'b", 's3://m/a"b', "s3://m/a\\b", "folder", "s3://m/a\nb", "s3://m/a`b"]
)
def test_an_address_cannot_end_a_text_in_sql(address: str) -> None:
    for place in range(3):
        addresses = ["s3://mine/metadata", "s3://mine/bins", "s3://mine/scratch"]
        addresses[place] = address
        with pytest.raises(ValueError, match="this is no"):
            athena.statements(*addresses, "bincount", "x")


@given(st.text(min_size=1, max_size=20), st.text(max_size=5))
def test_whatever_the_names_the_sql_is_one_statement_or_none(name: str, suffix: str) -> None:
    try:
        made = athena.statements(
            f"s3://mine/{name}", "s3://mine/out", "s3://mine/scratch", "bincount", suffix
        )
    except ValueError:
        return
    for statement in made:
        assert len(sqlglot.parse(statement.sql, read="athena")) == 1


# --- what is refused ----------------------------------------------------------------------------------


def test_athena_is_asked_by_submit_alone(complaint: Complaint, tmp_path: Path) -> None:
    records = write(tmp_path / "records", GOOD)
    assert "python launch/submit.py tables" in complaint(*words(records), "tables.engine=athena")
    assert complaint(*words(records), "tables.engine=sprak").endswith("did you mean spark?")


def test_spark_is_refused_where_it_cannot_do_what_is_asked(
    complaint: Complaint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, engine = write(tmp_path / "records", GOOD), "tables.engine=spark"
    assert "there are no records" in complaint(engine)
    assert "Spark shares its work by itself" in complaint(*words(records), engine, "part=1/2")
    (tmp_path / "list.csv").write_text("id,count\n1,1\n")
    listed = ["source=s3", f"source.bucket={tmp_path}", f"source.list={tmp_path}/list.csv"]
    assert "not those of source.list" in complaint(*listed, engine)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert "there is no Java" in complaint(*words(records), engine)
    monkeypatch.setattr(session.importlib.util, "find_spec", lambda name: None)
    assert "pip install -e '.[spark]'" in complaint(*words(records), engine)


def test_local_is_the_default() -> None:
    from bincount.compose import compose, typed

    config: PrepareConfig = typed("prepare", compose("prepare", []))
    assert config.tables.engine == "local"


# --- explore ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_explore_reads_from_s3_what_any_engine_wrote(
    bucket: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_records(tmp_path / "records", {f"{n:05d}": n % 4 for n in range(1, 12)})
    assert prepare(tmp_path / "local", *words(folder)) == 0
    made = athena_stand_in.written(athena_stand_in.run(folder))
    for engine, name in itertools.product(("local", "spark", "athena"), SCHEMAS):
        place = bucket.folder / engine / "tables" / name
        place.mkdir(parents=True)
        # Spark's columns may all be null, and its names are long; Athena's have no ending.
        loose = made[name].cast(pa.schema([field.with_nullable(True) for field in SCHEMAS[name]]))
        if engine == "local":
            shutil.copy(tmp_path / "local" / "tables" / name / "part-000000.parquet", place)
        elif engine == "spark":
            (place / "_SUCCESS").write_bytes(b"")
            pq.write_table(loose.slice(0, 5), place / "part-00000-1f-c000.snappy.parquet")
            pq.write_table(loose.slice(5), place / "part-00001-1f-c000.snappy.parquet")
        else:
            pq.write_table(loose, place / "20261121_123456_00012_abcde_0f1e")
    question = (
        "sql=select count(*) bins, sum(expected_quantity) n, (select count(*) from items) items from bins"
    )
    told = set()
    for engine in ("local", "spark", "athena"):
        capsys.readouterr()
        assert cli.main(["explore", f"data.root={bucket.address}/{engine}", question]) == 0
        told.add(capsys.readouterr().out)
        page = tmp_path / f"{engine}.html"
        assert cli.main(["explore", f"data.root={bucket.address}/{engine}", f"out={page}"]) == 0
        assert page.is_file()
        expected, left_out = read_expected(f"{bucket.address}/{engine}")
        assert (len(expected), left_out) == (11, [])
    (only,) = told
    assert only.split()[-3:] == ["11", "18", "9"]


# --- all real records ---------------------------------------------------------------------------------


@pytest.mark.abid
@JAVA
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_engines_give_the_same_rows_of_all_real_records(abid_records: Path, tmp_path: Path) -> None:
    for engine in ("local", "spark"):
        assert prepare(tmp_path / engine, *words(abid_records), f"tables.engine={engine}") == 0
        with (tmp_path / engine / "skipped.csv").open(newline="") as file:
            assert list(csv.reader(file)) == [["id", "file", "reason"]]
    found = athena_stand_in.run(abid_records)
    assert found.tables["skipped"].num_rows == 0
    of_athena = athena_stand_in.written(found)
    for name, schema in SCHEMAS.items():
        ours = table(tmp_path / "local", name)
        assert table(tmp_path / "spark", name).cast(schema).equals(ours)
        keys = [(key, "ascending") for key in ("id", "asin") if key in schema.names]
        assert of_athena[name].equals(ours.sort_by(keys))
    assert (len(of_athena["bins"]), len(of_athena["items"])) == (10677, 28144)
    nulls = {
        name: of_athena["items"][name].null_count
        for name in ("weight_lb", "height_in", "normalized_name", "name")
    }
    assert nulls == {"weight_lb": 606, "height_in": 46, "normalized_name": 44, "name": 4}
