"""Which instances there are, what they hold, and what an hour costs: from `instances.yaml`, which is dated.

Where AWS's Pricing API answers, its price of an hour is taken instead.
"""

import contextlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from bincount.errors import BincountError
from launch import aws

TABLE = Path(__file__).with_name("instances.yaml")

#: The Pricing API answers in few regions; it knows the prices of all.
PRICING_REGION = "us-east-1"


@dataclass(frozen=True, kw_only=True)
class Instance:
    """An instance type. ``bf16``: its GPUs compute in it; ``smddp``: SMDDP supports it."""

    name: str
    gpus: int
    vcpus: int
    memory_gb: int
    usd_hour: float
    gpu: str = ""
    gpu_gb: int = 0
    bf16: bool = False
    smddp: bool = False

    @property
    def told(self) -> str:
        """What it holds, in words."""
        gpus = f"{self.gpus} {self.gpu} of {self.gpu_gb} GB, " if self.gpus else ""
        return f"{gpus}{self.vcpus} processors, {self.memory_gb:,} GB of memory"


@dataclass(frozen=True)
class Price:
    """USD an hour of one instance, and where that is from."""

    usd_hour: float
    source: str


@cache
def table() -> dict[str, Any]:
    """The file as it is."""
    read: dict[str, Any] = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return read


def types() -> dict[str, Instance]:
    """Every instance type there is, by its name."""
    return {name: Instance(name=name, **facts) for name, facts in table()["types"].items()}


def written_price(instance: Instance) -> Price:
    """The price in the file."""
    told = (
        f"instances.yaml: AWS's list of {table()['as_of']} for {table()['region']}; prices change, check them"
    )
    return Price(instance.usd_hour, told)


def price(instance: Instance, region: str, job: str) -> Price:
    """The price of an hour: the Pricing API's where it answers, else the file's.

    ``job``: Training or Processing.
    """
    if aws.has_credentials():
        with contextlib.suppress(BincountError, ValueError, KeyError, TypeError):
            if found := _asked(instance.name, region, job):
                return Price(found, f"AWS's Pricing API, for {region}, now")
    return written_price(instance)


def _asked(name: str, region: str, job: str) -> float | None:
    filters = [
        {"Type": "TERM_MATCH", "Field": field, "Value": value}
        for field, value in {"regionCode": region, "instanceName": name}.items()
    ]
    found = aws.ask("pricing", "get_products", PRICING_REGION, ServiceCode="AmazonSageMaker", Filters=filters)
    for line in found["PriceList"]:
        product = json.loads(line)
        attributes = product["product"]["attributes"]
        if attributes.get("component") != job and f"-{job[:5]}:" not in f"-{attributes.get('usagetype', '')}":
            continue
        for term in product["terms"]["OnDemand"].values():
            for dimension in term["priceDimensions"].values():
                if usd := float(dimension["pricePerUnit"].get("USD", 0)):
                    return usd
    return None
