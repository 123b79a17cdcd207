"""pipeline: prepare, train, evaluate, register, and deploy if better than what is deployed, in one order.

Previewed; or made, or brought up to date where it is there, and started.
"""

import hashlib
import io
import re
import secrets
import zipfile
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from bincount import words as known_words
from bincount.compose import compose, typed
from bincount.config import WATCHED
from bincount.errors import BadInput, nearest
from launch import aws, deploy, instances, pipeline_checks, preview, requests, service_model, start, steps
from launch.hosting import Endpoint
from launch.job import Job
from launch.ordering import Requests, carry_out
from launch.overrides import launcher_of, of_launcher, own_beside, ruled, sending
from launch.steps import Pipeline

#: The steps that have words of their own: prepare.nodes=8 is launcher.nodes=8 of that step alone.
STEPS = ("prepare", "evaluate", "deploy")

#: What the steps beside training have, unless their own words say otherwise.
NEVER_SPOT = ["launcher.spot=false", "launcher.max_wait_hours=null"]
EVALUATES = ["launcher.nodes=1", "launcher.max_hours=2", "launcher.code=null"]

#: The test photos are for the step Evaluate.
TRAINS = ["trainer.evaluate=val"]

#: What stands in for values that only an execution knows, where AWS's model of a request is asked.
ANY = {
    "Execution.PipelineExecutionId": "0123456789ab",
    "Steps.Train.ModelArtifacts.S3ModelArtifacts": "s3://mine/jobs/pipeline/job/output/model.tar.gz",
    "Steps.Register.ModelPackageArn": "arn:aws:sagemaker:us-east-1:123456789012:model-package/mine/1",
}

#: What the function that deploys runs, on which Python, and for how many seconds at most.
PROMOTE, RUNTIME, SECONDS = Path(__file__).with_name("promote.py"), "python3.12", 60


@dataclass
class Words:
    """The keys of `pipeline` beside those of `prepare`, `train` and the steps."""

    name: str | None = ruled(
        None,
        lambda value: bool(deploy.OURS.fullmatch(value)) and len(value) < 56,
        "must be bincount-… of letters, digits and -, below 56: rights and cleanup go by it",
    )
    pipeline_role: str | None = None
    deploy: bool = True


class Sorted(NamedTuple):
    """The words, by what they are for: verbs and the steps that have their own."""

    launcher: list[str]
    prepare: list[str]
    train: list[str]
    own: dict[str, list[str]]


def pipeline(words: list[str]) -> None:
    """Preview a pipeline, or make and start it. Raises BadInput where something would go wrong."""
    wanted = sending(words)
    carry_out(composed(words), pipeline_checks.RULES, wanted, made, told, send)


# --- from words to the order --------------------------------------------------------------------------


def composed(words: list[str], token: str | None = None) -> Pipeline:
    """The pipeline that the words ask for."""
    given = own_beside("pipeline", words, Words)
    found = _sorted(words)
    launcher_of(word for word in found.launcher if word.startswith("launcher="))
    prepared = _prepared(found)
    for step, there in {"prepare": prepared is not None, "deploy": given.deploy}.items():
        if found.own[step] and not there:
            raise BadInput(f"{step}.{found.own[step][0]}: this pipeline has no such step: leave it out")
    root = [f"data.root={prepared.prepare.out}"] if prepared and prepared.prepare else []
    trained, _ = start.composed("train", [*TRAINS, *found.train, *found.launcher, *root])
    if prepared:
        # What is there now, if anything, is not what an execution will find.
        trained = replace(trained, data=None)
    assert trained.train is not None
    experiment = re.sub(r"[^A-Za-z0-9]+", "-", trained.train.experiment).strip("-")
    name = given.name or f"bincount-{experiment[:40].strip('-')}"
    return Pipeline(
        name=name,
        launcher=trained.launcher,
        prepare=_called(prepared, name) if prepared else None,
        train=_called(trained, name),
        evaluate=_called(_evaluated(trained, found), name),
        endpoint=_endpoint(name, trained, found) if given.deploy else None,
        acts_as=given.pipeline_role,
        token=token or secrets.token_hex(16),
    )


