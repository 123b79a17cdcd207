"""tables: the tables of records by a Glue job (Spark) or by Athena, previewed or sent."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from bincount import storage
from bincount.compose import compose, typed
from bincount.config import FolderSource, PhotoSource, PrepareConfig, S3Source, SageMaker
from bincount.errors import BadInput, BincountError
from launch import aws, checks, preview
from launch.job import ROLE, bucket_of, new_name
from launch.overrides import launcher_of, of_launcher, own_beside, ruled, sending

#: What names of these jobs begin with.
NAMED = "bincount-tables-"

#: Hours that a Glue job may take, unless said.
HOURS = 2

#: USD for 1,000 requests of S3 that read: us-east-1, of 2026.
USD_1000_GETS = 0.0004

WORKER_TYPES = {"G.1X": 1, "G.2X": 2}
"""Kinds of Glue's workers, and the DPUs of each."""


@dataclass
class Words:
    """The keys of `tables` beside those of `prepare`: how many workers Glue gives the job, and which."""

    workers: int = ruled(10, lambda value: value >= 2, "must be 2 or above: one of them drives")
    worker_type: str = ruled(
        "G.1X", lambda value: value in WORKER_TYPES, f"must be one of {', '.join(WORKER_TYPES)}"
    )


@dataclass(frozen=True)
class Wanted:
    """Which tables are to be made, by what. ``records`` and ``out``: s3://bucket/prefix."""

    name: str
    engine: str
    records: str
    out: str
    launcher: SageMaker
    workers: int
    worker_type: str

    @property
    def output(self) -> str:
        """Under which address the job keeps what is its own; a place that nobody has where none was given."""
        return f"{(self.launcher.output or 's3://launcher.output-is-not-given').rstrip('/')}/{self.name}"


@dataclass(frozen=True)
class Size:
    """How many records there are, and their bytes."""

    records: int
    bytes: int


def tables(words: list[str]) -> None:
    """Preview the making of tables, or begin it. Raises BadInput where something would go wrong."""
    send = sending(words)
    wanted = composed(words)
    lacking = missing(wanted)
    if send:
        if lacking:
            raise BadInput(lacking[0])
        _send(wanted)
        return
    size, told = measured(wanted)
    print(_preview(wanted, size, told))
    print(preview.ending(lacking))


def composed(words: list[str], name: str | None = None) -> Wanted:
    """What the words ask for; they are those of `prepare` and of the launcher."""
    given = own_beside("tables", words, Words)
    launchers = [word for word in words if of_launcher(word)]
    if not any(word.startswith("launcher.max_hours=") for word in launchers):
        launchers.append(f"launcher.max_hours={HOURS}")
    rest = [word for word in words if not of_launcher(word)]
    for key, default in {"source": "folder", "source.images": "null", "tables.engine": "spark"}.items():
        if not any(word.partition("=")[0] == key for word in rest):
            rest.append(f"{key}={default}")
    config: PrepareConfig = typed("prepare", compose("prepare", rest))
    engine = config.tables.engine
    if engine == "local":
        raise BadInput("tables.engine=local: that is `bincount prepare`; here spark (Glue) or athena")
    wanted = Wanted(
        name=name or new_name("tables"),
        engine=engine,
        records=_records(config),
        out=config.out.rstrip("/"),
        launcher=launcher_of(launchers),
        **asdict(given),
    )
    for key, address in {"source.metadata": wanted.records, "out": wanted.out}.items():
        if not checks.BUCKET.fullmatch(address):
            raise BadInput(
                f"{key}={address}: Glue and Athena see no folder of this machine: give s3://bucket/…"
            )
    return wanted


def _records(config: PrepareConfig) -> str:
    source = config.source
    if not isinstance(source, PhotoSource) or source.metadata is None:
        raise BadInput("source.metadata is not given: add source.metadata=s3://bucket/prefix of ID.json")
    if source.images is not None:
        raise BadInput(
            "source.images: here tables alone are made: leave it out; `submit.py prepare` prepares photos"
        )
    if isinstance(source, S3Source):
        if source.list is not None:
            raise BadInput("source.list: Spark and Athena read all records: leave it out")
        return f"{source.bucket.rstrip('/')}/{source.metadata.strip('/')}"
    assert isinstance(source, FolderSource)
    return source.metadata.rstrip("/")


def missing(wanted: Wanted) -> list[str]:
    """What has to be given yet before it can be sent."""
    found = []
    if wanted.launcher.output is None:
        found.append("launcher.output is not given: add launcher.output=s3://bucket/prefix")
    elif not checks.BUCKET.fullmatch(wanted.launcher.output):
        found.append(f"launcher.output={wanted.launcher.output} is no place in S3: write s3://bucket/prefix")
    role = wanted.launcher.role
    if wanted.engine == "spark" and (role is None or not ROLE.fullmatch(role)):
        found.append("launcher.role is not given: add launcher.role=arn:aws:iam::ACCOUNT:role/NAME")
    return found


