"""deploy, invoke, transform and cleanup: requests, what is refused, a whole life on AWS's stand-in, and the
container of an endpoint as SageMaker starts it.

`BINCOUNT_GOLDEN=write pytest tests/test_counting_in_aws.py` writes the golden files anew.
"""

import json
import os
import re
import shlex
import signal
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
from aws_stand_in import IMAGE, REGION, ROLE, Aws, aws_account, moto_server  # noqa: F401
from conftest import Answering, Asked
from making import write_photos
from rehearsal import Host, image_entry, stage
from trouble import wait_until

from bincount import cli
from launch import aws, cleanup, deploy, hosting_checks, invoke, service_model, submit, transform

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden/counting"
CPU, GPU = f"{IMAGE}:2.9.0-cpu-py312", f"{IMAGE}:2.9.0-gpu-py312"
JOB = "bincount-default-20261121-120000-ab12"
MODEL = f"model=s3://mine/jobs/{JOB}/output/model.tar.gz"
GIVEN = [MODEL, f"launcher.image={CPU}", f"launcher.role={ROLE}"]
PHOTOS = ["photos=s3://mine/photos", "out=s3://mine/counts"]
ANSWER = {"count": 2, "probabilities": {"0": 0.1, "1": 0.2, "2": 0.7}}

REQUESTS = {
    "deploy": ["deploy", *GIVEN, "instances=2"],
    "deploy_serverless": ["deploy", *GIVEN, "serverless=true", "memory=3072", "concurrency=20"],
    "deploy_preview_alone": ["deploy", MODEL],
    "transform": ["transform", *GIVEN, *PHOTOS, "content=image/png"],
}
NAME = "bincount-golden-20261121-120000-ab12"


def requests_of(words: list[str]) -> dict[str, dict[str, Any]]:
    if words[0] == "deploy":
        return deploy.made(deploy.composed(words[1:], NAME))
    return transform.made(transform.composed(words[1:], NAME))


@pytest.mark.parametrize("name", REQUESTS)
def test_requests_are_the_golden_ones_and_what_aws_takes(name: str) -> None:
    made = requests_of(REQUESTS[name])
    for operation, request in made.items():
        service_model.check("sagemaker", operation, request)
    path = GOLDEN / f"{name}.json"
    if os.environ.get("BINCOUNT_GOLDEN") == "write":
        path.write_text(json.dumps(made, indent=2) + "\n")
    assert json.loads(path.read_text()) == made


def test_golden_files_are_of_requests() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(REQUESTS)


