"""`python launch/submit.py`: previews, wrong configurations, and sending to AWS's stand-in."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from aws_stand_in import IMAGE, ROLE, Aws, aws_account, moto_server  # noqa: F401
from omegaconf import OmegaConf

from bincount import cli
from bincount.checks import Photos
from bincount.compose import compose
from launch import aws, checks, instances, preflight, start, submit
from launch.job import DataSet, Job

ROOT = Path(__file__).parents[1]
GPU, SMDDP, CPU = f"{IMAGE}:2.9.0-gpu-py312", f"{IMAGE}:2.4.1-gpu-py311", f"{IMAGE}:2.9.0-cpu-py312"
GIVEN = [f"launcher.role={ROLE}", "launcher.output=s3://mine/jobs"]
TRAIN = ["train", "launcher=sagemaker", "data.root=s3://mine/bins", f"launcher.image={GPU}", *GIVEN]
WITH_SMDDP = [
    "train",
    "launcher=sagemaker_smddp",
    "data.root=s3://mine/bins",
    f"launcher.image={SMDDP}",
    *GIVEN,
]
ON_CPU = [*TRAIN, "launcher.accelerator=cpu", "launcher.instance_type=ml.c5.9xlarge", f"launcher.image={CPU}"]
PREPARE = ["prepare", "source=synthetic", "out=s3://mine/new", f"launcher.image={CPU}", *GIVEN]
WANDB = "launcher.secrets.WANDB_API_KEY"

PHOTOS = Photos(("train", "val", "test"), 4200, ("0", "1", "2"))
DATA = DataSet(PHOTOS, 0.05)
NO_VAL = DataSet(replace(PHOTOS, splits=("train", "test")), 0.05)
NO_TRAIN = DataSet(Photos(("val", "test"), 0, ()), 0.05)
ALIKE = DataSet(replace(PHOTOS, held=("3",)), 0.05)
LARGE = DataSet(replace(PHOTOS, epoch=400_000), 900.0)


@dataclass(frozen=True)
class Wrong:
    """A wrong configuration: which check catches it, which line is told, and what it is that does not fit."""

    check: str
    words: list[str]
    told: str
    #: Two components that do not fit each other; one where a value is wrong by itself.
    between: str
    base: list[str] = field(default_factory=lambda: TRAIN)
    data: DataSet = DATA


WRONG = [
    Wrong("role_is_an_arn", ["launcher.role=bincount"], "launcher.role=bincount is no role", "role"),
    Wrong(
        "region_is_one",
        ["launcher.region=us-east", "launcher.image=null"],
        "launcher.region=us-east is no region",
        "region",
    ),
    Wrong("output_in_s3", ["launcher.output=jobs"], "launcher.output=jobs is no place in S3", "output"),
    Wrong(
        "checkpoints_in_s3",
        ["launcher.checkpoints=/opt/c"],
        "launcher.checkpoints=/opt/c: write auto",
        "checkpoints",
    ),
    Wrong(
        "instance_is_known",
        ["launcher.instance_type=ml.g5.12xlage"],
        "did you mean ml.g5.12xlarge?",
        "instance",
    ),
    Wrong("image_is_in_ecr", ["launcher.image=bincount:latest"], "is no image in ECR", "image"),
    Wrong("secrets_are_names", [f"{WANDB}={'0f' * 20}"], f"{WANDB}: give the name of a secret", "secrets"),
    Wrong(
        "code_is_a_wheel", ["launcher.code=no.whl"], "launcher.code=no.whl: there is no such wheel", "code"
    ),
    Wrong(
        "not_too_long", ["launcher.max_hours=1000"], "SageMaker ends this kind after 672 hours", "hours, kind"
    ),
    Wrong(
        "smddp_on_its_instances",
        ["launcher.instance_type=ml.g5.48xlarge"],
        "ml.g5.48xlarge: SMDDP runs on ml.p4d.24xlarge, ml.p4de.24xlarge alone",
        "backend, instance",
        WITH_SMDDP,
    ),
    Wrong(
        "smddp_on_several_nodes",
        ["launcher.nodes=1"],
        "launcher.nodes=1: SMDDP",
        "backend, nodes",
        WITH_SMDDP,
    ),
    Wrong(
        "smddp_in_its_image",
        [f"launcher.image={GPU}"],
        "SMDDP is in AWS's images of torch 2.4.1",
        "backend, image",
        WITH_SMDDP,
    ),
    Wrong(
        "image_is_new_enough",
        [f"launcher.image={IMAGE}:2.1.0-gpu-py311"],
        "torch 2.1.0 is too old",
        "image, code",
    ),
    Wrong(
        "image_is_new_enough",
        [f"launcher.image={IMAGE}:2.4.1-gpu-py310"],
        "Python 3.10 is too",
        "image, code",
    ),
    Wrong("image_fits_device", [f"launcher.image={CPU}"], "that image is for CPUs", "image, accelerator"),
    Wrong(
        "image_in_region",
        ["launcher.region=eu-west-1"],
        "the job is in eu-west-1, and so its image has to be",
        "image, region",
    ),
    Wrong(
        "instance_has_gpus",
        ["launcher.instance_type=ml.c5.9xlarge"],
        "launcher.accelerator=gpu: ml.c5.9xlarge has none",
        "accelerator, instance",
    ),
    Wrong("instance_has_devices", ["launcher.devices=8"], "ml.g5.12xlarge has 4 GPUs", "devices, instance"),
    Wrong(
        "instance_is_used", ["launcher.devices=1"], "has 4 GPUs, and all are paid for", "devices, instance"
    ),
    Wrong(
        "cpus_not_paid_as_gpus",
        ["launcher.instance_type=ml.g5.12xlarge"],
        "its GPUs would be paid for and not used",
        "accelerator, instance",
        ON_CPU,
    ),
    Wrong(
        "backend_fits_device",
        ["launcher.backend=nccl"],
        "launcher.backend=nccl",
        "backend, accelerator",
        ON_CPU,
    ),
    Wrong(
        "bf16_in_hardware",
        ["launcher.instance_type=ml.g4dn.12xlarge", "launcher.precision=bf16-mixed"],
        "T4s of ml.g4dn.12xlarge do not compute in it",
        "precision, instance",
    ),
    Wrong(
        "batchnorm_fits_device",
        ["trainer.sync_batchnorm=true"],
        "trainer.sync_batchnorm=true",
        "trainer, accelerator",
        ON_CPU,
    ),
    Wrong("processors_for_workers", ["data.workers=32"], "has 48 processors", "workers, instance"),
    Wrong(
        "spot_has_checkpoints",
        ["launcher.spot=true", "launcher.max_wait_hours=30", "launcher.checkpoints=none"],
        "launcher.spot=true: an interrupted job starts from nothing",
        "spot, checkpoints",
    ),
    Wrong("spot_waits", ["launcher.spot=true"], "launcher.max_wait_hours is not given", "spot, wait"),
    Wrong(
        "spot_waits",
        ["launcher.spot=true", "launcher.max_wait_hours=10"],
        "launcher.max_wait_hours=10: with spot",
        "spot, wait",
    ),
    Wrong("waits_for_spot_alone", ["launcher.max_wait_hours=30"], "only spot waits", "spot, wait"),
    Wrong(
        "run_stops_before_job", ["trainer.max_hours=24"], "trainer.max_hours=24: the job is", "trainer, job"
    ),
    Wrong(
        "pretrains_on_one_node",
        ["pretrain.epochs=2", "launcher.nodes=2"],
        "pretrain.epochs=2: that runs on one node",
        "pre-training, nodes",
    ),
    Wrong(
        "pretrains_without_limit",
        ["pretrain.epochs=2", "trainer.max_hours=3"],
        "trainer.max_hours=3: it would count anew",
        "pre-training, trainer",
    ),
    Wrong(
        "copies_in_s3",
        ["trainer.checkpoint_copy=copies"],
        "that folder ends with the job",
        "trainer, container",
    ),
    Wrong(
        "enough_photos",
        ["data.batch_size=1051"],
        "a step of 4 ranks takes 4,204 photos",
        "batch, ranks, photos",
    ),
    Wrong("training_has_photos", [], "has no photos in split 'train'", "data", data=NO_TRAIN),
    Wrong("counts_differ", [], "every training photo has the count 3", "data", data=ALIKE),
    Wrong(
        "enough_collages",
        ["pretrain.epochs=2", "pretrain.photos=200", "launcher.nodes=1"],
        "pretrain.photos=200: a step takes 256 photos",
        "pre-training, batch, ranks",
    ),
    Wrong("plateau_has_validation", ["scheduler=plateau"], "no split 'val'", "scheduler, data", data=NO_VAL),
    Wrong(
        "stopping_has_validation", ["trainer.stop_after=3"], "no split 'val'", "trainer, data", data=NO_VAL
    ),
    Wrong(
        "data_fits_volume",
        ["launcher.input=File"],
        "copies 900.0 GB there",
        "input, volume, data",
        data=LARGE,
    ),
    Wrong(
        "cache_fits_volume",
        ["data.cache=/tmp/cache", "data.cache_gb=500"],
        "data.cache_gb=500: the cache is on the volume",
        "cache, volume",
    ),
    Wrong(
        "cache_is_of_s3", ["data.cache=/tmp/c", "launcher.input=File"], "data.cache: launcher", "cache, input"
    ),
    Wrong(
        "pipe_is_of_s3", ["data.reader=pipe", "launcher.input=FastFile"], "data.reader=pipe", "reader, input"
    ),
    Wrong(
        "output_beside_data",
        ["launcher.input=File", "launcher.output=s3://mine/bins/jobs"],
        "it lies in data.root",
        "output, data",
    ),
    Wrong("weights_reach_the_job", ["model.weights=mine.pt"], "model.weights=mine.pt", "weights, container"),
    Wrong(
        "vit_takes_the_size",
        ["model=vit_b_16", "data.image_size=100"],
        "vit_b_16 needs a square size",
        "model, image size",
    ),
    Wrong("wandb_has_its_key", ["logger=wandb"], "logger=wandb: the job needs your key", "logger, secrets"),
    Wrong("spot_is_for_training", ["launcher.spot=true"], "no spot instances for", "spot, kind", PREPARE),
    Wrong("prepares_into_s3", ["out=data/new"], "out=data/new: that folder ends", "out, container", PREPARE),
    Wrong(
        "prepares_from_s3",
        ["source=folder", "source.images=photos"],
        "source.images=photos: a job sees no folder",
        "source, container",
        PREPARE,
    ),
    Wrong(
        "prepares_tables_itself",
        ["tables.engine=spark"],
        "`submit.py tables` makes them beforehand",
        "engine, container",
        PREPARE,
    ),
    Wrong("parts_are_the_nodes", ["part=1/2"], "leave them out", "part, nodes", PREPARE),
]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """No AWS: notes what would be asked of it."""
    found: list[str] = []

    def ask(service: str, operation: str, region: str, **request: Any) -> Any:
        found.append(f"{service}:{operation}")
        raise aws.Refused("nobody is there", "Nobody", {})

    monkeypatch.setattr(aws, "ask", ask)
    monkeypatch.setattr(aws, "has_credentials", lambda: True)
    monkeypatch.chdir(tmp_path)
    return found


def with_data(monkeypatch: pytest.MonkeyPatch, data: DataSet | None) -> None:
    def read(job: Job) -> tuple[Job, str]:
        return replace(job, data=data), ""

    monkeypatch.setattr(start, "read_data", read)


def line_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command ends with."""
    capsys.readouterr()
    assert submit.main(words) == 2, words
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert len(told.err) < 400
    return told.err.removeprefix("bincount: ").strip()


