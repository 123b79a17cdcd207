"""tune: SageMaker's own tuner tries values, previewed or sent.

Its training jobs cannot say what their container runs: SageMaker starts the image with the argument `train`,
and what it tries comes as hyperparameters. So the image has to be one of launch/Dockerfile, whose entry takes
the configuration from the channel `config`, as every job does, and the hyperparameters for keys of it.
"""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bincount import sweep
from bincount.config import WATCHED
from bincount.space import Interval, Parameter
from bincount.sweep import SweepPlan
from bincount.words import groups
from launch import aws, checks, preflight, preview, requests, start
from launch import trials as trying
from launch.job import Job, Order
from launch.ordering import Check, Requests, Rules, carry_out, named, of_parts
from launch.overrides import sending

#: What is tried of each of these, unless a word says it.
TRIED = {
    "optimizer.lr": "tag(log,interval(0.001,0.1))",
    "data.batch_size": "int(interval(32,512))",
    "trainer.max_epochs": "int(interval(10,40))",
}

#: What the tuner calls the ways of `bincount train -m`.
STRATEGIES = {"tpe": "Bayesian", "random": "Random", "grid": "Grid"}

#: SageMaker's own limits of a tuning job.
MOST_TRIALS, MOST_AT_ONCE, MOST_VALUES = 750, 100, 30


@dataclass(frozen=True, kw_only=True)
class Tuning(Order):
    """A tuning job. ``jobs``: those of a few trials, each value once, all of the tuning job's name."""

    plan: SweepPlan
    jobs: tuple[Job, ...]

    @property
    def first(self) -> Job:
        return self.jobs[0]

    @property
    def instance_type(self) -> str:
        return self.first.instance_type

    @property
    def instance_key(self) -> str:
        return self.first.instance_key

    @property
    def image(self) -> str:
        return self.first.image

    @property
    def monitor(self) -> str:
        return self.plan.first.trainer.monitor


def tune(words: list[str]) -> None:
    """Preview a tuning job, or send it. Raises BadInput where something would go wrong."""
    wanted = sending(words)
    carry_out(composed(words), RULES, wanted, made, told, send)


def composed(words: list[str], name: str | None = None) -> Tuning:
    """The tuning job that the words ask for; each of its jobs is checked as any."""
    given = {word.partition("=")[0] for word in words}
    words = [*words, *(f"{key}={tried}" for key, tried in TRIED.items() if key not in given)]
    if "sweep" not in given:
        words.append("sweep=tpe")
    plan = sweep.planned(words, Path.cwd())
    name = name or f"bincount-{datetime.now(UTC):%y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    jobs = trying.jobs_of(plan, name)
    return Tuning(name=name, launcher=jobs[0].launcher, plan=plan, jobs=tuple(jobs))


# --- checks -------------------------------------------------------------------------------------------


def image_has_its_entry(tuning: Tuning) -> str | None:
    if tuning.first.stock or tuning.launcher.code is not None:
        return (
            "launcher.image: the tuner starts the image as it is, so it has to be one made with "
            "launch/Dockerfile, without launcher.code; `train -m` takes AWS's own and a wheel"
        )
    return None


def no_spot(tuning: Tuning) -> str | None:
    if tuning.launcher.spot:
        return "launcher.spot=true: a tuner's jobs keep no checkpoints: leave it out, or take `train -m`"
    return None


def objective_is_told(tuning: Tuning) -> str | None:
    if tuning.monitor.replace("/", ":") not in requests.METRICS:
        known = ", ".join(name.replace(":", "/") for name in requests.METRICS if name.startswith("val"))
        return f"trainer.monitor={tuning.monitor}: the tuner reads it from the log, which has {known}"
    return None


def values_are_tried(tuning: Tuning) -> str | None:
    for key in tuning.plan.space.keys:
        if key in groups("train"):
            return f"{key}: a tuner tries values, no groups: give it one, or take `train -m`"
    return None


def few_values(tuning: Tuning) -> str | None:
    for each in tuning.plan.space.parameters:
        if not isinstance(each, Interval) and len(each.texts) > MOST_VALUES:
            return f"{each.key}: {len(each.texts)} values, and the tuner takes {MOST_VALUES}: an interval(…)"
    return None


def within_limits(tuning: Tuning) -> str | None:
    total, at_once = trying.number(tuning.plan), tuning.plan.first.sweep.jobs
    if total > MOST_TRIALS:
        return f"{total} trials: the tuner takes {MOST_TRIALS}"
    if at_once > MOST_AT_ONCE:
        return f"sweep.jobs={at_once}: the tuner takes {MOST_AT_ONCE}"
    return None


def _of_first(check: checks.Check) -> Check:
    """The check of a job, of what a tuner's jobs have in common."""
    return of_parts(check, lambda tuning: [tuning.first])


#: The tuner's image is another matter than a job's.
_GIVEN = [check for name, check in checks.GIVEN.items() if name != "image_has_bincount"]

