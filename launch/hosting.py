"""A trained model that counts in SageMaker, behind an endpoint or over a folder of photos, on our own image.

A request for a model cannot say what its container runs: SageMaker starts every image with the argument
`serve`. AWS's own image and a wheel, which do for jobs, do not do here.
"""

import re
from dataclasses import dataclass
from typing import Any

from bincount.errors import BadInput
from launch import aws
from launch.job import Order

#: A model of ours is the run folder of a job.
OF_JOB = re.compile(r"s3://.+/(?P<job>[^/]+)/output/model\.tar\.gz")

NO_IMAGE = "000000000000.dkr.ecr.{region}.amazonaws.com/launcher.image-is-not-given:2.9.0-cpu-py312"

#: What all that is made carries, whoever's run it is.
PROJECT = {"project": "bincount"}


@dataclass(frozen=True, kw_only=True)
class Hosted(Order):
    """A model that counts. ``model``: the address of its model.tar.gz; ``run``: the job that trained it.

    ``kind``, ``instances``: what it runs on, and how many of these.
    """

    model: str
    run: str
    kind: str
    instances: int

    @property
    def instance_type(self) -> str:
        return self.kind

    @property
    def instance_key(self) -> str:
        return "instance_type"

    @property
    def image(self) -> str:
        return self.launcher.image or NO_IMAGE.format(region=self.launcher.region)

    @property
    def tags(self) -> list[dict[str, str]]:
        """By which `cleanup` finds it."""
        return [{"Key": key, "Value": value} for key, value in {**PROJECT, "bincount:run": self.run}.items()]


@dataclass(frozen=True, kw_only=True)
class Endpoint(Hosted):
    """A model that is asked for one photo, or a few, at a time.

    ``serverless``: it has ``memory`` MB while it counts, up to ``concurrency`` requests at the same time, and
    costs nothing while nobody asks; otherwise ``instances`` run all the time.
    """

    serverless: bool
    memory: int
    concurrency: int


@dataclass(frozen=True, kw_only=True)
class Transform(Hosted):
    """A job that counts each photo below ``photos``, all of the MIME type ``content``, into ``out``."""

    photos: str
    out: str
    content: str


def model_request(hosted: Hosted) -> dict[str, Any]:
    """The request CreateModel: the image, and the run folder as /opt/ml/model."""
    return {
        "ModelName": hosted.name,
        "PrimaryContainer": {"Image": hosted.image, "ModelDataUrl": hosted.model},
        "ExecutionRoleArn": hosted.role,
        "Tags": hosted.tags,
    }


def trained(job: str | None, model: str | None, region: str) -> tuple[str, str]:
    """The address of the model that is asked for, and whose it is. Raises BadInput.

    ``job``: a training job's name, or latest; ``model``: the address itself, for which AWS is not asked.
    """
    if (job is None) == (model is None):
        raise BadInput("which model: give job=NAME, job=latest or model=s3://bucket/…/model.tar.gz")
    if model is not None:
        found = OF_JOB.fullmatch(model)
        return model, found["job"] if found else "-".join(model.split("/")[-2:-1])
    if not aws.has_credentials():
        raise BadInput(f"job={job} cannot be looked up, so give model=s3://…: {aws.NO_CREDENTIALS}")
    name = _latest(region) if job == "latest" else str(job)
    facts = None
    with aws.UnknownAllowed():
        facts = aws.ask("sagemaker", "describe_training_job", region, TrainingJobName=name)
    if facts is None:
        raise BadInput(f"job={name}: there is no such training job in {region}")
    address = (facts.get("ModelArtifacts") or {}).get("S3ModelArtifacts")
    if not address or facts["TrainingJobStatus"] != "Completed":
        raise BadInput(f"job={name}: it has no model ({facts['TrainingJobStatus']})")
    return str(address), name


def _latest(region: str) -> str:
    wanted: dict[str, Any] = {"NameContains": "bincount-", "StatusEquals": "Completed", "MaxResults": 1}
    wanted |= {"SortBy": "CreationTime", "SortOrder": "Descending"}
    found = aws.ask("sagemaker", "list_training_jobs", region, **wanted)["TrainingJobSummaries"]
    if not found:
        raise BadInput(f"job=latest: no training job of bincount has come to its end in {region} yet")
    return str(found[0]["TrainingJobName"])
