"""The types of every configuration key, and the range of each. Defaults live in `conf/`, not here.

A verb receives its plain dataclass from this module; nothing below reads YAML or asks for a key by name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal, get_type_hints

from bincount.errors import BadInput, near


def _path() -> Any:
    """A path, a glob or an address: the command line takes it literally."""
    return field(metadata={"path": True})


def _ruled(holds: Callable[[Any], bool], rule: str) -> Any:
    return field(metadata={"holds": holds, "rule": rule})


def _at_least(least: int) -> Any:
    return _ruled(lambda value: value >= least, f"must be {least} or above")


def _above_zero() -> Any:
    return _ruled(lambda value: value > 0, "must be above 0")


def _share() -> Any:
    return _ruled(lambda value: 0 <= value <= 1, "must be from 0 to 1")


def _below_one() -> Any:
    return _ruled(lambda value: 0 <= value < 1, "must be 0 or above, and below 1")


def _one_of(*choices: str) -> Any:
    rule = f"must be one of {', '.join(choices)}"
    return field(metadata={"holds": lambda value: value in choices, "rule": rule, "choices": choices})


# --- prepare ------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Source:
    """Where photos and their counts come from."""

    name: str


@dataclass(kw_only=True)
class SyntheticSource(Source):
    """Drawn bins. ``photos``: how many; ``difficulty`` 0 (clear) to 1; ``width``, ``height`` in pixels."""

    photos: int = _at_least(1)
    difficulty: float = _share()
    width: int = _at_least(32)
    height: int = _at_least(32)


@dataclass(kw_only=True)
class CollageSource(Source):
    """Bins put together from items that are cut out of the training photos of the data set ``cut``.

    ``photos``: how many; ``difficulty`` 0 to 1: how much items may hide one another; ``width``, ``height`` in
    pixels.
    """

    cut: str = _path()
    photos: int = _at_least(1)
    difficulty: float = _share()
    width: int = _at_least(32)
    height: int = _at_least(32)


@dataclass(kw_only=True)
class PhotoSource(Source):
    """Photos that were taken. Without ``images`` the records ``metadata`` become tables, and that is all.

    ``block``: where nothing tells which photos show the same bin, this many consecutive ids stay together.
    """

    images: str | None = _path()
    metadata: str | None = _path()
    block: int = _at_least(1)


@dataclass(kw_only=True)
class FolderSource(PhotoSource):
    """Photos in a folder, with counts from records, a label file, or the folders' names."""

    labels: str | None = _path()


@dataclass(kw_only=True)
class S3Source(PhotoSource):
    """A bucket with photos ``images/ID.jpg`` and records ``metadata/ID.json``, or a folder laid out so.

    ``list``: a label file; only its photos and records are asked for. ``anonymous``: do not sign requests.
    """

    bucket: str = _path()
    list: str | None = _path()
    anonymous: bool


@dataclass(kw_only=True)
class ShardsSource(Source):
    """WebDataset shards made elsewhere, indexed where they are: ``out/<split>/*.tar``."""


SOURCES: dict[str, type[Source]] = {
    "synthetic": SyntheticSource,
    "collage": CollageSource,
    "folder": FolderSource,
    "s3": S3Source,
    "shards": ShardsSource,
}


@dataclass(kw_only=True)
class Ratios:
    """The share of photos that each split gets."""

    train: float
    val: float
    test: float


@dataclass(kw_only=True)
class Tables:
    """What makes the tables of the records: this process, Spark, or (by `launch/submit.py`) Athena."""

    engine: str = _one_of("local", "spark", "athena")


def _is_part(value: Any) -> bool:
    number, _, of = value.partition("/")
    return number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)


@dataclass(kw_only=True)
class PrepareConfig:
    """`bincount prepare`. ``workers`` None: one a processor; 0: no further process.

    ``part``: make only one of so many parts of the data set; ``merge``: join them.
    """

    source: Source
    out: str = _path()
    seed: int = _at_least(0)
    max_count: int = _at_least(1)
    overflow: str = _one_of("skip", "class", "unlabelled")
    split: Ratios
    shortest_side: int | None = _at_least(16)
    quality: int = _ruled(lambda value: 1 <= value <= 100, "must be from 1 to 100")
    photos_per_shard: int = _at_least(1)
    tables: Tables
    workers: int | None = _at_least(0)
    part: str | None = _ruled(_is_part, "write which part of how many, as 3/8")
    merge: bool
    overwrite: bool