RULES = Rules(
    named(no_spot, objective_is_told, values_are_tried, few_values, within_limits),
    {**named(*map(_of_first, _GIVEN)), **named(image_has_its_entry)},
    named(*map(_of_first, preflight.PREFLIGHT.values())),
)


# --- the request --------------------------------------------------------------------------------------


def made(tuning: Tuning) -> Requests:
    """The request that makes it."""
    settings = tuning.plan.first.sweep
    config = {
        "Strategy": STRATEGIES[settings.name],
        "HyperParameterTuningJobObjective": {
            "Type": "Maximize" if WATCHED[tuning.monitor] == "max" else "Minimize",
            "MetricName": tuning.monitor.replace("/", ":"),
        },
        "ResourceLimits": {
            "MaxNumberOfTrainingJobs": trying.number(tuning.plan),
            "MaxParallelTrainingJobs": settings.jobs,
        },
        "ParameterRanges": ranges(tuning.plan.space.parameters),
        "TrainingJobEarlyStoppingType": "Off",
        "RandomSeed": tuning.plan.first.seed,
    }
    request = {
        "HyperParameterTuningJobName": tuning.name,
        "HyperParameterTuningJobConfig": config,
        "TrainingJobDefinition": definition(tuning.first),
        "Tags": [{"Key": "project", "Value": "bincount"}, {"Key": "bincount:run", "Value": tuning.name}],
    }
    return {"CreateHyperParameterTuningJob": request}


def definition(job: Job) -> dict[str, Any]:
    """What of a training job's request a tuner takes: no entry, no name; and no place that all share."""
    of_job = requests.training_job(job)
    for key in ("TrainingJobName", "CheckpointConfig", "Tags"):
        of_job.pop(key, None)
    for key in ("ContainerEntrypoint", "ContainerArguments"):
        del of_job["AlgorithmSpecification"][key]
    of_job["Environment"].pop(requests.STEPS, None)
    return of_job


def ranges(parameters: tuple[Parameter, ...]) -> dict[str, list[dict[str, Any]]]:
    """What is tried, as the tuner takes it; steps are values."""
    found: dict[str, list[dict[str, Any]]] = {}
    for each in parameters:
        if isinstance(each, Interval):
            kind = "IntegerParameterRanges" if isinstance(each.low, int) else "ContinuousParameterRanges"
            ends = {"MinValue": each.text(each.low), "MaxValue": each.text(each.high)}
            scale = "Logarithmic" if each.log else "Linear"
            found.setdefault(kind, []).append({"Name": each.key, **ends, "ScalingType": scale})
        else:
            values = {"Name": each.key, "Values": list(each.texts)}
            found.setdefault("CategoricalParameterRanges", []).append(values)
    return found


def send(tuning: Tuning) -> None:
    """Put the configuration into S3, and make the tuning job."""
    region = tuning.launcher.region
    start.upload(tuning.first)
    (request,) = made(tuning).values()
    aws.ask("sagemaker", "create_hyper_parameter_tuning_job", region, **request)
    print(f"sent {tuning.name}")
    of_it = f"--hyper-parameter-tuning-job-name {tuning.name} --region {region}"
    best = "BestTrainingJob.[TrainingJobName,FinalHyperParameterTuningJobObjectiveMetric.Value]"
    print(f"  aws sagemaker describe-hyper-parameter-tuning-job {of_it} --query '{best}'")
    print(f"  aws sagemaker stop-hyper-parameter-tuning-job {of_it}")


def told(tuning: Tuning) -> str:
    """The text of a preview."""
    total, settings = trying.number(tuning.plan), tuning.plan.first.sweep
    tried = {each.key: _told(each) for each in tuning.plan.space.parameters}
    runs = {
        "tuning job": tuning.name,
        "trials": f"{total} jobs, {settings.jobs} at the same time (sweep.trials, sweep.jobs)",
        "strategy": f"{STRATEGIES[settings.name]} (sweep={settings.name})",
        "objective": f"{tuning.monitor}, the last that a job tells",
        "a job": f"{tuning.launcher.nodes} x {tuning.instance_type}, {tuning.first.ranks} ranks, "
        f"up to {tuning.launcher.max_hours:g} hours",
        "image": f"{tuning.image}, by its own entry",
        "configuration": tuning.first.place("config/config.yaml"),
    }
    asked = [(f"request {name}", requests.shown(request)) for name, request in made(tuning).items()]
    cost = preview.lines(trying.cost(total, tuning.jobs))
    return preview.sections(
        [("what runs", preview.lines(runs)), ("tried", preview.lines(tried)), ("price", cost), *asked]
    )


def _told(parameter: Parameter) -> str:
    if not isinstance(parameter, Interval):
        return ", ".join(parameter.texts)
    scale = ", each power of ten as likely as the next" if parameter.log else ""
    return f"{parameter.text(parameter.low)} to {parameter.text(parameter.high)}{scale}"
