"""What would make a job fail or cost in vain, found before any request is made.

A check takes the job and gives the line that people are told, or None. It has a name, and there is one place
where all are: tests take each away and see that nothing else would have caught what it catches.
"""

import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from bincount import checks as training
from bincount.config import TrainConfig, WandbLogger
from bincount.errors import BadInput, nearest
from launch import instances
from launch.job import IMAGE, ROLE, Job, Order

Check = Callable[[Job], str | None]

#: Some of the checks look at what every order has, not at jobs alone.
AnyCheck = TypeVar("AnyCheck", bound=Check)
Kind = TypeVar("Kind", bound=Order)

#: What a preview checks, by name, in this order.
CHECKS: dict[str, Check] = {}

#: What has to be given before a job is sent; a preview shows a place that nobody has instead.
GIVEN: dict[str, Check] = {}

#: SageMaker ends every training job after 28 days, and every processing job after 5.
LONGEST_HOURS = {"train": 28 * 24, "prepare": 5 * 24, "evaluate": 5 * 24}

REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")
BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?")
SECRET_NAME = re.compile(r"[\w/+=.@:-]{1,512}")

SMDDP_TORCH, SMDDP_PYTHON = "2.4.1", "311"
OLDEST_TORCH = (2, 4, 1)


def run_checks(order: Kind, checks: Mapping[str, Callable[[Kind], str | None]]) -> None:
    """Raise BadInput with the line of the first check that finds something."""
    for check in list(checks.values()):
        if line := check(order):
            raise BadInput(line)


def missing(order: Kind, checks: Mapping[str, Callable[[Kind], str | None]]) -> list[str]:
    """What has to be given yet before the order can be sent."""
    return [line for check in checks.values() if (line := check(order))]


def _check(where: dict[str, Check] = CHECKS) -> Callable[[AnyCheck], AnyCheck]:
    def keep(check: AnyCheck) -> AnyCheck:
        where[check.__name__] = check
        return check

    return keep


# --- what must be given -------------------------------------------------------------------------------


@_check(GIVEN)
def role_given(job: Order) -> str | None:
    if job.launcher.role is None:
        return "launcher.role is not given: add launcher.role=arn:aws:iam::ACCOUNT:role/NAME"
    return None


@_check(GIVEN)
def output_given(job: Job) -> str | None:
    if job.launcher.output is None:
        return "launcher.output is not given: add launcher.output=s3://bucket/prefix"
    return None


@_check(GIVEN)
def data_in_s3(job: Job) -> str | None:
    if job.train and not job.train.data.root.startswith("s3://"):
        return (
            f"data.root={job.train.data.root}: a job sees no folder of this machine: prepare it with "
            "out=s3://… and give that"
        )
    return None


@_check(GIVEN)
def image_has_bincount(job: Job) -> str | None:
    if job.stock and job.launcher.code is None:
        return (
            "launcher.image: AWS's own image has no bincount: add launcher.code=dist/….whl "
            "(`pip wheel --no-deps -w dist .`), or an image made with launch/Dockerfile"
        )
    return None


# --- the launcher's own keys --------------------------------------------------------------------------


@_check()
def role_is_an_arn(job: Order) -> str | None:
    if not ROLE.fullmatch(job.role):
        return f"launcher.role={job.role} is no role: write arn:aws:iam::ACCOUNT:role/NAME"
    return None


@_check()
def region_is_one(job: Order) -> str | None:
    if not REGION.fullmatch(job.launcher.region):
        return f"launcher.region={job.launcher.region} is no region: write it as us-east-1"
    return None


@_check()
def output_in_s3(job: Job) -> str | None:
    if not BUCKET.fullmatch(job.output):
        return f"launcher.output={job.output} is no place in S3: write s3://bucket/prefix"
    return None


@_check()
def checkpoints_in_s3(job: Job) -> str | None:
    wanted = job.launcher.checkpoints
    if wanted not in ("auto", "none") and not BUCKET.fullmatch(wanted):
        return f"launcher.checkpoints={wanted}: write auto, none, or s3://bucket/prefix of an earlier job"
    return None


@_check()
def instance_is_known(job: Order) -> str | None:
    if job.instance is None:
        near = nearest(job.instance_type, instances.types())
        return f"{job.instance_key}={job.instance_type}: {near} (launch/instances.yaml has what is known)"
    return None