# --- train --------------------------------------------------------------------------------------------

#: What is logged of validation, and which way is better: for early stopping, checkpoints and schedulers.
WATCHED: dict[str, Literal["min", "max"]] = {
    "val/loss": "min",
    "val/accuracy": "max",
    "val/rmse": "min",
    "val/mae": "min",
}


@dataclass(kw_only=True)
class Augment:
    """How far a training photo may be changed; see ``bincount.data.pixels.Augmentation``."""

    flip: float = _share()
    upside_down: float = _share()
    shift: float = _below_one()
    zoom: float = _below_one()
    rotate: float = _ruled(lambda value: 0 <= value <= 180, "must be from 0 to 180 degrees")
    stretch: float = _below_one()
    light: float = _below_one()
    contrast: float = _below_one()
    color: float = _below_one()


def _is_size(value: Any) -> bool:
    sides = [value, value] if isinstance(value, int) else value
    return isinstance(sides, list) and len(sides) == 2 and all(isinstance(s, int) and s >= 16 for s in sides)


@dataclass(kw_only=True)
class Data:
    """Which photos are read, and how. ``image_size``: pixels of both sides, or [height, width].

    ``max_bad``: the share of an epoch's photos that may be unreadable. ``cache``: a folder on this machine
    that keeps up to ``cache_gb`` of what is read from S3.
    """

    root: str = _path()
    batch_size: int = _at_least(1)
    workers: int = _at_least(0)
    image_size: Any = _ruled(_is_size, "give pixels, 16 or more, as 224 or as [224,244] for height and width")
    fraction: float = _ruled(lambda value: 0 < value <= 1, "must be above 0, and at most 1")
    span: int = _at_least(1)
    window: int = _at_least(1)
    balance: str = _one_of("none", "weights", "oversample")
    max_bad: float = _share()
    reader: str = _one_of("ranges", "pipe")
    cache: str | None = _path()
    cache_gb: float = _above_zero()
    augment: Augment

    @property
    def height_width(self) -> tuple[int, int]:
        """The size that photos are resized to: one number stands for both sides."""
        sides = self.image_size
        return (sides, sides) if isinstance(sides, int) else (sides[0], sides[1])


@dataclass(kw_only=True)
class Model:
    """The backbone. ``weights``: None, ``imagenet``, or a state dict's path; ``freeze`` all but the head.

    ``mirror``: a trained run takes the mean of what it tells of a photo and of its mirror image.
    """

    name: str
    weights: str | None = _path()
    freeze: bool
    mirror: bool


@dataclass(kw_only=True)
class TimmModel(Model):
    """Any backbone of timm, by its name there."""

    architecture: str


#: Backbones that take more keys than the rest.
MODELS: dict[str, type[Model]] = {"timm": TimmModel}


@dataclass(kw_only=True)
class Objective:
    """What training minimises."""

    name: str


@dataclass(kw_only=True)
class CrossEntropy(Objective):
    """Cross-entropy; ``label_smoothing`` is the share of probability spread over all counts."""

    label_smoothing: float = _below_one()


@dataclass(kw_only=True)
class Ordinal(Objective):
    """Cross-entropy with a soft target: a bell of ``sigma`` items around the true count."""

    sigma: float = _above_zero()


@dataclass(kw_only=True)
class Focal(Objective):
    """Focal loss; ``gamma`` 0 is cross-entropy."""

    gamma: float = _at_least(0)


OBJECTIVES: dict[str, type[Objective]] = {"cross_entropy": CrossEntropy, "ordinal": Ordinal, "focal": Focal}


@dataclass(kw_only=True)
class Optimizer:
    """How weights are changed; ``lr`` is the highest rate of the schedule.

    ``scale``: how it grows with the number of ranks; see ``bincount.model.optimizers.rate_factor``.
    """

    name: str
    lr: float = _above_zero()
    scale: str = _one_of("none", "linear", "sqrt")
    weight_decay: float = _at_least(0)


