"""A Glue job that makes the tables: `bincount/engines/spark.py` as it is, put into S3."""

import json
from pathlib import Path
from typing import Any

from bincount.engines import spark
from bincount.errors import BadInput
from launch import aws, jobs, requests, service_model
from launch.job import bucket_of
from launch.tables import WORKER_TYPES, Wanted, write_state

#: Spark 3.5, Python 3.11, Java 17.
VERSION = "5.0"

#: USD for a DPU and an hour: us-east-1, of 2026. Glue bills seconds, one minute at the least.
USD_DPU_HOUR = 0.44

#: Where Glue keeps what a job says.
LOGS = ("/aws-glue/jobs/output", "/aws-glue/jobs/error")

ENDED = ("SUCCEEDED", "FAILED", "STOPPED", "TIMEOUT", "ERROR", "EXPIRED")


def request(wanted: Wanted) -> dict[str, Any]:
    """What makes the job."""
    return {
        "Name": wanted.name,
        "Role": wanted.launcher.role or "launcher.role-is-not-given",
        "Command": {"Name": "glueetl", "ScriptLocation": _script(wanted), "PythonVersion": "3"},
        "GlueVersion": VERSION,
        "WorkerType": wanted.worker_type,
        "NumberOfWorkers": wanted.workers,
        "Timeout": _minutes(wanted),
        "MaxRetries": 0,
        "DefaultArguments": {
            "--records": wanted.records,
            "--out": wanted.out,
            "--enable-continuous-cloudwatch-log": "true",
        },
    }


def _script(wanted: Wanted) -> str:
    return f"{wanted.output}/spark.py"


def _minutes(wanted: Wanted) -> int:
    return max(1, round(wanted.launcher.max_hours * 60))


def send(wanted: Wanted) -> None:
    """Put the script into S3, make the job, and start it."""
    region, made = wanted.launcher.region, request(wanted)
    service_model.check("glue", "CreateJob", made)
    _check_role(wanted)
    bucket, key = bucket_of(_script(wanted))
    aws.ask("s3", "put_object", region, Bucket=bucket, Key=key, Body=Path(spark.__file__).read_bytes())
    aws.ask("glue", "create_job", region, **made)
    run = aws.ask("glue", "start_job_run", region, JobName=wanted.name)["JobRunId"]
    write_state(wanted, "runs", {"run": run})
    print(f"sent {wanted.name}\n  python launch/submit.py status job={wanted.name}")
    print(f"  bincount explore data.root={wanted.out}")


def _check_role(wanted: Wanted) -> None:
    role = str(wanted.launcher.role)
    try:
        found = aws.ask("iam", "get_role", wanted.launcher.region, RoleName=role.rpartition("/")[2])["Role"]
    except aws.Refused as error:
        if error.code != "NoSuchEntity":
            raise
        raise BadInput(f"launcher.role={role}: there is no such role: docs/sagemaker.md makes it") from None
    if "glue.amazonaws.com" not in json.dumps(found.get("AssumeRolePolicyDocument", "")):
        raise BadInput(f"launcher.role={role}: Glue may not take it: its trust lacks glue.amazonaws.com")


def status(name: str, state: dict[str, Any]) -> str:
    """How the job stands, and what it cost so far."""
    runs = aws.ask("glue", "get_job_runs", state["region"], JobName=name)["JobRuns"]
    if not runs:
        raise BadInput(f"job={name}: it was made and not started")
    run = runs[0]
    seconds = float(run.get("ExecutionTime") or 0)
    dpus = run.get("NumberOfWorkers", 0) * WORKER_TYPES.get(run.get("WorkerType", ""), 1)
    billed = float(run.get("DPUSeconds") or dpus * max(seconds, 60)) / 3600
    lines = [
        f"{name}: {run['JobRunState']}, {seconds:,.0f} s",
        f"{billed:,.2f} DPU-hours, {billed * USD_DPU_HOUR:,.2f} USD so far at {USD_DPU_HOUR} USD each",
    ]
    if reason := run.get("ErrorMessage"):
        lines.append(f"reason: {' '.join(str(reason).split())}")
    if run["JobRunState"] in ENDED:
        lines.append("logs: CloudWatch, /aws-glue/jobs/error and /aws-glue/jobs/output")
        lines.append(f"the tables: bincount explore data.root={state['out']}")
    return "\n".join(lines)


def said(name: str, state: dict[str, Any]) -> list[str]:
    """What the job logged, in order. Raises BadInput where it is nothing yet."""
    said = jobs.events(LOGS, state["run"], state["region"])
    if not said:
        raise BadInput(f"job={name}: it has said nothing yet")
    return [str(event["message"]).rstrip() for event in said]


def stop(name: str, state: dict[str, Any]) -> str:
    """Ask the job to end."""
    answer = aws.ask("glue", "batch_stop_job_run", state["region"], JobName=name, JobRunIds=[state["run"]])
    if problems := answer.get("Errors"):
        told = problems[0]["ErrorDetail"].get("ErrorMessage", "")
        return f"{name} is not stopped: {' '.join(told.split())}"
    return f"{name} is stopping"


def runs(wanted: Wanted) -> dict[str, str]:
    """What runs, for a preview."""
    return {
        "job": wanted.name,
        "engine": f"Glue {VERSION}: PySpark 3.5, Python 3.11",
        "script": f"{_script(wanted)}, which is bincount/engines/spark.py",
        "workers": f"{wanted.workers} x {wanted.worker_type}: {_dpus(wanted)} DPU",
        "region": wanted.launcher.region,
        "role": str(wanted.launcher.role or "launcher.role is not given"),
        "ends after": f"{_minutes(wanted)} minutes",
    }


def price(wanted: Wanted) -> dict[str, str]:
    """What it costs at most, for a preview."""
    hours = _dpus(wanted) * _minutes(wanted) / 60
    told = f"{hours:,.1f} DPU-hours x {USD_DPU_HOUR} USD (us-east-1, of 2026: check it); seconds are billed"
    return {"Glue": f"{hours * USD_DPU_HOUR:,.2f} USD = {told}, a minute at least"}


def _dpus(wanted: Wanted) -> int:
    return wanted.workers * WORKER_TYPES[wanted.worker_type]


def shown(wanted: Wanted) -> list[tuple[str, str]]:
    """The requests, for a preview."""
    return [("request CreateJob", requests.shown(request(wanted)))]