def test_the_table_is_long_enough() -> None:
    assert len(WRONG) + len(WRONG_IN_AWS) >= 30
    assert len([wrong for wrong in WRONG if "," in wrong.between]) >= 15
    caught = {wrong.check for wrong in WRONG} | {"resumes_by_checkpoints"}
    assert caught == set(checks.CHECKS)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: f"{wrong.check}: {wrong.between}")
def test_what_is_wrong_is_told_before_anything_is_asked_and_nothing_else_would_tell_it(
    wrong: Wrong, asked: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_data(monkeypatch, wrong.data)
    words = [*wrong.base, *wrong.words]
    composed = start.composed(words[0], words[1:])
    monkeypatch.setattr(start, "composed", lambda verb, words: composed)
    assert wrong.told in line_of(words, capsys)
    assert wrong.told in line_of([*words, "submit=true"], capsys)
    assert asked == []

    monkeypatch.delitem(checks.CHECKS, wrong.check)
    assert submit.main(words) == 0
    assert "[request Create" in capsys.readouterr().out


@pytest.mark.parametrize(
    "base", [TRAIN, WITH_SMDDP, ON_CPU, PREPARE], ids=["nccl", "smddp", "cpu", "prepare"]
)
def test_nothing_is_wrong_with_what_the_table_begins_with(
    base: list[str], asked: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_data(monkeypatch, DATA)
    assert submit.main(base) == 0
    assert "submit=true sends it" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_of_this_machine_cannot_be_resumed_in_a_job(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_data(monkeypatch, DATA)
    Path("here").mkdir()
    OmegaConf.save(compose("train", TRAIN[1:]), "here/config.yaml")
    told = line_of([*TRAIN, "resume=here"], capsys)
    assert "launcher.checkpoints=s3://… of the earlier job goes on with it" in told
    monkeypatch.delitem(checks.CHECKS, "resumes_by_checkpoints")
    assert submit.main([*TRAIN, "resume=here"]) == 0


@pytest.mark.parametrize(
    ("lacking", "told"),
    [
        ("launcher.role", "launcher.role is not given: add launcher.role=arn:aws:iam::ACCOUNT:role/NAME"),
        ("launcher.output", "launcher.output is not given: add launcher.output=s3://bucket/prefix"),
        ("data.root", "data.root=data/drawn: a job sees no folder of this machine"),
        ("launcher.image", "launcher.image: AWS's own image has no bincount"),
    ],
)
def test_what_lacks_is_shown_by_a_preview_and_stops_sending(
    lacking: str,
    told: str,
    asked: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with_data(monkeypatch, DATA)
    words = [word for word in TRAIN if not word.startswith(f"{lacking}=")]
    assert submit.main(words) == 0
    assert f"first: {told}" in capsys.readouterr().out
    assert told in line_of([*words, "submit=true"], capsys)
    assert not [call for call in asked if not call.startswith("pricing:")]


# --- what only AWS can tell ---------------------------------------------------------------------------


def other_role(aws: Aws) -> None:
    aws.role("for-ec2", trust='{"Statement": [{"Principal": {"Service": "ec2.amazonaws.com"}}]}')


@dataclass(frozen=True)
class WrongInAws:
    check: str
    words: list[str]
    told: str
    made: Callable[[Aws], None] = lambda _: None
    base: list[str] = field(default_factory=lambda: TRAIN)
    #: Whether the job would then be sent; otherwise AWS's own answer would tell, less clearly.
    sent_without: bool = True


WRONG_IN_AWS = [
    WrongInAws(
        "role_of_this_account",
        ["launcher.role=arn:aws:iam::999999999999:role/bincount"],
        "you are of account 123456789012",
    ),
    WrongInAws("role_exists", [f"launcher.role={ROLE}2"], "there is no such role"),
    WrongInAws(
        "role_is_for_sagemaker",
        ["launcher.role=arn:aws:iam::123456789012:role/for-ec2"],
        "SageMaker may not take it",
        other_role,
    ),
    WrongInAws(
        "output_reachable",
        ["launcher.output=s3://not-there/jobs"],
        "bucket not-there: there is no such bucket",
        sent_without=False,
    ),
    WrongInAws(
        "output_in_region",
        ["launcher.output=s3://far/jobs"],
        "its bucket is in eu-west-1 and the job in us-east-1",
        lambda aws: aws.bucket("far", "eu-west-1"),
    ),
    WrongInAws(
        "data_in_region",
        ["out=s3://far/new"],
        "out=s3://far/new: its bucket is in eu-west-1",
        lambda aws: aws.bucket("far", "eu-west-1"),
        PREPARE,
    ),
    WrongInAws(
        "checkpoints_in_region",
        ["launcher.checkpoints=s3://far/earlier"],
        "launcher.checkpoints=s3://far/earlier: its bucket is in eu-west-1",
        lambda aws: aws.bucket("far", "eu-west-1"),
    ),
    WrongInAws("index_readable", ["data.root=s3://mine/no"], "is no prepared data set", sent_without=False),
    WrongInAws("out_is_free", ["out=s3://mine/bins"], "there is a data set already", base=PREPARE),
    WrongInAws("image_exists", [f"launcher.image={IMAGE}:2.9.0-gpu-mine"], "it is not in ECR"),
    WrongInAws("secrets_exist", [f"{WANDB}=bincount/wandb"], "there is no such secret in us-east-1"),
]


@pytest.fixture
def account(
    aws_account: Aws,  # noqa: F811
    small_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Aws:
    """An account in which everything is there that a job needs."""
    monkeypatch.chdir(tmp_path)
    aws_account.bucket("mine")
    aws_account.upload(small_data.glob("index.*"), "mine", "bins")
    aws_account.repository(*(image.partition(":")[2] for image in (GPU, CPU)))
    return aws_account


SMALL = ["data.batch_size=4"]


@pytest.mark.slow
@pytest.mark.parametrize("wrong", WRONG_IN_AWS, ids=lambda wrong: wrong.check)
def test_preflight_catches_what_only_aws_can_tell(
    wrong: WrongInAws, account: Aws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong.made(account)
    words = [*wrong.base, *(SMALL if wrong.base[0] == "train" else []), *wrong.words, "submit=true"]
    assert wrong.told in line_of(words, capsys)
    assert account.training_jobs() == account.processing_jobs() == []
    if wrong.sent_without:
        monkeypatch.delitem(preflight.PREFLIGHT, wrong.check)
        assert submit.main(words) == 0
        assert len(account.training_jobs() + account.processing_jobs()) == 1


def test_every_preflight_check_is_in_the_table() -> None:
    assert {wrong.check for wrong in WRONG_IN_AWS} | {"credentials"} == set(preflight.PREFLIGHT)


def test_no_credentials(
    no_aws: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    no_aws.chdir(tmp_path)
    aws._client.cache_clear()
    assert "there are no AWS credentials" in line_of([*TRAIN, "submit=true"], capsys)
    assert submit.main(TRAIN) == 0
    assert "steps are not known: s3://mine/bins was not read: there are no AWS" in capsys.readouterr().out


# --- sending ------------------------------------------------------------------------------------------


def test_a_training_job_is_previewed_and_sent(account: Aws, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit.main([*TRAIN, *SMALL, "launcher.max_hours=2"]) == 0
    told = capsys.readouterr().out
    assert (
        "4 photos x 4 ranks = 16 a step; 68 photos an epoch = 4 steps an epoch on each rank, 24 in 6" in told
    )
    assert "on demand    14.22 USD = 2 h x 1 x (7.090 USD for an instance" in told
    assert "instances.yaml: AWS's list of 2025-06" in told
    assert account.training_jobs() == []

    assert submit.main([*TRAIN, *SMALL, "submit=true"]) == 0
    (name,) = account.training_jobs()
    assert f"sent {name}" in capsys.readouterr().out
    sent = account.client("sagemaker").describe_training_job(TrainingJobName=name)
    assert sent["AlgorithmSpecification"]["ContainerEntrypoint"] == ["python", "-m", "bincount.container"]
    (folder,) = Path("runs/default").iterdir()
    config = (
        account.client("s3").get_object(Bucket="mine", Key=f"jobs/{name}/config/config.yaml")["Body"].read()
    )
    assert config == (folder / "config.yaml").read_bytes()
    assert json.loads((folder / "request.json").read_bytes())["TrainingJobName"] == name


@pytest.mark.slow
def test_a_processing_job_is_sent(account: Aws, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit.main([*PREPARE, "launcher.nodes=8", "submit=true"]) == 0
    (name,) = account.processing_jobs()
    assert f"sent {name}, kept in runs/prepare/{name}" in capsys.readouterr().out


@pytest.mark.slow
def test_a_wheel_goes_with_the_job(account: Aws, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bincount-0.1.0-py3-none-any.whl").write_bytes(b"wheel")
    words = ["launcher.image=null", "launcher.code=bincount-0.1.0-py3-none-any.whl", "submit=true"]
    assert submit.main([*TRAIN, *SMALL, *words]) == 0
    (name,) = account.training_jobs()
    key = f"jobs/{name}/code/bincount-0.1.0-py3-none-any.whl"
    assert account.client("s3").get_object(Bucket="mine", Key=key)["Body"].read() == b"wheel"


# --- the program --------------------------------------------------------------------------------------


def test_it_is_a_program_that_previews_without_an_account(no_aws: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "launch/submit.py"), "train", "launcher=sagemaker_smddp"]
    done = subprocess.run([*command, "experiment=multinode"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 x ml.p4d.24xlarge: 8 A100 of 40 GB" in done.stdout
    assert "pytorch-training:2.4.1-gpu-py311" in done.stdout
    assert "[request CreateTrainingJob]" in done.stdout


def test_its_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert submit.main(["--help"]) == submit.main([]) == submit.main(["train", "--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"python launch/submit.py {verb} " in told for verb in submit.VERBS)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["trian"], "trian: there is no such verb: did you mean train?"),
        (["train", "--now"], "--now: write key=value, or --help"),
        (["train", "launcher=sagemaker", "submit=yes"], "submit=yes: write submit=true, or leave it out"),
        (["train", "launcher=sagemaker", "data.rot=x"], "data.rot: there is no such key in `train`"),
        (["train", "launcher=gpu"], "launcher=gpu: `bincount train` trains here; give launcher=sagemaker"),
        (["train", "launcher=sagemaker", "launcher.nodes=0"], "launcher.nodes=0: must be 1 or above"),
        (["prepare", "launcher=local"], "launcher=local: that runs here, not on SageMaker"),
        (["status", "jobs=x"], "jobs: there is no such key in `status`: did you mean job?"),
    ],
)
def test_mistakes_are_told_in_a_line(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert told in line_of(words, capsys)


@pytest.mark.parametrize("launcher", ["sagemaker", "sagemaker_smddp"])
def test_on_a_laptop_train_says_which_command_to_run(
    launcher: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", f"launcher={launcher}"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"`python launch/submit.py train launcher={launcher} …`" in told


COMMANDS = [
    line
    for name in ("README.md", "docs/sagemaker.md")
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines()
    if line.startswith(
        tuple(
            f"python launch/submit.py {verb} " for verb in ("train", "prepare", "tune", "tables", "pipeline")
        )
    )
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_documentation_preview(
    command: str, no_aws: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    no_aws.chdir(tmp_path)
    words = [word for word in shlex.split(command, comments=True)[2:] if word != "submit=true"]
    assert submit.main(words) == 0, capsys.readouterr().err


def test_prices_are_dated() -> None:
    assert re.fullmatch(r"20\d\d-\d\d", instances.table()["as_of"])
    assert all(each.usd_hour > 0 for each in instances.types().values())
