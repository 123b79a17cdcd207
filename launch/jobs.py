"""A job that was sent: how it stands and what it cost so far, what it said, and how to stop it."""

import csv
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bincount import storage
from bincount.errors import BadInput
from launch import aws, instances, requests
from launch.job import bucket_of

LOGS = {kind: f"/aws/sagemaker/{kind}Jobs" for kind in ("Training", "Processing", "Transform")}

ENDED = ("Completed", "Failed", "Stopped")

#: What the figures of an epoch are called in metrics.csv.
COLUMNS = {
    "train:loss": "train/loss",
    "val:loss": "val/loss",
    "val:accuracy": "val/accuracy",
    "val:rmse": "val/rmse",
}
EPOCH = re.compile(r"epoch (\d+) of ")


@dataclass(frozen=True)
class Sent:
    """A job that AWS knows: what it answers to Describe, and which kind it is."""

    name: str
    kind: str
    region: str
    facts: dict[str, Any]

    @property
    def state(self) -> str:
        return str(self.facts[f"{self.kind}JobStatus"])

    @property
    def cluster(self) -> dict[str, Any]:
        """Instance type and count."""
        if self.kind == "Processing":
            return dict(self.facts["ProcessingResources"]["ClusterConfig"])
        return dict(self.facts["ResourceConfig" if self.kind == "Training" else "TransformResources"])

    @property
    def config_address(self) -> str | None:
        """Where the job's configuration lies in S3; None of a transform, which has none."""
        if self.kind == "Transform":
            return None
        if self.kind == "Training":
            channels = {each["ChannelName"]: each for each in self.facts["InputDataConfig"]}
            address = channels["config"]["DataSource"]["S3DataSource"]["S3Uri"]
        else:
            inputs = {each["InputName"]: each for each in self.facts["ProcessingInputs"]}
            address = inputs["config"]["S3Input"]["S3Uri"]
        return f"{str(address).rstrip('/')}/config.yaml"


def find(name: str, region: str) -> Sent:
    """The job of that name. Raises BadInput where there is none."""
    sent = found(name, region)
    if sent is None:
        raise BadInput(f"job={name}: there is no such job in {region}")
    return sent


def found(name: str, region: str, runs: str = "runs") -> Sent | None:
    """The job that trains, prepares, evaluates or transforms under that name; None where there is none."""
    for kind, described in _DESCRIBE.items():
        with aws.UnknownAllowed():
            return Sent(name, kind, region, described(name, region))
    return None


def _training(name: str, region: str) -> dict[str, Any]:
    return aws.ask("sagemaker", "describe_training_job", region, TrainingJobName=name)


def _processing(name: str, region: str) -> dict[str, Any]:
    return aws.ask("sagemaker", "describe_processing_job", region, ProcessingJobName=name)


def _transform(name: str, region: str) -> dict[str, Any]:
    return aws.ask("sagemaker", "describe_transform_job", region, TransformJobName=name)


_DESCRIBE = {"Training": _training, "Processing": _processing, "Transform": _transform}


def newest(region: str, runs: str) -> tuple[datetime, str] | None:
    """When the newest job was made, and its name."""
    wanted: dict[str, Any] = {"NameContains": "bincount-", "MaxResults": 1}
    wanted |= {"SortBy": "CreationTime", "SortOrder": "Descending"}
    listed = {
        "Training": aws.ask("sagemaker", "list_training_jobs", region, **wanted),
        "Processing": aws.ask("sagemaker", "list_processing_jobs", region, **wanted),
        "Transform": aws.ask("sagemaker", "list_transform_jobs", region, **wanted),
    }
    found = [
        (each["CreationTime"], each[f"{kind}JobName"])
        for kind, answer in listed.items()
        for each in answer[f"{kind}JobSummaries"]
    ]
    return max(found, default=None)


# --- status -------------------------------------------------------------------------------------------


def cost(sent: Sent, now: datetime) -> dict[str, Any]:
    """Seconds, billed seconds, spot saving and USD so far; AWS tells what spot saved at the job's end."""
    facts, cluster = sent.facts, sent.cluster
    started, ended = facts.get(f"{sent.kind}StartTime"), facts.get(f"{sent.kind}EndTime")
    running = max(0.0, ((ended or now) - started).total_seconds()) if started else 0.0
    seconds = facts.get("TrainingTimeInSeconds") or round(running)
    billed = facts.get("BillableTimeInSeconds") or seconds
    saved = 1 - billed / seconds if seconds and facts.get("EnableManagedSpotTraining") else 0.0
    told: dict[str, Any] = {
        "job": sent.name,
        "status": sent.state,
        "instance_type": cluster["InstanceType"],
        "instances": cluster["InstanceCount"],
        "seconds": int(seconds),
        "seconds_billed": int(billed),
        "spot_saving": round(saved, 4),
        "as_of": now.isoformat(timespec="seconds"),
    }
    if instance := instances.types().get(cluster["InstanceType"]):
        price = instances.price(instance, sent.region, sent.kind)
        told["usd"] = round(billed / 3600 * cluster["InstanceCount"] * price.usd_hour, 2)
        told["usd_hour"], told["price_from"] = price.usd_hour, price.source
    return told


