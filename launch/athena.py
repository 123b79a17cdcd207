"""The tables by Athena: queries one after the other, each begun when the one before it has ended."""

import csv
import io
import json
import time
from pathlib import Path
from typing import Any

from bincount import storage
from bincount.data.skipped import Skipped, as_csv
from bincount.engines.athena import Statement, statements
from bincount.errors import BadInput, BincountError
from launch import aws
from launch.job import bucket_of
from launch.tables import NAMED, Size, Wanted, write_state

#: The database of the Glue Data Catalog in which the tables are, and the workgroup that runs the queries.
DATABASE, WORKGROUP = "bincount", "primary"

#: USD for 10^12 bytes scanned: us-east-1, of 2026. Each query that scans is billed 10 MB at the least.
USD_TB, LEAST_BYTES = 5.0, 10_000_000

#: Seconds between two looks at a query.
PAUSE = 2.0


def queries(name: str, records: str, out: str, output: str) -> list[Statement]:
    """The statements of a job. Raises BadInput for an address that SQL cannot name."""
    suffix = name.removeprefix(NAMED).replace("-", "_")
    try:
        return statements(records, out, output, DATABASE, suffix)
    except ValueError as error:
        raise BadInput(str(error)) from None


def send(wanted: Wanted) -> None:
    """Run all queries; what is interrupted goes on with `status`."""
    queries(wanted.name, wanted.records, wanted.out, wanted.output)
    write_state(wanted, "runs", {"queries": {}})
    path = storage.folder("runs") / "tables" / wanted.name / "tables.json"
    print(
        f"sent {wanted.name}\n  python launch/submit.py status job={wanted.name}  goes on where this is ended"
    )
    told: list[str] = []
    while True:
        lines, ended = advance(wanted.name, path, json.loads(path.read_text(encoding="utf-8")))
        for line in lines[len(told) :]:
            print(line, flush=True)
        told = lines
        if ended:
            if not lines[-1].endswith("skipped.csv"):
                raise BincountError(f"{wanted.name}: {lines[-1]}")
            print(f"  bincount explore data.root={wanted.out}")
            return
        time.sleep(PAUSE)


def advance(name: str, path: Path, state: dict[str, Any]) -> tuple[list[str], bool]:
    """Begin the next query where the last has ended well; a line for each that has, and whether all is over.

    ``state``: what the file ``path`` holds, which is kept up to date.
    """
    region, begun = state["region"], state["queries"]
    lines: list[str] = []
    for statement in queries(name, state["records"], state["out"], state["output"]):
        if statement.name not in begun:
            begun[statement.name] = _begin(statement, name, region, state["output"])
            storage.write_text(path, json.dumps(state, indent=2) + "\n")
        found = aws.ask("athena", "get_query_execution", region, QueryExecutionId=begun[statement.name])
        query = found["QueryExecution"]
        current = query["Status"]["State"]
        if current in ("QUEUED", "RUNNING"):
            return lines, False
        lines.append(_told(statement, query))
        if current != "SUCCEEDED":
            return lines, True
        if statement.name == "skipped":
            lines.append(_list_skipped(query["ResultConfiguration"]["OutputLocation"], state))
    return lines, True


def stop(name: str, state: dict[str, Any]) -> str:
    """Ask the query that runs to end; no other is begun after it."""
    region = state["region"]
    for query, id in reversed(state["queries"].items()):
        found = aws.ask("athena", "get_query_execution", region, QueryExecutionId=id)["QueryExecution"]
        if found["Status"]["State"] in ("QUEUED", "RUNNING"):
            aws.ask("athena", "stop_query_execution", region, QueryExecutionId=id)
            return f"{name} is stopping: query {query}"
        break
    return f"{name}: no query runs, and none is begun unless `status` does"


def _begin(statement: Statement, name: str, region: str, output: str) -> str:
    begun = aws.ask(
        "athena",
        "start_query_execution",
        region,
        QueryString=statement.sql,
        # Asked twice by mistake, it is begun once.
        ClientRequestToken=f"{name}-{statement.name}".ljust(32, "-"),
        WorkGroup=WORKGROUP,
        ResultConfiguration={"OutputLocation": f"{output}/results/"},
    )
    return str(begun["QueryExecutionId"])


def _told(statement: Statement, query: dict[str, Any]) -> str:
    facts = query.get("Statistics", {})
    scanned = facts.get("DataScannedInBytes", 0)
    usd = max(scanned, LEAST_BYTES) / 1e12 * USD_TB if scanned else 0.0
    seconds = facts.get("TotalExecutionTimeInMillis", 0) / 1000
    state = query["Status"]["State"]
    line = f"{statement.name}: {state}, {seconds:,.0f} s, {scanned / 1e9:,.3f} GB, {usd:.4f} USD"
    reason = " ".join(str(query["Status"].get("StateChangeReason") or "").split())
    return f"{line}: {reason}" if state != "SUCCEEDED" and reason else line


def _list_skipped(result: str, state: dict[str, Any]) -> str:
    """Write `skipped.csv` of the last query's result, which tells that all else is there."""
    region = state["region"]
    bucket, key = bucket_of(result)
    content: bytes = aws.ask("s3", "get_object", region, Bucket=bucket, Key=key)["Body"].read()
    rows = [Skipped(*row) for row in list(csv.reader(io.StringIO(content.decode(), newline="")))[1:]]
    bucket, key = bucket_of(f"{state['out']}/skipped.csv")
    aws.ask("s3", "put_object", region, Bucket=bucket, Key=key, Body=as_csv(rows))
    return f"{len(rows):,} records left out, each with its reason in {state['out']}/skipped.csv"


def runs(wanted: Wanted) -> dict[str, str]:
    """What runs, for a preview."""
    return {
        "job": wanted.name,
        "engine": "Athena, engine version 3",
        "queries": ", ".join(
            statement.name for statement in queries(wanted.name, wanted.records, wanted.out, wanted.output)
        ),
        "catalogue": f"database {DATABASE} of the Glue Data Catalog, whose tables stay",
        "workgroup": f"{WORKGROUP}, which must let queries choose where they write",
        "region": wanted.launcher.region,
        "ends after": "30 minutes each, unless your account has another limit",
    }


def price(wanted: Wanted, size: Size | None) -> dict[str, str]:
    """What it costs at most, for a preview."""
    made = queries(wanted.name, wanted.records, wanted.out, wanted.output)
    reads = sum(statement.reads for statement in made)
    rule = f"{USD_TB:g} USD for 10^12 bytes scanned (us-east-1, of 2026: check it)"
    if size is None:
        return {"Athena": f"the records are read at most {reads} times; {rule}"}
    scanned = sum(max(statement.reads * size.bytes, LEAST_BYTES) for statement in made if statement.reads)
    told = f"at most {reads} times {size.bytes / 1e9:,.3f} GB, each query 10 MB at least; {rule}"
    return {"Athena": f"{scanned / 1e12 * USD_TB:,.4f} USD: {told}"}


def shown(wanted: Wanted) -> list[tuple[str, str]]:
    """The queries, for a preview."""
    made = queries(wanted.name, wanted.records, wanted.out, wanted.output)
    return [(f"query {statement.name}: {statement.title}", statement.sql) for statement in made]
