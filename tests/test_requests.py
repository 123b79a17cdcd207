"""Requests: kept in tests/golden, true to AWS's own model of its API, and free of secrets.

`BINCOUNT_GOLDEN=write pytest tests/test_requests.py` writes the golden files anew.
"""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aws_stand_in import IMAGE, REGION, ROLE, Aws, aws_account, moto_server  # noqa: F401
from omegaconf import OmegaConf

from bincount.checks import Photos
from bincount.compose import typed
from bincount.errors import BadInput
from launch import requests, service_model, start
from launch.job import DataSet, Job

GOLDEN = Path(__file__).parent / "golden"
WORDS = [f"launcher.role={ROLE}", "launcher.output=s3://mine/jobs"]
BINS = "data.root=s3://mine/bins"

REQUESTS = {
    "train": ["train", "launcher=sagemaker", BINS, f"launcher.image={IMAGE}:2.9.0-gpu-py312", *WORDS],
    "train_wheel_on_stock_image": ["train", "launcher=sagemaker", BINS, "launcher.code=bincount.whl", *WORDS],
    "train_spot_with_secret": [
        "train",
        "launcher=sagemaker",
        BINS,
        f"launcher.image={IMAGE}:2.9.0-gpu-py312",
        "launcher.spot=true",
        "launcher.max_hours=4",
        "launcher.max_wait_hours=8",
        "logger=wandb",
        "launcher.secrets.WANDB_API_KEY=bincount/wandb",
        *WORDS,
    ],
    "train_smddp_files": [
        "train",
        "launcher=sagemaker_smddp",
        "experiment=multinode",
        BINS,
        "launcher.input=FastFile",
        "launcher.checkpoints=s3://mine/jobs/earlier/checkpoints",
        f"launcher.image={IMAGE}:2.4.1-gpu-py311",
        *WORDS,
    ],
    "train_preview_alone": ["train", "launcher=sagemaker_smddp", "experiment=multinode"],
    "prepare": [
        "prepare",
        "source=s3",
        "source.bucket=s3://aft-vbi-pds",
        "out=s3://mine/bins",
        "launcher.nodes=8",
        f"launcher.image={IMAGE}:2.9.0-cpu-py312",
        *WORDS,
    ],
    "prepare_wheel_on_stock_image": ["prepare", "out=s3://mine/drawn", "launcher.code=bincount.whl", *WORDS],
}


@pytest.fixture(params=REQUESTS)
def named(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Job]:
    name: str = request.param
    return name, job_of(REQUESTS[name], monkeypatch)


def job_of(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Job:
    data = DataSet(Photos(("train", "val", "test"), 4200, ("0", "1")), 0.05)
    monkeypatch.setattr(start, "read_data", lambda job: (replace(job, data=data), ""))
    return start.composed(words[0], words[1:], name="bincount-golden-20261121-120000-ab12")[0]


def test_requests_are_the_golden_ones_and_what_aws_takes(named: tuple[str, Job]) -> None:
    name, job = named
    made = requests.request(job)
    service_model.check("sagemaker", requests.operation(job), made)
    path = GOLDEN / f"{name}.json"
    if os.environ.get("BINCOUNT_GOLDEN") == "write":
        path.write_text(requests.shown(made) + "\n")
    assert json.loads(path.read_text()) == made


def test_golden_files_are_of_requests() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(REQUESTS)


@pytest.mark.slow
def test_moto_takes_them(
    named: tuple[str, Job],
    aws_account: Aws,  # noqa: F811
) -> None:
    _, job = named
    sagemaker = aws_account.client("sagemaker")
    if job.train:
        sagemaker.create_training_job(**requests.request(job))
        assert aws_account.training_jobs() == [job.name]
    else:
        sagemaker.create_processing_job(**requests.request(job))
        assert aws_account.processing_jobs() == [job.name]


def test_the_configuration_travels_as_one_resolved_file(named: tuple[str, Job]) -> None:
    _, job = named
    if job.launcher.code is None:
        ((address, content),) = requests.uploads(job).items()
        assert address == job.place("config/config.yaml")
    content = requests.config_yaml(job).encode()
    assert typed(job.verb, OmegaConf.create(content.decode())) == job.config
    assert "HyperParameters" not in requests.request(job)


def test_a_secret_goes_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "the-value-itself")
    made = requests.request(job_of(REQUESTS["train_spot_with_secret"], monkeypatch))
    assert made["Environment"]["BINCOUNT_SECRETS"] == "WANDB_API_KEY=bincount/wandb"
    assert "the-value-itself" not in json.dumps(made)


def test_metric_definitions_match_the_line_of_an_epoch(small_run: Path) -> None:
    (line,) = [line for line in (small_run / "log.txt").read_text().splitlines() if "epoch 1 of 1" in line]
    found = {name: re.search(regex, line) for name, regex in requests.METRICS.items()}
    assert all(found.values()), line
    loss, val_loss = (found[name] for name in ("train:loss", "val:loss"))
    assert loss is not None
    assert val_loss is not None
    assert line.index("val loss") > loss.start(1)
    assert f"val loss {val_loss[1]}  accuracy" in line
    assert not re.search("|".join(requests.METRICS.values()), "test: accuracy 0.500  RMSE 1.000")


def broken(made: dict[str, Any], *path: Any, value: Any) -> dict[str, Any]:
    """A copy of the request with another value at ``path``."""
    made = json.loads(json.dumps(made))
    place: Any = made
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return made


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("TrainingJobName",), "a_b", "TrainingJobName=a_b: AWS takes only what matches"),
        (("TrainingJobName",), "a" * 64, "64 characters: AWS takes 1 to 63"),
        (("ResourceConfig", "InstanceType"), "ml.p4d.25xlarge", "ml.p4d.25xlarge: AWS knows no such value"),
        (("StoppingCondition", "MaxRuntimeInSeconds"), 0, "MaxRuntimeInSeconds"),
        (
            ("AlgorithmSpecification", "ContainerEntrypoint", 0),
            "x" * 257,
            "257 characters: AWS takes 0 to 256",
        ),
        (("Environment", "A B"), "x", "A B"),
        (("Hyper",), {}, "Unknown parameter"),
        (("ResourceConfig", "InstanceCount"), "2", "Invalid type"),
    ],
)
def test_what_aws_would_refuse_is_found_in_its_model(
    path: tuple[Any, ...], value: Any, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = requests.request(job_of(REQUESTS["train"], monkeypatch))
    with pytest.raises(BadInput) as error:
        service_model.check("sagemaker", "CreateTrainingJob", broken(made, *path, value=value))
    assert told.split(":")[0] in str(error.value)
    assert "\n" not in str(error.value)


def test_regions_have_their_own_images(monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(["train", "launcher=sagemaker", "launcher.region=eu-west-1"], monkeypatch)
    assert job.image.startswith("763104351884.dkr.ecr.eu-west-1.amazonaws.com/pytorch-training:2.9.0-gpu")
    assert REGION not in json.dumps(requests.request(job))