@_check()
def image_is_in_ecr(job: Order) -> str | None:
    if not IMAGE.fullmatch(job.image):
        return f"launcher.image={job.image} is no image in ECR: ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME:TAG"
    return None


@_check()
def secrets_are_names(job: Job) -> str | None:
    for variable, name in job.secrets.items():
        if re.fullmatch(r"[0-9a-fA-F]{32,}", name) or not SECRET_NAME.fullmatch(name):
            return (
                f"launcher.secrets.{variable}: give the name of a secret in Secrets Manager, "
                "never its value, which anyone who may see the job would see"
            )
    return None


@_check()
def code_is_a_wheel(job: Job) -> str | None:
    code = job.launcher.code
    if code is not None and not (code.endswith(".whl") and Path(code).expanduser().is_file()):
        return f"launcher.code={code}: there is no such wheel: `pip wheel --no-deps -w dist .` makes one"
    return None


# --- instance, backend, image, region -----------------------------------------------------------------


@_check()
def not_too_long(job: Job) -> str | None:
    longest = LONGEST_HOURS[job.verb]
    if job.launcher.max_hours > longest:
        return (
            f"launcher.max_hours={job.launcher.max_hours:g}: SageMaker ends this kind after {longest} hours"
        )
    return None


@_check()
def smddp_on_its_instances(job: Job) -> str | None:
    if job.train and job.launcher.backend == "smddp" and job.instance and not job.instance.smddp:
        able = ", ".join(name for name, each in instances.types().items() if each.smddp)
        return (
            f"{job.instance_key}={job.instance_type}: SMDDP runs on {able} alone; "
            "launcher=sagemaker takes nccl"
        )
    return None


@_check()
def smddp_on_several_nodes(job: Job) -> str | None:
    if job.train and job.launcher.backend == "smddp" and job.launcher.nodes == 1:
        return "launcher.nodes=1: SMDDP is for several nodes: on one, launcher=sagemaker is as fast"
    return None


@_check()
def smddp_in_its_image(job: Job) -> str | None:
    if not job.train or job.launcher.backend != "smddp":
        return None
    tag = job.image_tag
    if tag is None or tag["torch"] != SMDDP_TORCH or tag["python"] not in (None, SMDDP_PYTHON):
        return (
            f"launcher.image={job.image}: SMDDP is in AWS's images of torch {SMDDP_TORCH} for "
            f"Python 3.11 alone, and the tag has to begin with {SMDDP_TORCH}-gpu-py311"
        )
    return None


@_check()
def image_is_new_enough(job: Order) -> str | None:
    tag = job.image_tag
    if tag and tuple(map(int, tag["torch"].split("."))) < OLDEST_TORCH:
        return f"launcher.image={job.image}: torch {tag['torch']} is too old: bincount needs 2.4.1 or newer"
    if tag and tag["python"] and int(tag["python"]) < 311:
        return f"launcher.image={job.image}: Python 3.{tag['python'][1:]} is too old: bincount needs 3.11"
    return None


@_check()
def image_fits_device(job: Job) -> str | None:
    tag = job.image_tag
    if job.train and tag and tag["device"] == "cpu" and job.launcher.accelerator == "gpu":
        return f"launcher.image={job.image}: that image is for CPUs, and launcher.accelerator is gpu"
    return None


@_check()
def image_in_region(job: Order) -> str | None:
    found = IMAGE.fullmatch(job.image)
    if found and found["region"] != job.launcher.region:
        return f"launcher.image={job.image}: the job is in {job.launcher.region}, and so its image has to be"
    return None


@_check()
def instance_has_gpus(job: Job) -> str | None:
    if job.train and job.launcher.accelerator == "gpu" and job.instance and not job.instance.gpus:
        return f"launcher.accelerator=gpu: {job.instance_type} has none: another instance, or accelerator=cpu"
    return None


@_check()
def instance_has_devices(job: Job) -> str | None:
    if not job.train or job.launcher.accelerator != "gpu" or not job.instance or not job.instance.gpus:
        return None
    if job.launcher.devices > job.instance.gpus:
        return f"launcher.devices={job.launcher.devices}: {job.instance_type} has {job.instance.gpus} GPUs"
    return None


