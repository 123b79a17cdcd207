"""A pipeline's latest execution: how its steps stand, what they cost, what failed; and how to stop it."""

import secrets
from datetime import UTC, datetime
from typing import Any, NamedTuple

from bincount.errors import BadInput
from launch import aws, jobs

#: Under which word a step of SageMaker tells the job that it is.
JOBS = ("TrainingJob", "ProcessingJob")

RUNNING = ("Executing", "Stopping")


class Sent(NamedTuple):
    """A pipeline, and what AWS tells of its latest execution, ``arn``."""

    name: str
    region: str
    arn: str
    execution: dict[str, Any]


def found(name: str, region: str, runs: str) -> Sent | None:
    """The latest execution of a pipeline, None where none is called so. Raises BadInput if it has none."""
    wanted: dict[str, Any] = {"SortBy": "CreationTime", "SortOrder": "Descending", "MaxResults": 1}
    told = None
    with aws.UnknownAllowed():
        told = aws.ask("sagemaker", "list_pipeline_executions", region, PipelineName=name, **wanted)
    if told is None:
        return None
    if not told["PipelineExecutionSummaries"]:
        raise BadInput(f"job={name}: the pipeline is there, and was never started")
    arn = str(told["PipelineExecutionSummaries"][0]["PipelineExecutionArn"])
    execution = aws.ask("sagemaker", "describe_pipeline_execution", region, PipelineExecutionArn=arn)
    return Sent(name, region, arn, execution)


def newest(region: str, runs: str) -> tuple[datetime, str] | None:
    """When a pipeline was last started, and its name."""
    # AWS takes no prefix that ends in a hyphen.
    wanted: dict[str, Any] = {"PipelineNamePrefix": "bincount", "MaxResults": 100}
    told = aws.ask("sagemaker", "list_pipelines", region, **wanted)
    times = [
        (each["LastExecutionTime"], str(each["PipelineName"]))
        for each in told["PipelineSummaries"]
        if each["PipelineName"].startswith("bincount-") and each.get("LastExecutionTime")
    ]
    return max(times, default=None)


def status(sent: Sent, runs: str) -> str:
    """How the latest execution stands, a line a step."""
    execution, usd = sent.execution, 0.0
    lines = [f"{sent.name}: {execution['PipelineExecutionStatus']}, execution {sent.arn.rpartition('/')[2]}"]
    for step in _steps(sent):
        job = _job_of(step)
        lines.append(f"  {step['StepName']:<9} {_told(step)}" + (f", job {job}" if job else ""))
        if job and (cost := _cost(job, sent.region)) is not None:
            usd += cost
            lines[-1] += f", {cost:,.2f} USD"
        if reason := step.get("FailureReason"):
            lines.append(f"            reason: {' '.join(str(reason).split())}")
    if reason := execution.get("FailureReason"):
        lines.append(f"reason: {' '.join(str(reason).split())}")
    return "\n".join([*lines, f"{usd:,.2f} USD so far"])


def logs(sent: Sent, runs: str) -> str:
    """Tell whose logs there are: those of its jobs."""
    told = [f"  logs job={job}" for step in _steps(sent) if (job := _job_of(step))]
    if not told:
        raise BadInput(f"job={sent.name}: none of its jobs has begun yet")
    return "\n".join([f"{sent.name} is a pipeline; its jobs say:", *told])


def stop(sent: Sent, runs: str) -> str:
    """Ask the latest execution to end, and with it the job that runs."""
    state = sent.execution["PipelineExecutionStatus"]
    if state not in RUNNING:
        return f"{sent.name} has ended already: {state}"
    asked = {"PipelineExecutionArn": sent.arn, "ClientRequestToken": secrets.token_hex(16)}
    aws.ask("sagemaker", "stop_pipeline_execution", sent.region, **asked)
    return f"{sent.name} is stopping: the step that runs is ended"


def _steps(sent: Sent) -> list[dict[str, Any]]:
    """The steps that have begun, in their order."""
    wanted = {"PipelineExecutionArn": sent.arn, "SortOrder": "Ascending"}
    told = aws.ask("sagemaker", "list_pipeline_execution_steps", sent.region, **wanted)
    return list(told["PipelineExecutionSteps"])


def _told(step: dict[str, Any]) -> str:
    """How a step stands, and what came of it."""
    told = [str(step["StepStatus"])]
    if step.get("CacheHitResult"):
        told.append("taken from an earlier execution")
    elif started := step.get("StartTime"):
        told.append(f"{((step.get('EndTime') or datetime.now(UTC)) - started).total_seconds():,.0f} s")
    answered = step.get("Metadata", {}).get("Lambda", {}).get("OutputParameters", [])
    return ", ".join([*told, *(f"{each['Name']}: {each['Value']}" for each in answered)])


def _job_of(step: dict[str, Any]) -> str | None:
    """The name of the job that a step is; None where it is none, or has run in an earlier execution."""
    if step.get("CacheHitResult"):
        return None
    arns = [step["Metadata"][kind].get("Arn") for kind in JOBS if kind in step.get("Metadata", {})]
    return str(arns[0]).rpartition("/")[2] if arns and arns[0] else None


def _cost(job: str, region: str) -> float | None:
    """USD that a job cost so far, where its price is known."""
    sent = jobs.found(job, region)
    usd = jobs.cost(sent, datetime.now(UTC)).get("usd") if sent else None
    return None if usd is None else float(usd)