@dataclass(kw_only=True)
class SGD(Optimizer):
    """Stochastic gradient descent with momentum."""

    momentum: float = _below_one()
    nesterov: bool


@dataclass(kw_only=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    betas: list[float] = _ruled(
        lambda value: len(value) == 2 and all(0 <= beta < 1 for beta in value), "must be two numbers below 1"
    )


OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "adamw": AdamW}


@dataclass(kw_only=True)
class Scheduler:
    """How the learning rate runs over the epochs."""

    name: str


@dataclass(kw_only=True)
class Step(Scheduler):
    """Times ``gamma`` after each ``every`` epochs."""

    every: int = _at_least(1)
    gamma: float = _above_zero()


@dataclass(kw_only=True)
class Cosine(Scheduler):
    """Up over ``warmup`` (a share of all steps), then down a cosine to ``final`` times the highest rate."""

    warmup: float = _below_one()
    final: float = _share()


@dataclass(kw_only=True)
class Restarts(Scheduler):
    """Cosines that start again (SGDR; Loshchilov and Hutter, 2017).

    The first lasts ``first`` epochs, each next one ``multiply`` times as long.
    """

    first: int = _at_least(1)
    multiply: int = _at_least(1)
    final: float = _share()


@dataclass(kw_only=True)
class Plateau(Scheduler):
    """Times ``factor`` once ``monitor`` has not got better for ``patience`` epochs."""

    factor: float = _below_one()
    patience: int = _at_least(0)
    monitor: str = _one_of(*WATCHED)


SCHEDULERS: dict[str, type[Scheduler]] = {
    "step": Step,
    "cosine": Cosine,
    "restarts": Restarts,
    "plateau": Plateau,
}


@dataclass(kw_only=True)
class Launcher:
    """Where training runs. ``devices``: ranks a node; ``precision``: Lightning's name, or auto.

    ``stalled_after``: seconds that the others wait for a rank that lives and does not come along.
    """

    name: str
    accelerator: str = _one_of("cpu", "gpu")
    devices: int = _at_least(1)
    nodes: int = _ruled(lambda value: value == 1, "this launcher runs on one node")
    precision: str = _one_of("auto", "32-true", "bf16-mixed", "16-mixed")
    backend: str = _one_of("auto", "gloo", "nccl", "smddp")
    stalled_after: float = _above_zero()


@dataclass(kw_only=True)
class SageMaker(Launcher):
    """A job of SageMaker, which `python launch/submit.py` sends. ``devices``: ranks an instance.

    ``instance_type``: what trains; ``prepare_instance_type``: what prepares. ``image`` None: AWS's own, which
    then needs ``code``, a wheel of bincount. ``role``: whose rights the job has. ``output``: s3://bucket/prefix
    under which all that a job makes is kept. ``input``: s3 streams ``data.root``; File and FastFile let
    SageMaker bring it. ``checkpoints``: auto is below ``output``; none; or those of an earlier job, to go on
    with. ``max_hours``: the job ends after so many; ``max_wait_hours``: that, and waiting for spot instances.
    ``secrets``: which variable of the job is which secret's name in Secrets Manager; never a value.
    """

    nodes: int = _at_least(1)
    instance_type: str
    prepare_instance_type: str
    image: str | None
    code: str | None = _path()
    role: str | None
    region: str
    output: str | None = _path()
    input: str = _one_of("s3", "File", "FastFile")
    checkpoints: str
    spot: bool
    max_hours: float = _above_zero()
    max_wait_hours: float | None = _above_zero()
    volume_gb: int = _ruled(lambda value: 1 <= value <= 16384, "must be from 1 to 16384")
    secrets: dict[str, str | None]


LAUNCHERS: dict[str, type[Launcher]] = {
    "local": Launcher,
    "gpu": Launcher,
    "sagemaker": SageMaker,
    "sagemaker_smddp": SageMaker,
}


@dataclass(kw_only=True)
class Logger:
    """Where figures go while training; ``metrics.csv`` is always written."""

    name: str


