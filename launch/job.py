"""What SageMaker is asked to make; and a job that is to be sent: its configuration, its data set."""

import re
import secrets
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import UTC, datetime

from bincount.checks import Photos, layout
from bincount.config import EvaluateConfig, PrepareConfig, SageMaker, TrainConfig
from bincount.data.index import Index
from launch.instances import Instance, types

#: AWS's own images, for any region. torch 2.4.1 is the last with SMDDP.
STOCK = "763104351884.dkr.ecr.{region}.amazonaws.com/pytorch-training:{tag}"
STOCK_TAG = "2.9.0-gpu-py312-cu130-ubuntu22.04-sagemaker"
STOCK_TAG_SMDDP = "2.4.1-gpu-py311-cu124-ubuntu22.04-sagemaker"
STOCK_TAG_CPU = "2.9.0-cpu-py312-ubuntu22.04-sagemaker"

#: What a job's container runs, by its configuration.
VERBS = {TrainConfig: "train", PrepareConfig: "prepare", EvaluateConfig: "evaluate"}

#: What a sample of a shard takes beside its JPEG: two headers, the label, padding.
BESIDE_JPEG = 2048

IMAGE = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[\w-]+)\.amazonaws\.com(\.cn)?/"
    r"(?P<name>[\w./-]+)(:(?P<tag>[\w.-]+)|@sha256:[0-9a-f]{64})"
)
#: The beginning of the tags of AWS's images, and of those that launch/Dockerfile makes.
TAG = re.compile(r"(?P<torch>\d+\.\d+\.\d+)-(?P<device>gpu|cpu)(-py(?P<python>\d+))?")
ROLE = re.compile(r"arn:aws[a-z-]*:iam::(?P<account>\d{12}):role/[\w+=,.@/-]{1,512}")


@dataclass(frozen=True)
class DataSet:
    """What an index tells a job of its data. ``gb``: of all splits."""

    photos: Photos
    gb: float

    @classmethod
    def of(cls, index: Index, config: TrainConfig) -> "DataSet":
        """The facts of an opened data set."""
        tables = [index.split(name) for name in index.splits]
        total = sum(int(table.jpeg_length.sum()) + BESIDE_JPEG * len(table) for table in tables)
        return cls(Photos.of(index, config), total / 1e9)


@dataclass(frozen=True, kw_only=True)
class Order(ABC):
    """What SageMaker is asked to make, where, and with whose rights. ``name`` is that in SageMaker."""

    name: str
    launcher: SageMaker

    @property
    @abstractmethod
    def instance_type(self) -> str:
        """The instance type's name, known or not."""

    @property
    @abstractmethod
    def instance_key(self) -> str:
        """Which key says the instance type."""

    @property
    @abstractmethod
    def image(self) -> str:
        """Its address in ECR."""

    @property
    def instance(self) -> Instance | None:
        """The instance type; None where it is not known."""
        return types().get(self.instance_type)

    @property
    def image_tag(self) -> re.Match[str] | None:
        """What the image's tag tells: torch, device, Python."""
        found = IMAGE.fullmatch(self.image)
        return TAG.match(found["tag"] or "") if found else None

    @property
    def output(self) -> str:
        """Under which address all jobs are kept; a place that nobody has where none was given."""
        return (self.launcher.output or "s3://launcher.output-is-not-given").rstrip("/")

    @property
    def role(self) -> str:
        return self.launcher.role or "arn:aws:iam::000000000000:role/launcher.role-is-not-given"

    def place(self, name: str) -> str:
        """The address of what this order has of its own."""
        return f"{self.output}/{self.name}/{name}"


@dataclass(frozen=True, kw_only=True)
class Job(Order):
    """A job that trains, prepares or evaluates. ``data`` None: its data set was not read. ``name`` is the
    run's, too.
    """

    config: TrainConfig | PrepareConfig | EvaluateConfig
    data: DataSet | None = None

    @property
    def train(self) -> TrainConfig | None:
        return self.config if isinstance(self.config, TrainConfig) else None

    @property
    def prepare(self) -> PrepareConfig | None:
        return self.config if isinstance(self.config, PrepareConfig) else None

    @property
    def verb(self) -> str:
        return VERBS[type(self.config)]

    @property
    def instance_type(self) -> str:
        return self.launcher.instance_type if self.train else self.launcher.prepare_instance_type

    @property
    def instance_key(self) -> str:
        return "launcher.instance_type" if self.train else "launcher.prepare_instance_type"

    @property
    def ranks(self) -> int:
        return self.launcher.nodes * self.launcher.devices

    @property
    def steps(self) -> int | None:
        """Steps of an epoch, on every rank; None where the data set was not read."""
        if self.train is None or self.data is None:
            return None
        return self.data.photos.epoch // layout(self.train).global_batch

    @property
    def image(self) -> str:
        """The image: what the launcher says, or AWS's own for backend, device and region."""
        if self.launcher.image is not None:
            return self.launcher.image
        if self.train is None or self.launcher.accelerator == "cpu":
            tag = STOCK_TAG_CPU
        else:
            tag = STOCK_TAG_SMDDP if self.launcher.backend == "smddp" else STOCK_TAG
        return STOCK.format(region=self.launcher.region, tag=tag)

    @property
    def stock(self) -> bool:
        """Whether the image is AWS's own, which has no bincount."""
        found = IMAGE.fullmatch(self.image)
        return found is not None and found["name"] == "pytorch-training"

    @property
    def checkpoints(self) -> str | None:
        """Where SageMaker keeps the checkpoints, in S3."""
        wanted = self.launcher.checkpoints
        if wanted == "auto":
            return self.place("checkpoints")
        return None if wanted == "none" else wanted

    @property
    def secrets(self) -> dict[str, str]:
        """Which variable is which secret's name, of those that were given."""
        return {variable: name for variable, name in self.launcher.secrets.items() if name}


def new_name(experiment: str) -> str:
    """A name that no other job has: bincount-EXPERIMENT-TIME-NUMBER, in what SageMaker takes."""
    middle = re.sub(r"[^A-Za-z0-9]+", "-", experiment).strip("-")[:30].strip("-")
    return "-".join(["bincount", middle, f"{datetime.now(UTC):%Y%m%d-%H%M%S}", secrets.token_hex(2)])


def bucket_of(address: str) -> tuple[str, str]:
    """Bucket and key of s3://bucket/key."""
    bucket, _, key = address.removeprefix("s3://").partition("/")
    return bucket, key