@_check()
def instance_is_used(job: Job) -> str | None:
    if not job.train or job.launcher.accelerator != "gpu" or not job.instance or not job.instance.gpus:
        return None
    if job.launcher.devices < job.instance.gpus:
        return (
            f"launcher.devices={job.launcher.devices}: {job.instance_type} has "
            f"{job.instance.gpus} GPUs, and all are paid for"
        )
    return None


@_check()
def cpus_not_paid_as_gpus(job: Job) -> str | None:
    accelerator = job.launcher.accelerator if job.train else "cpu"
    if accelerator == "cpu" and job.instance and job.instance.gpus:
        return (
            f"{job.instance_key}={job.instance_type}: its GPUs would be paid for and not used: "
            "take ml.c7i.4xlarge"
        )
    return None


@_check()
def bf16_in_hardware(job: Job) -> str | None:
    if not job.train or job.launcher.precision != "bf16-mixed" or not job.instance or not job.instance.gpus:
        return None
    if not job.instance.bf16:
        return (
            f"launcher.precision=bf16-mixed: {job.instance.gpu}s of {job.instance_type} do not compute in "
            "it: auto, or 16-mixed"
        )
    return None


@_check()
def processors_for_workers(job: Job) -> str | None:
    if not job.instance or not job.train:
        return None
    wanted = job.train.data.workers * job.launcher.devices
    if wanted > job.instance.vcpus:
        return (
            f"data.workers={job.train.data.workers}: {job.launcher.devices} ranks make {wanted} of them, and "
            f"{job.instance_type} has {job.instance.vcpus} processors"
        )
    return None


# --- spot, time, checkpoints --------------------------------------------------------------------------


@_check()
def spot_has_checkpoints(job: Job) -> str | None:
    if job.train and job.launcher.spot and job.launcher.checkpoints == "none":
        return "launcher.spot=true: an interrupted job starts from nothing without launcher.checkpoints=auto"
    return None


@_check()
def spot_waits(job: Job) -> str | None:
    wait = job.launcher.max_wait_hours
    if job.train and job.launcher.spot and (wait is None or wait < job.launcher.max_hours):
        told = " is not given" if wait is None else f"={wait:g}"
        return (
            f"launcher.max_wait_hours{told}: with spot it is launcher.max_hours={job.launcher.max_hours:g} "
            "and the hours of waiting, together"
        )
    return None


@_check()
def waits_for_spot_alone(job: Job) -> str | None:
    if job.train and job.launcher.max_wait_hours is not None and not job.launcher.spot:
        return (
            f"launcher.max_wait_hours={job.launcher.max_wait_hours:g}: only spot waits: add "
            "launcher.spot=true"
        )
    return None


@_check()
def spot_is_for_training(job: Job) -> str | None:
    if job.prepare and job.launcher.spot:
        return "launcher.spot=true: SageMaker has no spot instances for prepare's kind of job: leave it out"
    return None


@_check()
def run_stops_before_job(job: Job) -> str | None:
    hours = job.train.trainer.max_hours if job.train else None
    if hours is not None and hours >= job.launcher.max_hours:
        return (
            f"trainer.max_hours={hours:g}: the job is ended after launcher.max_hours="
            f"{job.launcher.max_hours:g}, before the run would stop by itself"
        )
    return None


@_check()
def resumes_by_checkpoints(job: Job) -> str | None:
    if job.train and job.train.resume is not None:
        return (
            f"resume={job.train.resume}: a job sees no run of this machine: "
            "launcher.checkpoints=s3://… of the earlier job goes on with it"
        )
    return None


@_check()
def copies_in_s3(job: Job) -> str | None:
    copy = job.train.trainer.checkpoint_copy if job.train else None
    if copy is not None and not copy.startswith("s3://"):
        return f"trainer.checkpoint_copy={copy}: that folder ends with the job: give s3://… or leave it out"
    return None


# --- data ---------------------------------------------------------------------------------------------


@_check()
def data_fits_volume(job: Job) -> str | None:
    if job.train and job.data and job.launcher.input == "File" and job.data.gb > job.launcher.volume_gb:
        return (
            f"launcher.volume_gb={job.launcher.volume_gb}: launcher.input=File copies "
            f"{job.data.gb:,.1f} GB there: a larger volume, or launcher.input=s3"
        )
    return None