def _sorted(words: list[str]) -> Sorted:
    """Each word where it belongs; `seed` is of both verbs. Raises BadInput."""
    found = Sorted([], [], [], {step: [] for step in STEPS})
    heads = {verb: _heads(verb) for verb in ("prepare", "train")}
    if not any(word.startswith("launcher=") for word in words):
        found.launcher.append("launcher=sagemaker")
    for word in words:
        key = word.partition("=")[0].lstrip("+~")
        head, _, below = key.partition(".")
        if of_launcher(word):
            found.launcher.append(word)
        elif head in STEPS and below:
            found.own[head].append(word.removeprefix(f"{head}."))
        elif head in heads["prepare"] | heads["train"]:
            if head in heads["prepare"]:
                found.prepare.append(word)
            if head in heads["train"]:
                found.train.append(word)
        else:
            every = {*heads["prepare"], *heads["train"], *STEPS, *(each.name for each in fields(Words))}
            raise BadInput(f"{key}: there is no such key in `pipeline`: {nearest(key, every)}")
    return found


def _heads(verb: str) -> set[str]:
    """What keys of a verb begin with."""
    return {key.partition(".")[0] for key in known_words.keys(verb)} | set(known_words.groups(verb))


def _prepared(found: Sorted) -> Job | None:
    """The job that makes the data set; None where it is given."""
    asked = [word for word in found.prepare if word.partition("=")[0] != "seed"]
    if not asked:
        return None
    if root := next((word for word in found.train if word.startswith("data.root=")), None):
        raise BadInput(
            f"{root}: with {asked[0].partition('=')[0]}=… a data set is prepared, and `out` is where: leave "
            "one of them out"
        )
    own = [f"launcher.{word}" for word in found.own["prepare"]]
    job, _ = start.composed("prepare", [*found.prepare, *found.launcher, *NEVER_SPOT, *own])
    return job


def _evaluated(trained: Job, found: Sorted) -> Job:
    """The job that scores what was trained on the photos that nothing has seen."""
    assert trained.train is not None
    own = [f"launcher.{word}" for word in found.own["evaluate"]]
    launcher = launcher_of([*found.launcher, *NEVER_SPOT, *EVALUATES, *own])
    config = typed("evaluate", compose("evaluate", [f"data.root={trained.train.data.root}"]))
    return Job(name="", config=config, launcher=launcher)


def _endpoint(name: str, trained: Job, found: Sorted) -> Endpoint:
    for word in found.own["deploy"]:
        if word.partition("=")[0] in ("job", "model", "name"):
            raise BadInput(f"deploy.{word}: the pipeline deploys its own model, called name={name}")
    model = f"model={trained.output}/{name}/JOB/output/model.tar.gz"
    return replace(deploy.composed([model, *found.own["deploy"], *found.launcher], name), run=name)


def _called(job: Job, name: str) -> Job:
    """The job under a name that tells its configuration: a step is made anew where that has changed."""
    digest = hashlib.sha256(requests.config_yaml(job).encode()).hexdigest()[:12]
    return replace(job, name=f"{name}/{job.verb}-{digest}")


# --- requests -----------------------------------------------------------------------------------------


def made(order: Pipeline) -> Requests:
    """The requests of SageMaker that make it, by their names, in their order."""
    tags = steps.tags(order.tags)
    return {
        "CreateModelPackageGroup": {"ModelPackageGroupName": order.name, "Tags": tags},
        "CreatePipeline": {
            "PipelineName": order.name,
            "PipelineDefinition": requests.shown(steps.definition(order)),
            "RoleArn": order.control_role,
            "ClientRequestToken": order.token,
            "Tags": tags,
        },
    }


def function_request(order: Pipeline) -> dict[str, Any]:
    """The request CreateFunction of Lambda: launch/promote.py, which deploys."""
    return {
        "FunctionName": order.name,
        "Runtime": RUNTIME,
        "Role": order.control_role,
        "Handler": f"{PROMOTE.stem}.handler",
        "Code": {"ZipFile": _zipped(PROMOTE)},
        "Timeout": SECONDS,
        "Tags": order.tags,
    }