@dataclass(kw_only=True)
class WandbLogger(Logger):
    """Weights & Biases; ``mode`` online, offline (no account needed) or disabled."""

    project: str
    entity: str | None
    mode: str = _one_of("online", "offline", "disabled")


LOGGERS: dict[str, type[Logger]] = {"csv": Logger, "wandb": WandbLogger}


@dataclass(kw_only=True)
class Sweep:
    """How `bincount train -m` tries combinations: here each of them. ``jobs``: trials at the same time."""

    name: str
    jobs: int = _at_least(1)


@dataclass(kw_only=True)
class RandomSweep(Sweep):
    """Combinations drawn at random; ``trials``: how many in all."""

    trials: int = _at_least(1)


@dataclass(kw_only=True)
class TPESweep(RandomSweep):
    """Combinations that promise most (Bergstra et al., 2011), after ``startup`` that are drawn at random."""

    startup: int = _at_least(1)


SWEEPS: dict[str, type[Sweep]] = {"grid": Sweep, "random": RandomSweep, "tpe": TPESweep}


@dataclass(kw_only=True)
class Trainer:
    """How long training goes on, and what is kept.

    ``max_steps``, ``max_hours`` (since this start) None: no limit. ``stop_after``: epochs in which
    ``monitor`` got better by no more than ``min_delta``; None: it may.
    ``checkpoint_every`` (steps) None: only at the end of each epoch.
    ``checkpoint_copy``: a second place for the checkpoints, a folder or s3://bucket/prefix.
    ``ema``: how much of the moving average of the weights stays at a step; None: no average is kept.
    ``evaluate``: the split that a run is evaluated on at its end, or val where that is missing; None: none.
    ``profiler``: what measures where time goes, its files are in the run's ``profile/``; None: nothing does.
    """

    max_epochs: int = _at_least(1)
    max_steps: int | None = _at_least(1)
    max_hours: float | None = _above_zero()
    stop_after: int | None = _at_least(1)
    min_delta: float = _at_least(0)
    checkpoint_every: int | None = _at_least(1)
    checkpoint_copy: str | None = _path()
    monitor: str = _one_of(*WATCHED)
    clip_gradient: float | None = _above_zero()
    evaluate: str | None = _one_of("train", "val", "test")
    sync_batchnorm: bool
    ema: float | None = _below_one()
    profiler: str | None = _one_of("simple", "pytorch")


#: The share of the collages to learn from; the others show how well they are counted.
COLLAGES_LEARNT = 0.92


@dataclass(kw_only=True)
class Pretrain:
    """What is learnt first: ``epochs`` on ``photos`` collages of the training photos; 0: nothing.

    ``lr``: the highest rate meanwhile; None: that of the optimizer. ``difficulty`` of the collages, 0 to 1:
    how much items may hide one another.
    """

    epochs: int = _at_least(0)
    lr: float | None = _above_zero()
    photos: int = _at_least(1)
    difficulty: float = _share()


@dataclass(kw_only=True)
class TrainConfig:
    """`bincount train`. ``experiment`` is the name of the overlay, under which the run is kept."""

    seed: int = _at_least(0)
    runs: str = _path()
    resume: str | None = _path()
    experiment: str
    data: Data
    model: Model
    objective: Objective
    optimizer: Optimizer
    scheduler: Scheduler
    launcher: Launcher
    logger: Logger
    pretrain: Pretrain
    sweep: Sweep
    trainer: Trainer


# --- looking at data ----------------------------------------------------------------------------------


@dataclass(kw_only=True)
class ExploreData:
    """Which data set is looked at: a folder or s3://bucket/prefix, with photos, records or both."""

    root: str = _path()


@dataclass(kw_only=True)
class ExploreConfig:
    """`bincount explore`. ``sql``: one question; None: every fact, on a page.

    ``against``: a run; its training photos are compared with ``photos`` (a folder, a glob, a photo, or a list
    of these; None: those of ``data.root``), or with those of which a service left rows in ``kept`` (a folder,
    a file, a glob), at most ``sample`` of each. ``fail``: exit code 1 where they have changed. ``out`` None:
    explore.html for a page, nowhere for an answer to ``sql``.
    """

    data: ExploreData
    sql: str | None = _path()
    photos: Any = _path()
    kept: str | None = _path()
    against: str | None = _path()
    runs: str = _path()
    sample: int = _at_least(1)
    seed: int = _at_least(0)
    fail: bool
    out: str | None = _path()