def measured(wanted: Wanted) -> tuple[Size | None, str]:
    """How much there is to read, or why that is not known."""
    if not aws.has_credentials():
        return None, f"not known: {aws.NO_CREDENTIALS}"
    bucket, key = bucket_of(wanted.records)
    asked: dict[str, Any] = {"Bucket": bucket, "Prefix": f"{key}/" if key else "", "Delimiter": "/"}
    records = size = 0
    try:
        while True:
            found = aws.ask("s3", "list_objects_v2", wanted.launcher.region, **asked)
            sizes = [
                each["Size"] for each in found.get("Contents", []) if each["Key"].lower().endswith(".json")
            ]
            records, size = records + len(sizes), size + sum(sizes)
            if not found.get("IsTruncated"):
                return Size(records, size), f"{records:,} records of {size / 1e9:,.3f} GB together"
            asked["ContinuationToken"] = found["NextContinuationToken"]
    except BincountError as error:
        return None, f"not known: {error}"


def _send(wanted: Wanted) -> None:
    """Look for what only AWS can tell, and begin."""
    from launch import athena, glue

    region = wanted.launcher.region
    aws.ask("sts", "get_caller_identity", region)
    size, told = measured(wanted)
    if size is None:
        raise BadInput(f"source.metadata={wanted.records}: {told}")
    if not size.records:
        raise BadInput(f"source.metadata={wanted.records}: there are no records in it (ID.json)")
    bucket, key = bucket_of(wanted.out)
    for name in ("index.json", "skipped.csv", "tables/"):
        prefix = f"{key}/{name}".lstrip("/")
        found = aws.ask("s3", "list_objects_v2", region, Bucket=bucket, Prefix=prefix, MaxKeys=1)
        if found.get("KeyCount"):
            raise BadInput(f"out={wanted.out} has a data set or tables already: name another prefix")
    if wanted.engine == "spark":
        glue.send(wanted)
    else:
        athena.send(wanted)


def write_state(wanted: Wanted, runs: str, state: dict[str, Any]) -> None:
    """Keep on this machine what `status` has to know."""
    facts = {"engine": wanted.engine, "region": wanted.launcher.region, "output": wanted.output}
    facts |= {"records": wanted.records, "out": wanted.out}
    path = storage.folder(runs) / "tables" / wanted.name / "tables.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    storage.write_text(path, json.dumps({**facts, **state}, indent=2) + "\n")


# --- what became of it --------------------------------------------------------------------------------


class Sent(NamedTuple):
    """What was noted when it was sent, and in which file."""

    name: str
    path: Path
    state: dict[str, Any]


def found(name: str, region: str, runs: str) -> Sent | None:
    """The making of tables under this name, None where it is no such name. Raises BadInput."""
    if not name.startswith(NAMED):
        return None
    path = storage.folder(runs) / "tables" / name / "tables.json"
    try:
        return Sent(name, path, json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise BadInput(f"job={name}: {path} is not there: it was sent from elsewhere, give runs=…") from None


def newest(region: str, runs: str) -> tuple[datetime, str] | None:
    """When the newest was sent from this machine, and its name."""
    sent = (storage.folder(runs) / "tables").glob(f"{NAMED}*/tables.json")
    here = [path for path in sent if json.loads(path.read_text(encoding="utf-8"))["region"] == region]
    times = [(datetime.fromtimestamp(path.stat().st_mtime, UTC), path.parent.name) for path in here]
    return max(times, default=None)


def status(sent: Sent, runs: str) -> str:
    """How the making of tables stands."""
    from launch import athena, glue

    if sent.state["engine"] == "spark":
        return glue.status(sent.name, sent.state)
    lines, ended = athena.advance(sent.name, sent.path, sent.state)
    return "\n".join([*lines, *([] if ended else ["in between: this command begins the next query"])])


def logs(sent: Sent, runs: str) -> str:
    """Bring what the job said into log.txt of its folder."""
    from launch import glue

    if sent.state["engine"] != "spark":
        raise BadInput(f"job={sent.name}: Athena's queries say nothing but how they stand: take `status`")
    lines, path = glue.said(sent.name, sent.state), sent.path.with_name("log.txt")
    storage.write_text(path, "".join(f"{line}\n" for line in lines))
    return "\n".join([*lines[-20:], f"{len(lines):,} lines in {path}"])


def stop(sent: Sent, runs: str) -> str:
    """Ask the job, or the query that runs, to end."""
    from launch import athena, glue

    ending = glue.stop if sent.state["engine"] == "spark" else athena.stop
    return ending(sent.name, sent.state)


# --- the preview --------------------------------------------------------------------------------------


def _preview(wanted: Wanted, size: Size | None, told: str) -> str:
    from launch import athena, glue

    runs, price, requests = (
        (glue.runs(wanted), glue.price(wanted), glue.shown(wanted))
        if wanted.engine == "spark"
        else (athena.runs(wanted), athena.price(wanted, size), athena.shown(wanted))
    )
    gets = f"{2 * size.records:,} requests" if size else "two requests a record"
    usd = f" = {2 * size.records / 1000 * USD_1000_GETS:,.2f} USD" if size else ""
    price["beside that"] = f"S3, for {gets}{usd} (0.0004 USD for 1,000), and storage of the tables"
    places = {
        "records": f"{wanted.records}/ID.json: {told}",
        "tables": f"{wanted.out}/tables/bins, {wanted.out}/tables/items",
        "left out": f"{wanted.out}/skipped.csv, the last to be written",
    }
    parts = [
        ("what runs", preview.lines(runs)),
        ("in and out", preview.lines(places)),
        ("price, at most", preview.lines(price)),
        *requests,
    ]
    return preview.sections(parts)
