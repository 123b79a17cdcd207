"""From a job to the request that makes it: pure, and plain dicts as boto3 takes them."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from launch.job import Job

#: What SageMaker's console draws: the figures in the line that `bincount.training.reporting` logs each epoch.
METRICS = {
    "train:loss": r"epoch \d+ of \w+ +loss ([0-9.]+)",
    "val:loss": r"epoch \d+ of .* val loss ([0-9.]+)",
    "val:accuracy": r"epoch \d+ of .* accuracy ([0-9.]+)",
    "val:rmse": r"epoch \d+ of .* RMSE ([0-9.]+)",
}

ENTRY = ["python", "-m", "bincount.container"]

#: The lighter way: the wheel is installed on AWS's image when the job starts; torch stays the image's own.
INSTALL = (
    "pip list --format=freeze | grep -E '^torch(vision)?==' > /tmp/own.txt; "
    "pip install -q -c /tmp/own.txt {folder}/*.whl && "
    'exec python -m bincount.container "$@"'
)

#: Tells `submit.py logs` how long an epoch was.
STEPS = "BINCOUNT_STEPS_PER_EPOCH"


def operation(job: Job) -> str:
    """The name of the request in AWS's API."""
    return "CreateTrainingJob" if job.train else "CreateProcessingJob"


def request(job: Job) -> dict[str, Any]:
    """The request that makes the job."""
    return training_job(job) if job.train else processing_job(job)


def config_yaml(job: Job) -> str:
    """The whole resolved configuration: what the container reads."""
    return OmegaConf.to_yaml(OmegaConf.create(asdict(job.config)))


def training_job(job: Job) -> dict[str, Any]:
    """The request CreateTrainingJob."""
    config, launcher = job.train, job.launcher
    assert config is not None
    channels = [_channel("config", job.place("config/"))]
    if launcher.code is not None:
        channels.append(_channel("code", job.place("code/")))
    if launcher.input != "s3":
        channels.append(_channel("data", config.data.root.rstrip("/") + "/", launcher.input))
    made: dict[str, Any] = {
        "TrainingJobName": job.name,
        "RoleArn": job.role,
        "AlgorithmSpecification": {
            "TrainingImage": job.image,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": _entry(job, "/opt/ml/input/data/code"),
            "ContainerArguments": ["train"],
            "MetricDefinitions": [{"Name": name, "Regex": regex} for name, regex in METRICS.items()],
        },
        "InputDataConfig": channels,
        "OutputDataConfig": {"S3OutputPath": job.output},
        "ResourceConfig": {
            "InstanceType": launcher.instance_type,
            "InstanceCount": launcher.nodes,
            "VolumeSizeInGB": launcher.volume_gb,
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": _seconds(launcher.max_hours)},
        "EnableManagedSpotTraining": launcher.spot,
        "Environment": _environment(job),
        "Tags": _tags(job),
    }
    if job.checkpoints is not None:
        made["CheckpointConfig"] = {"S3Uri": job.checkpoints, "LocalPath": "/opt/ml/checkpoints"}
    if launcher.max_wait_hours is not None:
        made["StoppingCondition"]["MaxWaitTimeInSeconds"] = _seconds(launcher.max_wait_hours)
    return made


def processing_job(job: Job) -> dict[str, Any]:
    """The request CreateProcessingJob; of several instances each prepares the parts of its own number."""
    launcher = job.launcher
    inputs = [processing_input("config", job.place("config/"))]
    if launcher.code is not None:
        inputs.append(processing_input("code", job.place("code/")))
    return {
        "ProcessingJobName": job.name,
        "RoleArn": job.role,
        "AppSpecification": {
            "ImageUri": job.image,
            "ContainerEntrypoint": _entry(job, "/opt/ml/processing/input/code"),
            "ContainerArguments": [job.verb],
        },
        "ProcessingInputs": inputs,
        "ProcessingResources": {
            "ClusterConfig": {
                "InstanceType": launcher.prepare_instance_type,
                "InstanceCount": launcher.nodes,
                "VolumeSizeInGB": launcher.volume_gb,
            }
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": _seconds(launcher.max_hours)},
        "Environment": _environment(job),
        "Tags": _tags(job),
    }


def uploads(job: Job) -> dict[str, bytes]:
    """What has to be in S3 before the job is made, by its address."""
    made = {job.place("config/config.yaml"): config_yaml(job).encode()}
    if job.launcher.code is not None:
        wheel = Path(job.launcher.code).expanduser()
        made[job.place(f"code/{wheel.name}")] = wheel.read_bytes()
    return made


def shown(made: dict[str, Any]) -> str:
    """The request as people read it, and as the golden files keep it."""
    return json.dumps(made, indent=2)


def _seconds(hours: float) -> int:
    return max(1, round(hours * 3600))


def _entry(job: Job, code: str) -> list[str]:
    return ENTRY if job.launcher.code is None else ["bash", "-c", INSTALL.format(folder=code), "bincount"]


def _channel(name: str, address: str, mode: str = "File") -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": address, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}, "InputMode": mode}


def processing_input(name: str, address: Any) -> dict[str, Any]:
    """What a processing job finds in /opt/ml/processing/input/NAME."""
    where = {
        "S3Uri": address,
        "LocalPath": f"/opt/ml/processing/input/{name}",
        "S3DataType": "S3Prefix",
        "S3InputMode": "File",
        "S3DataDistributionType": "FullyReplicated",
    }
    return {"InputName": name, "S3Input": where}


def _environment(job: Job) -> dict[str, str]:
    """Nothing secret: secrets go by their names, and the container asks for their values."""
    told = {"PYTHONUNBUFFERED": "1"}
    if job.secrets:
        told["BINCOUNT_SECRETS"] = ",".join(f"{variable}={name}" for variable, name in job.secrets.items())
    if job.steps is not None:
        told[STEPS] = str(job.steps)
    return told


def _tags(job: Job) -> list[dict[str, str]]:
    tags = {"project": "bincount", "bincount:verb": job.verb, "bincount:run": job.name}
    if job.train:
        tags["bincount:experiment"] = job.train.experiment
    return [{"Key": key, "Value": value} for key, value in tags.items()]
