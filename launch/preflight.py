"""What only AWS can tell, asked before anything is sent: who asks, the role, buckets and regions, secrets.

Like the checks, each has a name in one registry.
"""

import json
from collections.abc import Callable

from bincount import storage
from bincount.errors import BincountError
from launch import aws
from launch.checks import AnyCheck, run_checks
from launch.job import IMAGE, ROLE, Job, Order, bucket_of

Check = Callable[[Job], str | None]

#: What is asked of AWS, by name, in this order. Each gives the line that people are told, or None.
PREFLIGHT: dict[str, Check] = {}

#: Images of AWS's own account are not ours to list.
NOT_OURS = "763104351884"


def _check(check: AnyCheck) -> AnyCheck:
    PREFLIGHT[check.__name__] = check
    return check


def preflight(job: Job) -> None:
    """Raise BadInput with the line of the first check that finds something."""
    run_checks(job, PREFLIGHT)


@_check
def credentials(job: Order) -> str | None:
    if not aws.has_credentials():
        return aws.NO_CREDENTIALS
    try:
        aws.ask("sts", "get_caller_identity", job.launcher.region)
    except aws.Refused as error:
        return f"AWS does not take the credentials: {error}"
    return None


@_check
def role_of_this_account(job: Order) -> str | None:
    return other_account("launcher.role", job.role, job.launcher.region)


@_check
def role_exists(job: Order) -> str | None:
    return no_role("launcher.role", job.role, job.launcher.region)


@_check
def role_is_for_sagemaker(job: Order) -> str | None:
    return not_trusted("launcher.role", job.role, job.launcher.region, "sagemaker")


@_check
def output_reachable(job: Job) -> str | None:
    return _reachable(job, "launcher.output", job.output)


@_check
def output_in_region(job: Job) -> str | None:
    return in_region(job, "launcher.output", job.output)


@_check
def data_in_region(job: Job) -> str | None:
    if job.train:
        return in_region(job, "data.root", job.train.data.root)
    assert job.prepare is not None
    return in_region(job, "out", job.prepare.out)


@_check
def checkpoints_in_region(job: Job) -> str | None:
    # Those of "auto" are in the bucket of launcher.output.
    if not job.train or job.launcher.checkpoints == "auto" or job.checkpoints is None:
        return None
    return in_region(job, "launcher.checkpoints", job.checkpoints)


@_check
def index_readable(job: Job) -> str | None:
    if not job.train:
        return None
    try:
        storage.open_store(job.train.data.root).read("index.json")
    except storage.NotThere:
        return (
            f"{job.train.data.root} is no prepared data set (it has no index.json): `submit.py "
            "prepare` makes one"
        )
    return None


@_check
def out_is_free(job: Job) -> str | None:
    if job.prepare and storage.open_store(job.prepare.out).has("index.json"):
        return f"out={job.prepare.out}: there is a data set already, and in S3 none is replaced"
    return None


@_check
def image_exists(job: Order) -> str | None:
    image = IMAGE.fullmatch(job.image)
    if image is None or image["account"] == NOT_OURS or not image["tag"]:
        return None
    try:
        aws.ask(
            "ecr",
            "describe_images",
            image["region"],
            registryId=image["account"],
            repositoryName=image["name"],
            imageIds=[{"imageTag": image["tag"]}],
        )
    except aws.Refused as error:
        if error.code not in ("RepositoryNotFoundException", "ImageNotFoundException"):
            raise
        return (
            f"launcher.image={job.image}: it is not in ECR: docs/sagemaker.md tells how to build and push it"
        )
    return None


@_check
def secrets_exist(job: Job) -> str | None:
    for variable, name in job.secrets.items():
        try:
            aws.ask("secretsmanager", "describe_secret", job.launcher.region, SecretId=name)
        except aws.Refused as error:
            if error.code != "ResourceNotFoundException":
                raise
            return f"launcher.secrets.{variable}={name}: there is no such secret in {job.launcher.region}"
    return None


def other_account(key: str, role: str, region: str) -> str | None:
    found = ROLE.fullmatch(role)
    account = aws.ask("sts", "get_caller_identity", region)["Account"]
    if found and found["account"] != account:
        return f"{key}={role}: you are of account {account}, and a job's role has to be of the same"
    return None


def no_role(key: str, role: str, region: str) -> str | None:
    try:
        aws.ask("iam", "get_role", region, RoleName=role.rpartition("/")[2])
    except aws.Refused as error:
        if error.code != "NoSuchEntity":
            raise
        return f"{key}={role}: there is no such role: docs/sagemaker.md tells how to make it"
    return None


def not_trusted(key: str, role: str, region: str, service: str) -> str | None:
    """Whether a role's trust policy lacks the service, as sagemaker or lambda."""
    try:
        found = aws.ask("iam", "get_role", region, RoleName=role.rpartition("/")[2])["Role"]
    except aws.Refused:
        return None
    if f"{service}.amazonaws.com" not in json.dumps(found.get("AssumeRolePolicyDocument", "")):
        called = {"sagemaker": "SageMaker", "lambda": "Lambda"}[service]
        return f"{key}={role}: {called} may not take it: its trust policy lacks {service}.amazonaws.com"
    return None


def _head(address: str, region: str) -> tuple[str, str]:
    """What AWS answers on a bucket: an error's code, or nothing, and the region where it is."""
    try:
        answer = aws.ask("s3", "head_bucket", region, Bucket=bucket_of(address)[0])
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        return "", str(answer.get("BucketRegion") or headers.get("x-amz-bucket-region") or region)
    except aws.Refused as error:
        return error.code, error.headers.get("x-amz-bucket-region", "")
    except BincountError:
        return "403", ""


def _reachable(job: Order, key: str, address: str) -> str | None:
    code, region = _head(address, job.launcher.region)
    if code and not region:
        told = "you may not use it" if code == "403" else "there is no such bucket"
        return f"{key}={address}: bucket {bucket_of(address)[0]}: {told}"
    return None


def in_region(job: Order, key: str, address: str) -> str | None:
    _, region = _head(address, job.launcher.region)
    if region and region != job.launcher.region:
        return (
            f"{key}={address}: its bucket is in {region} and the job in {job.launcher.region}: "
            "SageMaker refuses that, or every byte is paid for: give launcher.region or another bucket"
        )
    return None
