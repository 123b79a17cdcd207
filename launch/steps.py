"""A SageMaker Pipeline's definition: its steps, and what goes from one to the next. Pure.

The arguments of a step are the request that makes its job, without the name: SageMaker names the job, and
fills in what only an execution knows.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from launch import deploy, requests
from launch.hosting import PROJECT, Endpoint
from launch.job import ROLE, Job, Order
from launch.transform import PHOTOS

#: Of AWS's schema for definitions.
VERSION = "2020-12-01"

#: The data set is made once: a later execution with the same configuration and image takes it as it is.
CACHED = {"Enabled": True, "ExpireAfter": "P365D"}

#: What the step Evaluate leaves, and the file of it that has the figures.
FIGURES, RESULTS = "figures", "results.json"

#: What a figure that training watches is called in results.json.
CALLED = {"val/accuracy": "accuracy", "val/rmse": "rmse", "val/mae": "mae", "val/loss": "nll"}

#: Requests of the jobs by the type of their step, and where their name stands.
JOBS = {
    "Processing": ("CreateProcessingJob", "ProcessingJobName"),
    "Training": ("CreateTrainingJob", "TrainingJobName"),
}


@dataclass(frozen=True, kw_only=True)
class Pipeline(Order):
    """Prepare, train, evaluate, register, and deploy if better. ``name`` is that of all that it has.

    ``prepare`` None: the data set is there; ``endpoint`` None: it ends with a registered model.
    ``acts_as``: the role that starts jobs and deploys, which jobs do not have. ``token``: of its making.
    """

    prepare: Job | None
    train: Job
    evaluate: Job
    endpoint: Endpoint | None
    acts_as: str | None
    token: str

    @property
    def instance_type(self) -> str:
        return self.train.instance_type

    @property
    def instance_key(self) -> str:
        return self.train.instance_key

    @property
    def image(self) -> str:
        return self.train.image

    @property
    def jobs(self) -> dict[str, Job]:
        """The steps that are jobs, in their order."""
        found = {"Prepare": self.prepare, "Train": self.train, "Evaluate": self.evaluate}
        return {name: job for name, job in found.items() if job is not None}

    @property
    def monitor(self) -> str:
        """The figure by which models are compared, as training has it."""
        assert self.train.train is not None
        return self.train.train.trainer.monitor

    @property
    def control_role(self) -> str:
        return self.acts_as or "arn:aws:iam::000000000000:role/pipeline_role-is-not-given"

    @property
    def function(self) -> str:
        """The ARN of the Lambda function that deploys."""
        partition, account = self.control_role.split(":")[1], self.control_role.split(":")[4]
        return f"arn:{partition}:lambda:{self.launcher.region}:{account}:function:{self.name}"

    @property
    def control_account(self) -> str | None:
        found = ROLE.fullmatch(self.control_role)
        return found["account"] if found else None

    @property
    def tags(self) -> dict[str, str]:
        """By which `cleanup` finds what it made."""
        return {**PROJECT, "bincount:run": self.name}


def definition(pipeline: Pipeline) -> dict[str, Any]:
    """The whole definition."""
    steps = [_job(pipeline, name, job) for name, job in pipeline.jobs.items()]
    steps.append(_register(pipeline))
    if pipeline.endpoint is not None:
        steps.append(_deploy(pipeline, pipeline.endpoint))
    return {
        "Version": VERSION,
        "Metadata": {},
        "Parameters": [],
        "PipelineExperimentConfig": None,
        "Steps": steps,
    }


def _job(pipeline: Pipeline, name: str, job: Job) -> dict[str, Any]:
    kind = "Training" if job.train else "Processing"
    asked = requests.request(job)
    del asked[JOBS[kind][1]]
    asked["Tags"] = tags({**{each["Key"]: each["Value"] for each in asked["Tags"]}, **pipeline.tags})
    step = {"Name": name, "Type": kind, "Arguments": asked}
    return {**step, **_OF_ITS_OWN[name](pipeline, asked)}


def _prepare(pipeline: Pipeline, asked: dict[str, Any]) -> dict[str, Any]:
    assert pipeline.prepare is not None
    asked["Environment"]["BINCOUNT_MADE"] = pipeline.prepare.place("made")
    return {"CacheConfig": CACHED}


def _train(pipeline: Pipeline, asked: dict[str, Any]) -> dict[str, Any]:
    asked["OutputDataConfig"] = {"S3OutputPath": f"{pipeline.output}/{pipeline.name}"}
    if "CheckpointConfig" in asked:
        asked["CheckpointConfig"]["S3Uri"] = _of_execution(pipeline, "checkpoints")
    return {"DependsOn": ["Prepare"]} if pipeline.prepare else {}


def _evaluate(pipeline: Pipeline, asked: dict[str, Any]) -> dict[str, Any]:
    asked["ProcessingInputs"].append(requests.processing_input("model", _MODEL))
    place = {
        "S3Uri": _of_execution(pipeline, FIGURES),
        "LocalPath": "/opt/ml/processing/output",
        "S3UploadMode": "EndOfJob",
    }
    asked["ProcessingOutputConfig"] = {"Outputs": [{"OutputName": FIGURES, "S3Output": place}]}
    file = {"PropertyFileName": FIGURES, "OutputName": FIGURES, "FilePath": RESULTS}
    return {"PropertyFiles": [file]}


#: What each job's request has beside that of the same job alone; gives what its step has.
_OF_ITS_OWN = {"Prepare": _prepare, "Train": _train, "Evaluate": _evaluate}

_MODEL = {"Get": "Steps.Train.ModelArtifacts.S3ModelArtifacts"}


def _register(pipeline: Pipeline) -> dict[str, Any]:
    """A version of the model, with its figures; whoever deploys it approves it."""
    figures = {"ContentType": "application/json", "S3Uri": _of_execution(pipeline, FIGURES, RESULTS)}
    arguments = {
        "ModelPackageGroupName": pipeline.name,
        "InferenceSpecification": {
            "Containers": [{"Image": pipeline.image, "ModelDataUrl": _MODEL}],
            "SupportedContentTypes": list(PHOTOS),
            "SupportedResponseMIMETypes": ["application/json"],
        },
        "ModelApprovalStatus": "PendingManualApproval",
        "ModelMetrics": {"ModelQuality": {"Statistics": figures}},
    }
    return {"Name": "Register", "Type": "RegisterModel", "DependsOn": ["Evaluate"], "Arguments": arguments}


def _deploy(pipeline: Pipeline, endpoint: Endpoint) -> dict[str, Any]:
    """Calls launch/promote.py, which takes texts alone."""
    runs_on = deploy.variant(endpoint)
    del runs_on["ModelName"]
    arguments = {
        "package": {"Get": "Steps.Register.ModelPackageArn"},
        "endpoint": endpoint.name,
        "figure": CALLED[pipeline.monitor],
        "role": pipeline.role,
        "variant": json.dumps(runs_on),
        "tags": json.dumps(tags(pipeline.tags)),
    }
    told = [{"OutputName": name, "OutputType": "String"} for name in ("deployed", "why")]
    called = {"FunctionArn": pipeline.function, "OutputParameters": told}
    return {"Name": "Deploy", "Type": "Lambda", **called, "Arguments": arguments}


def _of_execution(pipeline: Pipeline, *below: str) -> dict[str, Any]:
    """An address that each execution has of its own."""
    top = f"{pipeline.output}/{pipeline.name}"
    return {"Std:Join": {"On": "/", "Values": [top, {"Get": "Execution.PipelineExecutionId"}, *below]}}


def tags(facts: dict[str, str]) -> list[dict[str, str]]:
    """Tags as SageMaker takes them."""
    return [{"Key": key, "Value": value} for key, value in facts.items()]


def filled_in(told: Any, known: dict[str, Any]) -> Any:
    """What an execution makes of an argument. ``known``: the values that are asked for, by their names."""
    if isinstance(told, list):
        return [filled_in(each, known) for each in told]
    if not isinstance(told, dict):
        return told
    if set(told) == {"Get"}:
        return known[told["Get"]]
    if set(told) == {"Std:Join"}:
        return str(told["Std:Join"]["On"]).join(filled_in(told["Std:Join"]["Values"], known))
    return {key: filled_in(value, known) for key, value in told.items()}


def job_requests(told: dict[str, Any], known: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The requests that SageMaker makes of a definition's steps, by the names of their operations."""
    for step in told["Steps"]:
        arguments = filled_in(step["Arguments"], known)
        if step["Type"] in JOBS:
            operation, named = JOBS[step["Type"]]
            yield operation, {named: f"pipelines-execution-{step['Name']}-0000", **arguments}
        elif step["Type"] == "RegisterModel":
            yield "CreateModelPackage", arguments
