"""What would make an endpoint or a transform fail or cost in vain: before any request, and of AWS itself.

As in `launch.checks` and `launch.preflight`, each check has a name, and stands in one registry.
"""

from launch import aws, checks, preflight
from launch.hosting import Endpoint, Hosted, Transform
from launch.job import Order, bucket_of
from launch.ordering import Rules, named


def image_given(hosted: Order) -> str | None:
    if hosted.launcher.image is None:
        return (
            "launcher.image is not given: SageMaker starts a model's image with the argument `serve`, which "
            "AWS's own does not know: add one made with launch/Dockerfile"
        )
    return None


def model_is_an_archive(hosted: Hosted) -> str | None:
    if not checks.BUCKET.fullmatch(hosted.model) or not hosted.model.endswith("/model.tar.gz"):
        return f"model={hosted.model}: write s3://bucket/…/model.tar.gz, as a training job leaves it"
    return None


def no_wheel(hosted: Order) -> str | None:
    if hosted.launcher.code is not None:
        return (
            f"launcher.code={hosted.launcher.code}: a model's container installs nothing: build the wheel "
            "into launcher.image with launch/Dockerfile"
        )
    return None


def gpu_has_its_image(hosted: Hosted) -> str | None:
    tag = hosted.image_tag
    if hosted.instance and hosted.instance.gpus and tag and tag["device"] == "cpu":
        return (
            f"instance_type={hosted.instance_type}: launcher.image={hosted.image} is for CPUs, and its GPU "
            "would be paid for and not used"
        )
    return None


def one_gpu_is_used(hosted: Hosted) -> str | None:
    if hosted.instance and hosted.instance.gpus > 1:
        return (
            f"instance_type={hosted.instance_type}: it has {hosted.instance.gpus} GPUs, and a model counts "
            "on one: take ml.g5.xlarge, several where one is too slow"
        )
    return None


def serverless_has_a_small_image(endpoint: Endpoint) -> str | None:
    tag = endpoint.image_tag
    if endpoint.serverless and tag and tag["device"] == "gpu":
        return (
            "serverless=true: it has no GPU and takes images up to 10 GB, and "
            f"launcher.image={endpoint.image} is for GPUs: build it with TAG=…-cpu-…"
        )
    return None


def serverless_has_room(endpoint: Endpoint) -> str | None:
    if endpoint.serverless and endpoint.memory < 2048:
        return f"memory={endpoint.memory}: the model and torch need 2048 MB or more"
    return None


def photos_in_s3(transform: Transform) -> str | None:
    if not checks.BUCKET.fullmatch(transform.photos):
        return (
            f"photos={transform.photos}: a transform sees no folder of this machine: write s3://bucket/prefix"
        )
    return None


def out_in_s3(transform: Transform) -> str | None:
    if not checks.BUCKET.fullmatch(transform.out):
        return f"out={transform.out}: that folder ends with the job: write s3://bucket/prefix"
    return None


def out_beside_photos(transform: Transform) -> str | None:
    photos, out = (place.rstrip("/") + "/" for place in (transform.photos, transform.out))
    if out.startswith(photos):
        return f"out={transform.out}: it lies in photos, and answers would be counted as photos next time"
    return None


# --- what only AWS can tell ---------------------------------------------------------------------------


def model_exists(hosted: Hosted) -> str | None:
    bucket, key = bucket_of(hosted.model)
    try:
        aws.ask("s3", "head_object", hosted.launcher.region, Bucket=bucket, Key=key)
    except aws.Refused as error:
        if error.code not in ("404", "NoSuchKey", "NoSuchBucket", "NotFound"):
            raise
        return f"model={hosted.model}: it is not there"
    return None


def model_in_region(hosted: Hosted) -> str | None:
    return preflight.in_region(hosted, "model", hosted.model)


def photos_are_there(transform: Transform) -> str | None:
    bucket, prefix = bucket_of(transform.photos)
    found = aws.ask(
        "s3", "list_objects_v2", transform.launcher.region, Bucket=bucket, Prefix=prefix, MaxKeys=1
    )
    return None if found.get("KeyCount") else f"photos={transform.photos}: there is nothing"


def out_in_region(transform: Transform) -> str | None:
    return preflight.in_region(transform, "out", transform.out)


# --- all of them, in their order ----------------------------------------------------------------------

_OF_BOTH = (
    *(checks.role_is_an_arn, checks.region_is_one, checks.instance_is_known, checks.image_is_in_ecr),
    *(checks.image_is_new_enough, checks.image_in_region),
    *(model_is_an_archive, no_wheel, gpu_has_its_image, one_gpu_is_used),
)
_GIVEN = named(checks.role_given, image_given)
_ASKED = (
    *(preflight.credentials, preflight.role_of_this_account, preflight.role_exists),
    *(preflight.role_is_for_sagemaker, preflight.image_exists, model_in_region, model_exists),
)

ENDPOINTS = Rules(named(*_OF_BOTH, serverless_has_a_small_image, serverless_has_room), _GIVEN, named(*_ASKED))
TRANSFORMS = Rules(
    named(*_OF_BOTH, photos_in_s3, out_in_s3, out_beside_photos),
    _GIVEN,
    named(*_ASKED, photos_are_there, out_in_region),
)
