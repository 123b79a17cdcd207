"""AWS for tests: moto's server on this machine, which boto3 and obstore are both led to."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
import pytest
from moto.server import ThreadedMotoServer

from launch import aws

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
