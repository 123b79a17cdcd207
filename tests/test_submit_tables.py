"""`python launch/submit.py tables`: previews, what is refused, and sending to AWS's stand-in."""

import json
from pathlib import Path
from typing import Any

import pytest
from aws_stand_in import ROLE, Aws, aws_account, moto_server  # noqa: F401
from making import record

from bincount.engines import spark
from launch import athena, aws, glue, service_model, submit, tables

RECORDS, OUT = "source.metadata=s3://mine/metadata", "out=s3://mine/tables"
WORDS = ["tables", RECORDS, OUT, "launcher.output=s3://mine/jobs", f"launcher.role={ROLE}"]
ATHENA = [*WORDS, "tables.engine=athena"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def account(aws_account: Aws, place: Path) -> Aws:  # noqa: F811
    """An account with a bucket that holds three records, and what is none."""
    aws_account.bucket("mine")
    s3 = aws_account.client("s3")
    for name in ("00001.json", "00002.JSON", "1.json", "notes.txt", "deeper/2.json"):
        s3.put_object(Bucket="mine", Key=f"metadata/{name}", Body=json.dumps(record(2)))
    return aws_account


def keys(account: Aws) -> list[str]:
    found = account.client("s3").list_objects_v2(Bucket="mine").get("Contents", [])
    return [each["Key"] for each in found if not each["Key"].startswith("metadata/")]


def told(words: list[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    capsys.readouterr()
    assert submit.main(words) == code
    out, err = capsys.readouterr()
    assert (err == "") == (code == 0)
    return out if code == 0 else err.strip()


# --- previews -----------------------------------------------------------------------------------------


def test_a_preview_of_glue_shows_what_runs_where_and_the_price_at_most(
    no_aws: pytest.MonkeyPatch, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = told([*WORDS, "workers=5", "worker_type=G.2X", "launcher.max_hours=0.5"], capsys)
    assert "2.20 USD = 5.0 DPU-hours x 0.44 USD" in shown
    assert "s3://mine/metadata/ID.json: not known: there are no AWS credentials" in shown
    assert "s3://mine/tables/tables/bins, s3://mine/tables/tables/items" in shown
    assert '"Timeout": 30' in shown
    assert shown.endswith("submit=true sends it\n")
    assert list(place.iterdir()) == []


def test_a_preview_counts_the_records_where_there_are_credentials(
    account: Aws, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = told(ATHENA, capsys)
    assert "3 records of 0.000 GB together" in shown
    # Of 13 readings of three records each of four queries is billed 10 MB.
    assert "0.0002 USD: at most 13 times 0.000 GB" in shown
    assert "6 requests = 0.00 USD" in shown
    assert "ROW FORMAT SERDE 'com.amazon.ionhiveserde.IonHiveSerDe'" in shown
    assert keys(account) == []


def test_prices_of_all_of_abid(no_aws: pytest.MonkeyPatch, place: Path) -> None:
    wanted = tables.composed(ATHENA[1:], "bincount-tables-x")
    size = tables.Size(535_234, 1_100_000_000)
    assert athena.price(wanted, size)["Athena"].startswith("0.0715 USD: at most 13 times 1.100 GB")
    assert glue.price(wanted)["Glue"].startswith("8.80 USD = 20.0 DPU-hours")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "source.metadata is not given"),
        (["source.metadata=records", OUT], "source.metadata=records: Glue and Athena see no folder"),
        ([RECORDS], "out=data/drawn: Glue and Athena see no folder"),
        ([RECORDS, OUT, "tables.engine=local"], "that is `bincount prepare`"),
        ([RECORDS, OUT, "tables.engine=atena"], "did you mean athena?"),
        ([RECORDS, OUT, "source.images=s3://mine/photos"], "`submit.py prepare` prepares photos"),
        ([RECORDS, OUT, "source=synthetic"], "there is no such key"),
        (
            ["source=s3", "source.bucket=s3://b", "source.list=a.csv", OUT],
            "source.list: Spark and Athena read all",
        ),
        ([RECORDS, OUT, "workers=1"], "workers=1: must be 2 or above"),
        ([RECORDS, OUT, "worker_type=G.3X"], "must be one of G.1X, G.2X"),
        ([RECORDS, OUT, "wokers=3"], "wokers: there is no such key"),
        (
            ["source.metadata=s3://mine/a'b", OUT, "tables.engine=athena"],
            "no s3://bucket/prefix that SQL can name",
        ),
        ([RECORDS, OUT, "submit=true"], "launcher.output is not given"),
        ([RECORDS, OUT, "launcher.output=s3://mine/jobs", "submit=true"], "launcher.role is not given"),
        ([RECORDS, OUT, "launcher.output=jobs", "submit=true"], "launcher.output=jobs is no place in S3"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(
    words: list[str], line: str, no_aws: pytest.MonkeyPatch, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    complaint = told(["tables", *words], capsys, 2)
    assert line in complaint
    assert "\n" not in complaint


def test_a_bucket_laid_out_as_abids_may_be_named_too(no_aws: pytest.MonkeyPatch, place: Path) -> None:
    wanted = tables.composed(["source=s3", "source.bucket=s3://aft-vbi-pds", OUT])
    assert (wanted.records, wanted.engine) == ("s3://aft-vbi-pds/metadata", "spark")


# --- Glue ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_glue_job_is_started_with_the_script_as_it_is(
    account: Aws, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = told([*WORDS, "submit=true"], capsys)
    name = sent.split()[1]
    assert keys(account) == [f"jobs/{name}/spark.py"]
    script = account.client("s3").get_object(Bucket="mine", Key=f"jobs/{name}/spark.py")["Body"].read()
    assert script == Path(spark.__file__).read_bytes()
    job = account.client("glue").get_job(JobName=name)["Job"]
    assert job["Role"] == ROLE
    assert job["Command"] == {
        "Name": "glueetl",
        "ScriptLocation": f"s3://mine/jobs/{name}/spark.py",
        "PythonVersion": "3",
    }
    assert job["DefaultArguments"]["--records"] == "s3://mine/metadata"
    assert job["DefaultArguments"]["--out"] == "s3://mine/tables"
    assert (job["GlueVersion"], job["WorkerType"], job["NumberOfWorkers"]) == ("5.0", "G.1X", 10)
    assert len(account.client("glue").get_job_runs(JobName=name)["JobRuns"]) == 1
    stands = told(["status", f"job={name}"], capsys)
    assert stands.startswith(f"{name}: ")
    assert "DPU-hours" in stands


def test_what_a_glue_run_cost_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    run = {"JobRunState": "FAILED", "ExecutionTime": 1800, "NumberOfWorkers": 10, "WorkerType": "G.2X"}
    run |= {"ErrorMessage": "it\nbroke"}
    monkeypatch.setattr(aws, "ask", lambda *words, **asked: {"JobRuns": [run]})
    lines = glue.status("bincount-tables-x", {"region": "us-east-1", "out": "s3://mine/tables"}).splitlines()
    assert lines[:3] == [
        "bincount-tables-x: FAILED, 1,800 s",
        "10.00 DPU-hours, 4.40 USD so far at 0.44 USD each",
        "reason: it broke",
    ]


@pytest.mark.slow
def test_glue_must_be_allowed_to_take_the_role(account: Aws, capsys: pytest.CaptureFixture[str]) -> None:
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole"}]}
    trust["Statement"][0]["Principal"] = {"Service": "sagemaker.amazonaws.com"}  # type: ignore[index]
    account.role("other", json.dumps(trust))
    words = [*WORDS, f"launcher.role={ROLE.replace('bincount', 'other')}", "submit=true"]
    assert "its trust lacks glue.amazonaws.com" in told(words, capsys, 2)
    words = [*WORDS, f"launcher.role={ROLE.replace('bincount', 'nobody')}", "submit=true"]
    assert "there is no such role" in told(words, capsys, 2)
    assert keys(account) == []


# --- Athena -------------------------------------------------------------------------------------------


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch, account: Aws) -> None:
    """moto runs no query: what the last one answers is put where AWS puts it."""
    begin = athena._begin

    def begun(statement: Any, name: str, region: str, output: str) -> str:
        id = begin(statement, name, region, output)
        answer = '"id","file","reason"\n"2","2.json","the file, ""empty"""\n'
        if statement.name == "skipped":
            key = f"jobs/{name}/results/{id}.csv"
            account.client("s3").put_object(Bucket="mine", Key=key, Body=answer.encode())
        return id

    monkeypatch.setattr(athena, "_begin", begun)
    monkeypatch.setattr(athena, "PAUSE", 0)


@pytest.mark.slow
@pytest.mark.usefixtures("results")
def test_athenas_queries_are_begun_in_their_order_and_the_rest_is_listed(
    account: Aws, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = told([*ATHENA, "submit=true"], capsys)
    name = sent.split()[1].rstrip(";")
    wanted = athena.queries(name, "s3://mine/metadata", "s3://mine/tables", f"s3://mine/jobs/{name}")
    state = json.loads((place / "runs" / "tables" / name / "tables.json").read_text())
    assert list(state["queries"]) == [statement.name for statement in wanted]
    for statement in wanted:
        asked = {"QueryExecutionId": state["queries"][statement.name]}
        query = account.client("athena").get_query_execution(**asked)["QueryExecution"]
        assert query["Query"] == statement.sql
        assert f"{statement.name}: SUCCEEDED" in sent
    csv = account.client("s3").get_object(Bucket="mine", Key="tables/skipped.csv")["Body"].read()
    assert csv == b'id,file,reason\n2,2.json,"the file, ""empty"""\n'
    assert "1 records left out" in told(["status", f"job={name}"], capsys)
    account.client("s3").put_object(Bucket="mine", Key="tables/tables/bins/x", Body=b"")
    assert "has a data set or tables already" in told([*ATHENA, "submit=true"], capsys, 2)


@pytest.mark.slow
@pytest.mark.usefixtures("results")
def test_queries_that_were_left_alone_go_on_with_status(
    account: Aws, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    begin = athena._begin

    def until_items(statement: Any, *words: str) -> str:
        begun.append(statement.name)
        if begun.count("items") == 1 and statement.name == "items":
            raise KeyboardInterrupt
        return begin(statement, *words)

    monkeypatch.setattr(athena, "_begin", until_items)
    assert submit.main([*ATHENA, "submit=true"]) == 130
    name = capsys.readouterr().out.split()[1].rstrip(";")
    assert "tables/skipped.csv" not in keys(account)
    assert "skipped: SUCCEEDED" in told(["status", f"job={name}"], capsys)
    assert begun == ["database", "records", "lines", "read", "bins", "items", "items", "skipped"]
    assert "tables/skipped.csv" in keys(account)


def test_a_query_that_fails_ends_the_rest(
    account: Aws, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = aws.ask

    def failing(service: str, operation: str, region: str, **request: Any) -> dict[str, Any]:
        found = ask(service, operation, region, **request)
        if operation == "get_query_execution" and '"$path"' in found["QueryExecution"]["Query"]:
            reason = "HIVE_BAD_DATA: Invalid\nIon type"
            found["QueryExecution"]["Status"] |= {"State": "FAILED", "StateChangeReason": reason}
            found["QueryExecution"]["Statistics"] = {"DataScannedInBytes": 2_000_000_000_000}
        return found

    monkeypatch.setattr(aws, "ask", failing)
    line = told([*ATHENA, "submit=true"], capsys, 1)
    assert line.endswith("read: FAILED, 0 s, 2,000.000 GB, 10.0000 USD: HIVE_BAD_DATA: Invalid Ion type")
    assert not any(key.startswith("tables/") for key in keys(account))


def test_requests_fit_awss_own_model(
    no_aws: pytest.MonkeyPatch, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = tables.composed(ATHENA[1:])
    service_model.check("glue", "CreateJob", glue.request(wanted))
    asked: list[dict[str, Any]] = []

    def ask(service: str, operation: str, region: str, **request: Any) -> dict[str, Any]:
        asked.append(request)
        return {"QueryExecutionId": "1"}

    monkeypatch.setattr(aws, "ask", ask)
    for statement in athena.queries(wanted.name, wanted.records, wanted.out, wanted.output):
        athena._begin(statement, wanted.name, "us-east-1", wanted.output)
        service_model.check("athena", "StartQueryExecution", asked[-1])
    assert len({request["ClientRequestToken"] for request in asked}) == len(asked) == 7


@pytest.mark.slow
def test_without_records_nothing_is_begun(account: Aws, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word.replace("s3://mine/metadata", "s3://mine/nothing") for word in WORDS]
    assert "there are no records in it" in told([*words, "submit=true"], capsys, 2)
    assert keys(account) == []


def test_status_of_what_was_sent_from_elsewhere(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "give runs=…" in told(["status", "job=bincount-tables-1"], capsys, 2)
