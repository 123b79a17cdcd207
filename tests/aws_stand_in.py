"""AWS for tests: moto's server on this machine, which boto3 and obstore are both led to."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
import botocore.client
import pytest
from botocore import xform_name
from moto.server import ThreadedMotoServer

from launch import aws, service_model

ACCOUNT = "123456789012"
REGION = "us-east-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/bincount"
IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/bincount"
TRUST = (Path(__file__).parents[1] / "launch/trust.json").read_text()


@dataclass(frozen=True)
class Aws:
    """An account with a role, and nothing else."""

    endpoint: str

    def client(self, service: str, region: str = REGION) -> Any:
        return boto3.Session().client(service, region_name=region)

    def bucket(self, name: str, region: str = REGION) -> None:
        where = {} if region == REGION else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        self.client("s3", region).create_bucket(Bucket=name, **where)

    def upload(self, files: Iterable[Path], bucket: str, prefix: str) -> None:
        s3 = self.client("s3")
        for path in files:
            s3.put_object(Bucket=bucket, Key=f"{prefix}/{path.name}", Body=path.read_bytes())

    def role(self, name: str, trust: str = TRUST) -> None:
        self.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=trust)

    def repository(self, *tags: str) -> None:
        """A repository ``bincount`` with an image of each tag."""
        ecr = self.client("ecr")
        ecr.create_repository(repositoryName="bincount")
        for number, tag in enumerate(tags):
            ecr.put_image(
                repositoryName="bincount",
                imageTag=tag,
                imageManifest=json.dumps({"schemaVersion": 2, "layers": [{"digest": str(number)}]}),
                imageManifestMediaType="application/vnd.docker.distribution.manifest.v2+json",
            )

    def training_jobs(self) -> list[str]:
        found = self.client("sagemaker").list_training_jobs()["TrainingJobSummaries"]
        return [job["TrainingJobName"] for job in found]

    def processing_jobs(self) -> list[str]:
        found = self.client("sagemaker").list_processing_jobs()["ProcessingJobSummaries"]
        return [job["ProcessingJobName"] for job in found]


#: What AWS answers to each operation, or which error.
Answers = dict[str, Any]


@pytest.fixture(name="aws_answers")
def answering_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Answers], list[str]]:
    """Lets AWS answer what a test says, to requests that are true to its model; notes what was asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(aws, "has_credentials", lambda: False)

    def answering(answers: Answers) -> list[str]:
        asked: list[str] = []

        def ask(service: str, operation: str, region: str, **request: Any) -> Any:
            service_model.check(service, operation.title().replace("_", ""), request)
            asked.append(f"{service}:{operation}")
            found = answers[operation]
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(aws, "ask", ask)
        return asked

    return answering


@dataclass
class Stubbed:
    """Calls that moto has not: each is true to AWS's model, and is answered what a test says, or does."""

    answered: dict[str, Any] = field(default_factory=dict)
    asked: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def answers(self, operation: str, answer: dict[str, Any] | Callable[[dict[str, Any]], Any]) -> None:
        self.answered[operation], self.asked[operation] = answer, []

    def call(self, service: str, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        service_model.check(service, operation, request)
        self.asked[xform_name(operation)].append(request)
        answer = self.answered[xform_name(operation)]
        found: dict[str, Any] = answer(request) if callable(answer) else answer
        return found


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> Stubbed:
    """Answers some calls in moto's place, whoever makes them. All have to fit AWS's model."""
    stubs, real = Stubbed(), botocore.client.BaseClient._make_api_call

    def call(client: Any, operation: str, request: dict[str, Any]) -> Any:
        service, shape = (
            client.meta.service_model,
            client.meta.service_model.operation_model(operation).input_shape,
        )
        if xform_name(operation) in stubs.answered:
            return stubs.call(service.service_name, operation, request)
        # moto takes what AWS's model does not. Tokens are given by botocore where there is none.
        tokens = {
            name: "0" * 32 for name, each in shape.members.items() if each.metadata.get("idempotencyToken")
        }
        service_model.check(service.service_name, operation, {**tokens, **request})
        return real(client, operation, request)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", call)
    return stubs


@pytest.fixture(scope="session")
def moto_server() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOTO_ALLOW_NONEXISTENT_REGION", "false")
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
        server.stop()


@pytest.fixture
def aws_account(moto_server: str, no_aws: pytest.MonkeyPatch) -> Iterator[Aws]:
    """A new, empty account with the role ``bincount``."""
    no_aws.setenv("AWS_ENDPOINT_URL", moto_server)
    no_aws.setenv("AWS_ACCESS_KEY_ID", "fake-key-for-tests")
    no_aws.setenv("AWS_SECRET_ACCESS_KEY", "fake-secret-for-tests")
    no_aws.setenv("AWS_REGION", REGION)
    with urlopen(Request(f"{moto_server}/moto-api/reset", method="POST")):
        pass
    aws._client.cache_clear()
    account = Aws(moto_server)
    account.role("bincount")
    yield account
    aws._client.cache_clear()
