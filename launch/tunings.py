"""A tuning job that was sent: how its trials stand and which is best so far; and how to stop it."""

from datetime import datetime
from typing import Any, NamedTuple

from bincount.errors import BadInput
from launch import aws, jobs


class Sent(NamedTuple):
    """A tuning job, and what AWS tells of it."""

    name: str
    region: str
    facts: dict[str, Any]

    @property
    def state(self) -> str:
        return str(self.facts["HyperParameterTuningJobStatus"])


def found(name: str, region: str, runs: str) -> Sent | None:
    """The tuning job of that name, None where there is none."""
    named = {"HyperParameterTuningJobName": name}
    with aws.UnknownAllowed():
        facts = aws.ask("sagemaker", "describe_hyper_parameter_tuning_job", region, **named)
        return Sent(name, region, facts)
    return None


def newest(region: str, runs: str) -> tuple[datetime, str] | None:
    """When the newest tuning job was made, and its name."""
    wanted: dict[str, Any] = {"NameContains": "bincount-", "MaxResults": 1}
    wanted |= {"SortBy": "CreationTime", "SortOrder": "Descending"}
    answer = aws.ask("sagemaker", "list_hyper_parameter_tuning_jobs", region, **wanted)
    found = answer["HyperParameterTuningJobSummaries"]
    return (found[0]["CreationTime"], str(found[0]["HyperParameterTuningJobName"])) if found else None


def status(sent: Sent, runs: str) -> str:
    """How the tuning job and its trials stand, and the best of them."""
    facts = sent.facts
    counts = facts.get("TrainingJobStatusCounters", {})
    failed = counts.get("RetryableError", 0) + counts.get("NonRetryableError", 0)
    most = facts["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxNumberOfTrainingJobs"]
    lines = [
        f"{sent.name}: {sent.state}",
        f"{counts.get('Completed', 0)} trials completed, {counts.get('InProgress', 0)} running, "
        f"{failed} failed, {counts.get('Stopped', 0)} stopped, of {most}",
    ]
    best = facts.get("BestTrainingJob")
    if best and (score := best.get("FinalHyperParameterTuningJobObjectiveMetric")):
        values = ", ".join(f"{key}={value}" for key, value in best["TunedHyperParameters"].items())
        lines.append(
            f"best: {score['MetricName']} {score['Value']:.4g} with {values}, job {best['TrainingJobName']}"
        )
    if reason := facts.get("FailureReason"):
        lines.append(f"reason: {' '.join(str(reason).split())}")
    return "\n".join(lines)


def logs(sent: Sent, runs: str) -> str:
    """Tell whose logs there are: those of its trials."""
    named = {"HyperParameterTuningJobName": sent.name, "MaxResults": 100}
    told = aws.ask("sagemaker", "list_training_jobs_for_hyper_parameter_tuning_job", sent.region, **named)
    if not told["TrainingJobSummaries"]:
        raise BadInput(f"job={sent.name}: none of its trials has begun yet")
    jobs_of = [f"  logs job={each['TrainingJobName']}" for each in told["TrainingJobSummaries"]]
    return "\n".join([f"{sent.name} is a tuning job; its trials say:", *jobs_of])


def stop(sent: Sent, runs: str) -> str:
    """Ask the tuning job to end, and with it the trials that run."""
    if sent.state in jobs.ENDED:
        return f"{sent.name} has ended already: {sent.state}"
    named = {"HyperParameterTuningJobName": sent.name}
    aws.ask("sagemaker", "stop_hyper_parameter_tuning_job", sent.region, **named)
    return f"{sent.name} is stopping: the trials that run are ended"