# --- what is done with a run --------------------------------------------------------------------------


@dataclass(kw_only=True)
class EvaluationData:
    """Which photos are evaluated; ``root`` None: those the run was trained on."""

    root: str | None = _path()
    batch_size: int = _at_least(1)
    workers: int = _at_least(0)


@dataclass(kw_only=True)
class EvaluateConfig:
    """`bincount evaluate`. ``run``: one run, or a list of runs to compare.

    ``predictions``: answers made elsewhere, which are scored in place of a run, against the file ``labels``
    or the split of ``data.root``; ``missing``: what is done about photos without an answer, and
    answers without a photo; ``out``: the folder of what comes of it, None: beside the predictions.
    ``decode``: how probabilities become a count; None: as was best for the run on validation.
    """

    run: Any = _path()
    runs: str = _path()
    predictions: str | None = _path()
    labels: str | None = _path()
    missing: str = _one_of("error", "skip")
    out: str | None = _path()
    split: str
    decode: str | None = _one_of("mode", "median", "mean")
    data: EvaluationData


@dataclass(kw_only=True)
class PredictConfig:
    """`bincount predict`. ``run``: a run, or a file of `bincount export`.

    ``photos``: a folder, a glob, a photo, or a list of these.

    ``decode``: how probabilities become a count; None: as was best for the run on validation.
    """

    run: str = _path()
    runs: str = _path()
    photos: Any = _path()
    out: str = _path()
    decode: str | None = _one_of("mode", "median", "mean")
    batch_size: int = _at_least(1)


@dataclass(kw_only=True)
class Audit:
    """How many bins are flagged: ``budget`` of them, or so many that of right records ``false_alarms`` are.

    ``error_rate``: the share of records that are wrong; None: it is estimated from the bins themselves.
    """

    budget: int | None = _at_least(1)
    false_alarms: float = _share()
    error_rate: float | None = _ruled(lambda value: 0 < value < 1, "must be above 0, and below 1")


@dataclass(kw_only=True)
class Planting:
    """Errors for an audit to find: ``times`` 0 plants none. ``rate``: the share of records made wrong."""

    times: int = _at_least(0)
    rate: float = _ruled(lambda value: 0 < value < 1, "must be above 0, and below 1")
    split: str
    seed: int = _at_least(0)


@dataclass(kw_only=True)
class AuditConfig:
    """`bincount audit`. ``photos``: a folder, a glob, a photo, or a list of these. ``predictions``: a file
    with what was told of photos before, instead.

    ``expected``: where the expected quantities are, see bincount.auditing.expected.
    """

    run: str = _path()
    runs: str = _path()
    photos: Any = _path()
    predictions: str | None = _path()
    expected: str | None = _path()
    out: str = _path()
    batch_size: int = _at_least(1)
    audit: Audit
    planted: Planting


@dataclass(kw_only=True)
class Serve:
    """How a run is served, how much is taken at the same time, and how long anything may take (seconds).

    ``host``, ``port``: where; port 0 is any that is free. ``workers``: processes, each of which computes with
    ``threads``; None: all processors. ``onnx``: a file that was exported from the run, which then counts with
    onnxruntime. ``batch_size`` photos are counted at once; one waits up to ``wait_ms`` milliseconds for
    others. ``queue``: photos, and ``held_mb``: bytes of bodies, that a worker has accepted and not answered.
    ``photos``, ``body_mb``: of one request; ``megapixels``: of one photo. ``body_timeout``: until headers are
    there, and until a body is; ``timeout``: from then until its answer; ``grace``: from SIGTERM to the last.
    ``error_rate``: the share of records that are wrong; a bin is to be checked whose record is wrong with the
    probability ``check_from``, or a higher one. ``keep``: the share of counted photos that leave a row, in
    ``keep_in`` (None: the run's folder ``kept``), where all together have at most ``keep_mb`` MB.
    """

    host: str
    port: int = _ruled(lambda value: 0 <= value <= 65535, "must be from 0 to 65535")
    workers: int = _at_least(1)
    threads: int | None = _at_least(1)
    onnx: str | None = _path()
    batch_size: int = _at_least(1)
    wait_ms: float = _at_least(0)
    queue: int = _at_least(1)
    held_mb: float = _above_zero()
    photos: int = _at_least(1)
    body_mb: float = _above_zero()
    megapixels: float = _above_zero()
    body_timeout: float = _above_zero()
    timeout: float = _above_zero()
    grace: float = _at_least(0)
    error_rate: float = _ruled(lambda value: 0 < value < 1, "must be above 0, and below 1")
    check_from: float = _share()
    keep: float = _share()
    keep_in: str | None = _path()
    keep_mb: float = _above_zero()