def status(sent: Sent, runs: str) -> str:
    """How a job stands, as text; its run folder keeps what it costs as ``cost.json``."""
    told = cost(sent, datetime.now(UTC))
    folder = run_folder(sent, runs)
    storage.write_text(folder / "cost.json", json.dumps(told, indent=2) + "\n")
    usd = f"{told['usd']:,.2f} USD so far" if "usd" in told else "price not known"
    more = sent.facts.get("SecondaryStatus")
    lines = [
        f"{sent.name}: {sent.state}" + (f", {more}" if more and more != sent.state else ""),
        f"{told['instances']} x {told['instance_type']}: {told['seconds']:,} s, "
        f"{told['seconds_billed']:,} s billed",
        f"{usd}, saved by spot: {told['spot_saving']:.0%}",
    ]
    if "price_from" in told:
        lines.append(f"{told['usd_hour']:,.3f} USD an hour of an instance: {told['price_from']}")
    if reason := sent.facts.get("FailureReason") or sent.facts.get("ExitMessage"):
        lines.append(f"reason: {' '.join(str(reason).split())}")
    if model := (sent.facts.get("ModelArtifacts") or {}).get("S3ModelArtifacts"):
        lines.append(f"model: {model}")
    return "\n".join([*lines, f"kept in {folder}/cost.json"])


def run_folder(sent: Sent, runs: str) -> Path:
    """The run folder that stands for the job on this machine, with its configuration."""
    top = storage.folder(runs)
    for folder in top.glob(f"*/{sent.name}"):
        return folder
    if sent.config_address is None:
        return top / "transform" / sent.name
    bucket, key = bucket_of(sent.config_address)
    content: bytes = aws.ask("s3", "get_object", sent.region, Bucket=bucket, Key=key)["Body"].read()
    return write_run(top, sent.name, content.decode())


def write_run(runs: Path, name: str, config: str) -> Path:
    """Make the run folder of a job on this machine."""
    cfg = OmegaConf.create(config)
    assert isinstance(cfg, DictConfig)
    folder = runs / str(cfg.get("experiment") or "prepare") / name
    folder.mkdir(parents=True, exist_ok=True)
    storage.write_text(folder / "config.yaml", config)
    return folder


# --- logs ---------------------------------------------------------------------------------------------


def logs(sent: Sent, runs: str) -> str:
    """Bring what a job said into its run folder: log.txt, metrics.csv, and the curves drawn from it."""
    lines = log_lines(sent)
    folder = run_folder(sent, runs)
    folder.mkdir(parents=True, exist_ok=True)
    storage.write_text(folder / "log.txt", "".join(f"{line}\n" for line in lines))
    told = [*lines[-20:], f"{len(lines):,} lines in {folder}/log.txt"]
    if write_metrics(folder, lines, int(sent.facts.get("Environment", {}).get(requests.STEPS, 1))):
        told.append(f"figures in {folder}/metrics.csv and {folder}/evaluation/curves.png")
    return "\n".join(told)


def log_lines(sent: Sent) -> list[str]:
    """What all hosts said, by time; of several each line begins with its host."""
    said = events([LOGS[sent.kind]], f"{sent.name}/", sent.region)
    if not said:
        raise BadInput(f"job={sent.name}: it has said nothing yet ({sent.state})")
    hosts = len({event["logStreamName"] for event in said})
    return [
        f"{_host(event['logStreamName'])}: {event['message'].rstrip()}"
        if hosts > 1
        else event["message"].rstrip()
        for event in said
    ]


def events(groups: Iterable[str], beginning: str, region: str) -> list[dict[str, Any]]:
    """What CloudWatch has of streams whose names begin so, by time; of groups that are not there nothing."""
    said: list[dict[str, Any]] = []
    for group in groups:
        more: dict[str, str] = {}
        while True:
            wanted = {"logGroupName": group, "logStreamNamePrefix": beginning, **more}
            try:
                found = aws.ask("logs", "filter_log_events", region, **wanted)
            except aws.Refused as error:
                if error.code != "ResourceNotFoundException":
                    raise
                break
            said += found["events"]
            if not found.get("nextToken") or found["nextToken"] == more.get("nextToken"):
                break
            more = {"nextToken": found["nextToken"]}
    return sorted(said, key=lambda event: int(event["timestamp"]))


def _host(stream: str) -> str:
    """algo-1 of bincount-a-b/algo-1-1700000000."""
    return stream.rpartition("/")[2].rpartition("-")[0]


def write_metrics(folder: Path, lines: list[str], steps: int) -> bool:
    """Write metrics.csv, a row an epoch at its last step, and evaluation/curves.png.

    False where no epoch is told.
    """
    from bincount import pictures
    from bincount.training.loggers import MetricsFile

    path = folder / "metrics.csv"
    path.unlink(missing_ok=True)
    metrics, rows = MetricsFile(path), 0
    for line in lines:
        if found := EPOCH.search(line):
            epoch = int(found[1])
            seen = {
                COLUMNS[name]: float(match[1])
                for name, regex in requests.METRICS.items()
                if (match := re.search(regex, line))
            }
            metrics.log_metrics({"epoch": epoch - 1, **seen}, epoch * steps - 1)
            rows += 1
    if not rows:
        return False
    metrics.write()
    (folder / "evaluation").mkdir(exist_ok=True)
    with path.open(newline="", encoding="utf-8") as file:
        pictures.curves(folder / "evaluation/curves.png", list(csv.DictReader(file)))
    return True


# --- stop ---------------------------------------------------------------------------------------------


def stop(sent: Sent, runs: str) -> str:
    """Ask a job to end: ranks that train save a checkpoint first, in the two minutes that SageMaker gives."""
    if sent.state in ENDED:
        return f"{sent.name} has ended already: {sent.state}"
    if sent.kind == "Training":
        aws.ask("sagemaker", "stop_training_job", sent.region, TrainingJobName=sent.name)
        return f"{sent.name} is stopping: it saves a checkpoint first"
    if sent.kind == "Processing":
        aws.ask("sagemaker", "stop_processing_job", sent.region, ProcessingJobName=sent.name)
    else:
        aws.ask("sagemaker", "stop_transform_job", sent.region, TransformJobName=sent.name)
    return f"{sent.name} is stopping"