@_check()
def cache_fits_volume(job: Job) -> str | None:
    if not job.train or job.train.data.cache is None:
        return None
    if job.train.data.cache_gb > job.launcher.volume_gb:
        return (
            f"data.cache_gb={job.train.data.cache_gb:g}: the cache is on the volume, which has "
            f"launcher.volume_gb={job.launcher.volume_gb}"
        )
    return None


@_check()
def cache_is_of_s3(job: Job) -> str | None:
    if job.train and job.train.data.cache is not None and job.launcher.input != "s3":
        return f"data.cache: launcher.input={job.launcher.input} reads from the disk already: leave it out"
    return None


@_check()
def pipe_is_of_s3(job: Job) -> str | None:
    if job.train and job.train.data.reader == "pipe" and job.launcher.input != "s3":
        return (
            f"data.reader=pipe reads from S3, and with launcher.input={job.launcher.input} the "
            "data is on disk"
        )
    return None


@_check()
def output_beside_data(job: Job) -> str | None:
    if not job.train or job.launcher.input == "s3":
        return None
    root = job.train.data.root.rstrip("/")
    if job.output == root or job.output.startswith(f"{root}/"):
        return (
            f"launcher.output={job.output}: it lies in data.root, and "
            f"launcher.input={job.launcher.input} would bring every earlier job, too"
        )
    return None


# --- model, logger ------------------------------------------------------------------------------------


@_check()
def weights_reach_the_job(job: Job) -> str | None:
    weights = job.train.model.weights if job.train else None
    if job.train and job.train.model.name != "timm" and weights not in (None, "imagenet"):
        return f"model.weights={weights}: a job sees no file of this machine: imagenet or null"
    return None


@_check()
def vit_takes_the_size(job: Job) -> str | None:
    if not job.train or job.train.model.name != "vit_b_16":
        return None
    height, width = job.train.data.height_width
    if height != width or height % 16:
        return f"data.image_size={job.train.data.image_size}: vit_b_16 needs a square size divisible by 16"
    return None


@_check()
def wandb_has_its_key(job: Job) -> str | None:
    logger = job.train.logger if job.train else None
    if isinstance(logger, WandbLogger) and logger.mode == "online" and "WANDB_API_KEY" not in job.secrets:
        return (
            "logger=wandb: the job needs your key: put it into Secrets Manager and give "
            "launcher.secrets.WANDB_API_KEY=its-name, or logger.mode=offline"
        )
    return None


# --- prepare ------------------------------------------------------------------------------------------


@_check()
def prepares_into_s3(job: Job) -> str | None:
    if job.prepare and not job.prepare.out.startswith("s3://"):
        return f"out={job.prepare.out}: that folder ends with the job: give out=s3://bucket/prefix"
    return None


@_check()
def prepares_from_s3(job: Job) -> str | None:
    if not job.prepare:
        return None
    for key in ("bucket", "images", "metadata", "labels", "list"):
        place = getattr(job.prepare.source, key, None)
        inside = key in ("images", "metadata") and hasattr(job.prepare.source, "bucket")
        if place is not None and not inside and not place.startswith("s3://"):
            return f"source.{key}={place}: a job sees no folder of this machine: put it in S3"
    return None


@_check()
def prepares_tables_itself(job: Job) -> str | None:
    if job.prepare and job.prepare.tables.engine != "local":
        return (
            f"tables.engine={job.prepare.tables.engine}: the job's image has no Java and asks no Athena: "
            "`submit.py tables` makes them beforehand; leave it out here"
        )
    return None


@_check()
def parts_are_the_nodes(job: Job) -> str | None:
    if job.prepare and (job.prepare.part is not None or job.prepare.merge):
        return (
            "part and merge: each instance of the job makes its own part, and they are joined: leave them out"
        )
    return None


# --- what `bincount train` would find, too ------------------------------------------------------------


def _of_config(check: Callable[[TrainConfig], str | None]) -> Check:
    @functools.wraps(check)
    def of_job(job: Job) -> str | None:
        return check(job.train) if job.train else None

    return of_job


def _of_photos(check: training.Check) -> Check:
    @functools.wraps(check)
    def of_job(job: Job) -> str | None:
        return check(job.train, job.data.photos) if job.train and job.data else None

    return of_job


CHECKS |= {name: _of_config(check) for name, check in training.OF_CONFIG.items()}
CHECKS |= {name: _of_photos(check) for name, check in training.OF_PHOTOS.items()}