# --- previews, and what is refused --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (REQUESTS["deploy"], ["0.408 USD = 2 x 0.204, asked or not", "297.84 USD where nobody cleans up"]),
        (REQUESTS["deploy_serverless"], ["0.216 USD of counting for each request", "4.320 USD at most"]),
        (["deploy", MODEL], ["first: launcher.role is not given", "first: launcher.image is not given"]),
        (REQUESTS["transform"], ["0.816 USD = 1 x 0.816, until all is counted", "a file ID.jpg.out"]),
    ],
)
def test_a_preview_tells_the_price_and_sends_nothing(
    words: list[str], told: list[str], no_aws: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    no_aws.setattr(aws, "ask", None)
    assert submit.main(words) == 0
    out = capsys.readouterr().out
    assert all(each in out for each in [*told, "[request CreateModel]", "nothing was sent"])


@dataclass(frozen=True)
class Wrong:
    """Which check catches the words, and with which line."""

    check: str
    words: list[str]
    told: str
    base: list[str] = field(default_factory=lambda: REQUESTS["deploy"])


WRONG = [
    Wrong("role_is_an_arn", ["launcher.role=me"], "launcher.role=me is no role"),
    Wrong("region_is_one", ["launcher.region=us", "launcher.image=null"], "is no region"),
    Wrong("instance_is_known", ["instance_type=ml.c5.xlrge"], "did you mean ml.c5.xlarge?"),
    Wrong("image_is_in_ecr", ["launcher.image=bincount"], "is no image in ECR"),
    Wrong("image_is_new_enough", [f"launcher.image={IMAGE}:2.1.0-cpu-py311"], "torch 2.1.0 is too old"),
    Wrong("image_in_region", ["launcher.region=eu-west-1"], "and so its image has to be"),
    Wrong("model_is_an_archive", ["model=s3://mine/jobs/a"], "as a training job leaves it"),
    Wrong("no_wheel", ["launcher.code=a.whl"], "a model's container installs nothing"),
    Wrong("gpu_has_its_image", ["instance_type=ml.g5.xlarge"], "would be paid for and not used"),
    Wrong(
        "one_gpu_is_used",
        ["instance_type=ml.g5.12xlarge", f"launcher.image={GPU}"],
        "it has 4 GPUs, and a model counts on one",
    ),
    Wrong("serverless_has_a_small_image", ["serverless=true", f"launcher.image={GPU}"], "images up to 10 GB"),
    Wrong("serverless_has_room", ["serverless=true", "memory=1024"], "need 2048 MB or more"),
    Wrong("photos_in_s3", ["photos=photos"], "photos=photos/: a transform sees", REQUESTS["transform"]),
    Wrong("out_in_s3", ["out=counts"], "out=counts: that folder ends", REQUESTS["transform"]),
    Wrong("out_beside_photos", ["out=s3://mine/photos/out"], "it lies in photos", REQUESTS["transform"]),
]


def line_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert submit.main(words) == 2, words
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    return told.err


def test_every_check_is_in_the_table() -> None:
    all_checks = {*hosting_checks.ENDPOINTS.checks, *hosting_checks.TRANSFORMS.checks}
    assert {wrong.check for wrong in WRONG} == all_checks
    asked = {*hosting_checks.ENDPOINTS.asked, *hosting_checks.TRANSFORMS.asked}
    assert {check for check, *_ in WRONG_IN_AWS} | OF_JOBS_TOO == asked


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.check)
def test_what_is_wrong_is_told_before_anything_is_asked_and_nothing_else_would_tell_it(
    wrong: Wrong, no_aws: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    no_aws.setattr(aws, "ask", None)
    words = [*wrong.base, *wrong.words]
    assert wrong.told in line_of(words, capsys)
    assert wrong.told in line_of([*words, "submit=true"], capsys)
    rules = hosting_checks.ENDPOINTS if words[0] == "deploy" else hosting_checks.TRANSFORMS
    no_aws.delitem(rules.checks, wrong.check)
    if wrong.check != "instance_is_known":  # then its price is not known, either
        assert submit.main(words) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["deploy"], "which model: give job=NAME, job=latest or model="),
        (["deploy", MODEL, "job=latest"], "which model: give"),
        (["deploy", "job=latest"], "give model=s3://…: there are no AWS credentials"),
        (["deploy", MODEL, "instances=no"], "instances=no: must be of type int"),
        (["deploy", MODEL, "name=mine"], "name=mine: must be bincount-…"),
        (["deploy", MODEL, "memry=2048"], "memry: there is no such key in `deploy`: did you mean memory?"),
        (["transform", MODEL], "photos is not given: add photos=s3://bucket/prefix"),
        (["invoke", "url=http://127.0.0.1:1"], "photo is not given"),
        (["invoke", "photo=a.jpg"], "who is asked: give endpoint=NAME"),
        (["invoke", "photo=a.jpg", "url=http://127.0.0.1:1"], "a.jpg: No such file"),
        (["cleanup"], "what is to go: give run=NAME"),
        (["cleanup", "all=true", "run=a"], "what is to go: give run=NAME"),
        (["cleanup", "all=true"], "there are no AWS credentials"),
    ],
)
def test_mistakes_are_told_in_a_line(
    words: list[str],
    told: str,
    no_aws: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    no_aws.chdir(tmp_path)
    assert told in line_of(words, capsys)


# --- a whole life on AWS's stand-in -------------------------------------------------------------------


@pytest.fixture
def account(aws_account: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Aws:  # noqa: F811
    """An account with an image, photos, and a job that has trained a model."""
    monkeypatch.chdir(tmp_path)
    aws_account.bucket("mine")
    aws_account.repository("2.9.0-cpu-py312")
    s3 = aws_account.client("s3")
    s3.put_object(Bucket="mine", Key=f"jobs/{JOB}/output/model.tar.gz", Body=b"model")
    s3.put_object(Bucket="mine", Key="photos/1.jpg", Body=b"photo")
    aws_account.client("sagemaker").create_training_job(
        TrainingJobName=JOB,
        RoleArn=ROLE,
        AlgorithmSpecification={"TrainingImage": CPU, "TrainingInputMode": "File"},
        OutputDataConfig={"S3OutputPath": "s3://mine/jobs"},
        ResourceConfig={"InstanceType": "ml.c5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 10},
        StoppingCondition={"MaxRuntimeInSeconds": 60},
    )
    return aws_account


def carrying(account: Aws) -> list[str]:
    """What is there and costs, or could."""
    sagemaker = account.client("sagemaker")
    endpoints = [each["EndpointName"] for each in sagemaker.list_endpoints()["Endpoints"]]
    configs = [each["EndpointConfigName"] for each in sagemaker.list_endpoint_configs()["EndpointConfigs"]]
    return endpoints + configs + [each["ModelName"] for each in sagemaker.list_models()["Models"]]


@pytest.fixture
def endpoints(account: Aws, monkeypatch: pytest.MonkeyPatch) -> Iterator[Answering]:
    """What stands for endpoints: moto's take no bytes that are no text."""

    def answer(asked: Asked) -> tuple[int, dict[str, str], bytes]:
        return 200, {"Content-Type": "application/json"}, json.dumps({"answers": [ANSWER]}).encode()

    with Answering(answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", server.endpoint)
        yield server
        server.shutdown()


@pytest.mark.slow
def test_deployed_invoked_and_cleaned_up_nothing_is_left(
    account: Aws, endpoints: Answering, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(Path("photos"), ["1"])
    sent = [f"launcher.image={CPU}", f"launcher.role={ROLE}"]
    assert submit.main(["deploy", "job=latest", *sent]) == 0
    assert f"jobs/{JOB}/output/model.tar.gz" in capsys.readouterr().out
    assert carrying(account) == []
    assert submit.main(["deploy", f"job={JOB}", *sent, "submit=true"]) == 0
    (name,) = set(carrying(account))
    assert f"cleanup run={JOB}" in capsys.readouterr().out
    account.client("sagemaker").create_model(  # of somebody else
        ModelName="bincount-theirs", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": CPU}
    )

    for endpoint in (name, "latest"):
        assert submit.main(["invoke", f"endpoint={endpoint}", "photo=photos/1.jpg"]) == 0
        told = capsys.readouterr().out
        assert told == "photos/1.jpg: 2 items (0: 10%, 1: 20%, 2: 70%)\n"
        assert endpoints.asked[-1].path == f"/endpoints/{name}/invocations"
        assert endpoints.asked[-1].headers["Content-Type"] == "image/jpeg"

    assert submit.main(["cleanup", "run=another"]) == 0
    assert "there is nothing of run another" in capsys.readouterr().out
    assert submit.main(["cleanup", f"run={JOB}"]) == 0
    told = capsys.readouterr().out
    assert [line.split("  ")[0] for line in told.splitlines()[:3]] == ["endpoint", "endpoint config", "model"]
    assert "submit=true deletes all of these" in told
    assert len(carrying(account)) == 4
    assert submit.main(["cleanup", "all=true", "submit=true"]) == 0
    assert "deleted 3" in capsys.readouterr().out
    assert cleanup.tagged(REGION) == []
    assert carrying(account) == ["bincount-theirs"]


@pytest.mark.slow
def test_a_transform_is_sent_and_followed(account: Aws, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["transform", f"job={JOB}", f"launcher.image={CPU}", f"launcher.role={ROLE}", *PHOTOS]
    assert submit.main([*words, "submit=true"]) == 0
    name = re.search(r"sent (\S+)", capsys.readouterr().out)
    assert name is not None
    found = account.client("sagemaker").describe_transform_job(TransformJobName=name[1])
    assert found["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"] == "s3://mine/photos/"
    assert submit.main(["status", f"job={name[1]}"]) == 0
    assert "1 x ml.c5.4xlarge" in capsys.readouterr().out
    assert submit.main(["cleanup", f"run={JOB}", "submit=true"]) == 0
    assert carrying(account) == []


def far(account: Aws) -> None:
    account.bucket("far", "eu-west-1")
    account.client("s3", "eu-west-1").put_object(Bucket="far", Key="model.tar.gz", Body=b"model")


#: Checks that are those of jobs, and tested there.
OF_JOBS_TOO = {"credentials", "role_of_this_account", "role_exists", "role_is_for_sagemaker", "image_exists"}

WRONG_IN_AWS: list[tuple[str, list[str], str, Callable[[Aws], None]]] = [
    ("model_exists", ["model=s3://mine/jobs/no/output/model.tar.gz"], "it is not there", lambda _: None),
    ("model_in_region", ["model=s3://far/model.tar.gz"], "its bucket is in eu-west-1", far),
    ("photos_are_there", ["photos=s3://mine/none"], "s3://mine/none/: there is nothing", lambda _: None),
    ("out_in_region", ["out=s3://far/out"], "out=s3://far/out: its bucket is in eu-west-1", far),
]


@pytest.mark.slow
@pytest.mark.parametrize(("check", "words", "told", "made"), WRONG_IN_AWS, ids=lambda each: str(each)[:20])
def test_what_only_aws_can_tell(
    check: str,
    words: list[str],
    told: str,
    made: Callable[[Aws], None],
    account: Aws,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made(account)
    words = ["transform", *GIVEN, *PHOTOS, *words, "submit=true"]
    assert told in line_of(words, capsys)
    assert carrying(account) == []
    monkeypatch.delitem(hosting_checks.TRANSFORMS.asked, check)
    assert submit.main(words) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "status", "told"),
    [("bincount-no", "", "there is no such training job"), (JOB, "Failed", "it has no model (Failed)")],
)
def test_a_job_without_a_model_is_not_deployed(
    job: str,
    status: str,
    told: str,
    account: Aws,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if status:
        monkeypatch.setattr(aws, "ask", lambda *_, **__: {"TrainingJobStatus": status})
    assert told in line_of(["deploy", f"job={job}"], capsys)


def test_many_or_more_are_told() -> None:
    answer = invoke.Answer(2, (0.1, 0.2, 0.7), more=True)
    assert invoke.told("a.jpg", answer) == "a.jpg: 2 or more items (0: 10%, 1: 20%, 2 or more: 70%)"


# --- the container ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_container_of_an_endpoint_answers_as_sagemaker_asks_and_a_transform_is_scored(
    small_run: Path, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive:
        archive.add(small_run, ".")
    with tarfile.open(tmp_path / "model.tar.gz") as archive:
        archive.extractall(tmp_path / "model", filter="data")
    write_photos(tmp_path / "photos", ["1", "2"])
    with stage():
        with socket.socket() as taken:
            if taken.connect_ex(("127.0.0.1", 8080)) == 0:
                pytest.skip("something else answers at port 8080 of this machine")
        folder = tmp_path / "host"
        folder.mkdir()
        host = Host(
            folder, "algo-1", ["algo-1"], [*image_entry(), "serve"], brought={"model": tmp_path / "model"}
        )
        try:
            wait_until(lambda: host.main.poll() is not None or pinged(), 90)
            assert host.main.poll() is None, host.told
            with urlopen("http://127.0.0.1:8080/ping") as answer:
                assert json.loads(answer.read())["run"] == f"{small_run.parent.name}/{small_run.name}"
            out = tmp_path / "transformed"
            for id in ("1", "2"):
                words = ["url=http://127.0.0.1:8080", f"photo={tmp_path}/photos/{id}.jpg"]
                assert submit.main(["invoke", *words]) == 0
                assert re.search(rf"{id}\.jpg: \d items \(0: \d+%, ", capsys.readouterr().out)
                transformed(tmp_path / f"photos/{id}.jpg", out / f"{id}.jpg.out")
            host.main.send_signal(signal.SIGTERM)
            code, _ = host.end(60)
        finally:
            host.kill()
    assert code == 0, host.told
    assert host.failure is None
    (tmp_path / "labels.csv").write_text("id,count\n1,1\n2,2\n")
    words = [f"predictions={out}", f"labels={tmp_path}/labels.csv"]
    assert cli.main(["evaluate", *words]) == 0
    assert json.loads((tmp_path / "transformed.evaluation/results.json").read_bytes())["samples"] == 2


def pinged() -> bool:
    try:
        with urlopen("http://127.0.0.1:8080/ping") as answer:
            return bool(answer.status == 200)
    except URLError:
        return False


def transformed(photo: Path, out: Path) -> None:
    """What a batch transform does with a photo, by the request of `transform`."""
    asked = requests_of(REQUESTS["transform"])["CreateTransformJob"]
    accept = asked["TransformOutput"]["Accept"]
    headers = {"Content-Type": "image/jpeg", "Accept": accept}
    with urlopen(Request("http://127.0.0.1:8080/invocations", photo.read_bytes(), headers)) as answer:
        out.parent.mkdir(exist_ok=True)
        out.write_bytes(answer.read())


# --- the documentation --------------------------------------------------------------------------------

COMMANDS = [
    line
    for line in (ROOT / "docs/sagemaker.md").read_text(encoding="utf-8").splitlines()
    if line.startswith(("python launch/submit.py deploy", "python launch/submit.py transform"))
]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_documentation_preview(
    command: str, account: Aws, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in shlex.split(command)[2:] if word != "submit=true"]
    words = [f"job={JOB}" if word.startswith("job=") else word for word in words]
    assert submit.main(words) == 0, capsys.readouterr().err