@dataclass(kw_only=True)
class ServeConfig:
    """`bincount serve`. ``decode``: how probabilities become a count; None: as was best on validation."""

    run: str = _path()
    runs: str = _path()
    decode: str | None = _one_of("mode", "median", "mean")
    serve: Serve


@dataclass(kw_only=True)
class ExportCheck:
    """How a file is held against its run. ``tolerance``: of a probability; ``rounds``: of timing."""

    photos: int = _at_least(1)
    tolerance: float = _above_zero()
    rounds: int = _at_least(0)


@dataclass(kw_only=True)
class ExportConfig:
    """`bincount export`. ``out`` None: counter.onnx or counter.pt2.

    ``decode``: how probabilities become a count; None: as was best for the run on validation.
    """

    run: str = _path()
    runs: str = _path()
    format: str = _one_of("onnx", "torch")
    out: str | None = _path()
    decode: str | None = _one_of("mode", "median", "mean")
    check: ExportCheck


# --- is all there? ------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class DoctorData:
    """The data set that is looked into; None: that of `bincount prepare`, where it is there."""

    root: str | None = _path()


@dataclass(kw_only=True)
class DoctorConfig:
    """`bincount doctor`. ``run`` None: the latest, where there is one; ``out``: where writing is tried."""

    data: DoctorData
    runs: str = _path()
    run: str | None = _path()
    s3: str | None = _path()
    out: str | None = _path()


#: The configuration of each verb.
VERBS: dict[str, type[Any]] = {
    "prepare": PrepareConfig,
    "explore": ExploreConfig,
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "predict": PredictConfig,
    "audit": AuditConfig,
    "serve": ServeConfig,
    "export": ExportConfig,
    "doctor": DoctorConfig,
}

#: The keys whose options bring their own keys: which dataclass belongs to which ``name``.
REGISTRIES: dict[str, Mapping[str, type[Any]]] = {
    "source": SOURCES,
    "model": MODELS,
    "objective": OBJECTIVES,
    "optimizer": OPTIMIZERS,
    "scheduler": SCHEDULERS,
    "launcher": LAUNCHERS,
    "logger": LOGGERS,
    "sweep": SWEEPS,
}


def path_keys(schema: type[Any], prefix: str = "") -> set[str]:
    """The dotted keys under ``schema`` whose values are paths, in any of its options."""
    found = set()
    hints = get_type_hints(schema)
    for key in fields(schema):
        name = f"{prefix}{key.name}"
        if key.metadata.get("path"):
            found.add(name)
        elif is_dataclass(hints[key.name]):
            for option in {hints[key.name], *REGISTRIES.get(name, {}).values()}:
                found |= path_keys(option, f"{name}.")
    return found


def check(config: Any, prefix: str = "") -> None:
    """Raise BadInput, naming the key, for the first value in ``config`` that breaks its rule."""
    for key in fields(config):
        name, value = f"{prefix}{key.name}", getattr(config, key.name)
        if is_dataclass(value):
            check(value, f"{name}.")
        elif "holds" in key.metadata and value is not None and not key.metadata["holds"](value):
            meant = near(str(value), key.metadata.get("choices", ()))
            hint = f"; did you mean {meant}?" if meant else ""
            raise BadInput(f"{name}={value}: {key.metadata['rule']}{hint}")