def _zipped(file: Path) -> bytes:
    """An archive of one file, which is the same each time."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        member = zipfile.ZipInfo(file.name)
        member.external_attr = 0o644 << 16
        archive.writestr(member, file.read_bytes())
    return held.getvalue()


# --- sending ------------------------------------------------------------------------------------------


def send(order: Pipeline) -> None:
    """Make all that the pipeline needs, and it; or bring these up to date. Then start an execution."""
    region = order.launcher.region
    for operation, request in steps.job_requests(steps.definition(order), ANY):
        service_model.check("sagemaker", operation, request)
    service_model.check("lambda", "CreateFunction", function_request(order))
    for job in order.jobs.values():
        start.upload(job)
    _make_group(order)
    if order.endpoint is not None:
        _make_function(order)
    changed = _make_pipeline(order)
    once = {"PipelineName": order.name, "ClientRequestToken": secrets.token_hex(16)}
    begun = aws.ask("sagemaker", "start_pipeline_execution", region, **once)
    execution = str(begun["PipelineExecutionArn"]).rpartition("/")[2]
    more = "" if region == "us-east-1" else f" launcher.region={region}"
    print(f"sent {order.name}: {'changed' if changed else 'made'}, and execution {execution} is started")
    print(f"  python launch/submit.py status job={order.name}{more}")
    print(f"  python launch/submit.py stop job={order.name}{more}")
    print(
        f"  aws sagemaker start-pipeline-execution --pipeline-name {order.name} --region {region}  once more"
    )
    print(f"  python launch/submit.py cleanup run={order.name}{more}")


def _make_group(order: Pipeline) -> None:
    region, group = order.launcher.region, made(order)["CreateModelPackageGroup"]
    with aws.UnknownAllowed():
        aws.ask("sagemaker", "describe_model_package_group", region, ModelPackageGroupName=order.name)
        return
    aws.ask("sagemaker", "create_model_package_group", region, **group)


def _make_function(order: Pipeline) -> None:
    region, request = order.launcher.region, function_request(order)
    there = False
    with aws.UnknownAllowed():
        aws.ask("lambda", "get_function", region, FunctionName=order.name)
        there = True
    if there:
        aws.ask("lambda", "update_function_code", region, FunctionName=order.name, **request["Code"])
    else:
        aws.ask("lambda", "create_function", region, **request)


def _make_pipeline(order: Pipeline) -> bool:
    """Whether it was there, and is changed."""
    region, request = order.launcher.region, made(order)["CreatePipeline"]
    there = False
    with aws.UnknownAllowed():
        aws.ask("sagemaker", "describe_pipeline", region, PipelineName=order.name)
        there = True
    if there:  # not within: AWS's word for a definition that is wrong is that for an unknown name
        changed = {key: request[key] for key in ("PipelineName", "PipelineDefinition", "RoleArn")}
        aws.ask("sagemaker", "update_pipeline", region, **changed)
    else:
        aws.ask("sagemaker", "create_pipeline", region, **request)
    return there


# --- what a preview tells -----------------------------------------------------------------------------


def told(order: Pipeline) -> str:
    """The text of a preview."""
    rows = {name: _runs(job) for name, job in order.jobs.items()}
    rows["Register"] = f"a version in the model registry, group {order.name}"
    if order.endpoint is not None:
        rows["Deploy"] = f"endpoint {order.name}, if {_rule(order)}; {deploy.runs_on(order.endpoint)}"
    facts = {
        "pipeline": order.name,
        "region": order.launcher.region,
        "image": order.image,
        "role of jobs": order.role,
        "role of the pipeline": order.control_role,
        "configurations": ", ".join(job.place("config/config.yaml") for job in order.jobs.values()),
    }
    parts = [("steps", preview.lines(rows)), ("what is made", preview.lines(facts))]
    parts.append(("price of an execution, at most", preview.lines(_price(order))))
    if order.endpoint is not None:
        parts.append(("price of the endpoint, until cleanup", preview.lines(deploy.price(order.endpoint))))
    parts.append(("definition", requests.shown(steps.definition(order))))
    return preview.sections(parts)


def _runs(job: Job) -> str:
    launcher = job.launcher
    held = f" ({job.instance.told})" if job.instance else ""
    most = f"at most {_ceiling(job):,.2f} USD in {launcher.max_hours:g} h"
    return f"{launcher.nodes} x {job.instance_type}{held}, {most}"


def _rule(order: Pipeline) -> str:
    more = "higher" if WATCHED[order.monitor] == "max" else "lower"
    return f"{steps.CALLED[order.monitor]} on `test` is {more} (trainer.monitor), or none is there yet"


def _ceiling(job: Job) -> float:
    return preview.ceiling(job, _price_of(job))


def _price_of(job: Job) -> instances.Price:
    assert job.instance is not None
    kind = "Training" if job.train else "Processing"
    return instances.price(job.instance, job.launcher.region, kind)


def _price(order: Pipeline) -> dict[str, str]:
    most = {name: _ceiling(job) for name, job in order.jobs.items()}
    parts = " + ".join(f"{usd:,.2f} {name}" for name, usd in most.items())
    found = {"all steps": f"{sum(most.values()):,.2f} USD = {parts}"}
    if order.prepare:
        found["Prepare"] = "once: later executions with the same configuration and image take its data set"
    found["beside that"] = (
        "S3 storage and requests; a pipeline, its registry and its function cost next to nothing"
    )
    found["prices from"] = _price_of(order.train).source
    return found
