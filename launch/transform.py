"""transform: a trained model counts all photos below an address in S3, previewed or sent."""

from dataclasses import dataclass

from bincount.errors import BadInput
from launch import aws, hosting, hosting_checks, instances, preview, requests
from launch.hosting import Transform
from launch.job import new_name
from launch.ordering import Requests, carry_out
from launch.overrides import launcher_of, own, ruled, sending

#: Photos that an instance is sent at the same time, to be counted together, and the largest in MB. SageMaker
#: takes 100 MB of both together.
AT_ONCE, LARGEST = 16, 6

PHOTOS = ("image/jpeg", "image/png")


@dataclass
class Words:
    """The keys of `transform`."""

    job: str | None = None
    model: str | None = None
    photos: str | None = None
    out: str | None = None
    content: str = ruled("image/jpeg", lambda value: value in PHOTOS, f"must be one of {', '.join(PHOTOS)}")
    instance_type: str = "ml.c5.4xlarge"
    instances: int = ruled(1, lambda value: value >= 1, "must be 1 or above")


def transform(words: list[str]) -> None:
    """Preview a batch transform, or send it. Raises BadInput where something would go wrong."""
    wanted = sending(words)
    carry_out(composed(words), hosting_checks.TRANSFORMS, wanted, made, told, send)


def composed(words: list[str], name: str | None = None) -> Transform:
    """The transform that the words ask for."""
    given = own("transform", words, Words)
    launcher = launcher_of(words)
    for key, value in {"photos": given.photos, "out": given.out}.items():
        if value is None:
            raise BadInput(f"{key} is not given: add {key}=s3://bucket/prefix")
    model, run = hosting.trained(given.job, given.model, launcher.region)
    return Transform(
        name=name or new_name("transform"),
        launcher=launcher,
        model=model,
        run=run,
        kind=given.instance_type,
        instances=given.instances,
        photos=f"{str(given.photos).rstrip('/')}/",
        out=str(given.out),
        content=given.content,
    )


def made(order: Transform) -> Requests:
    """The requests that make it, by their names, in their order."""
    source = {"S3DataType": "S3Prefix", "S3Uri": order.photos}
    job = {
        "TransformJobName": order.name,
        "ModelName": order.name,
        "MaxConcurrentTransforms": AT_ONCE,
        "MaxPayloadInMB": LARGEST,
        "BatchStrategy": "SingleRecord",
        "TransformInput": {
            "DataSource": {"S3DataSource": source},
            "ContentType": order.content,
            "SplitType": "None",
        },
        "TransformOutput": {"S3OutputPath": order.out, "Accept": "application/json"},
        "TransformResources": {"InstanceType": order.kind, "InstanceCount": order.instances},
        "Tags": order.tags,
    }
    return {"CreateModel": hosting.model_request(order), "CreateTransformJob": job}


def send(order: Transform) -> None:
    """Make the model and the job."""
    region, requested = order.launcher.region, made(order)
    aws.ask("sagemaker", "create_model", region, **requested["CreateModel"])
    aws.ask("sagemaker", "create_transform_job", region, **requested["CreateTransformJob"])
    more = "" if region == "us-east-1" else f" launcher.region={region}"
    print(f"sent {order.name}")
    for verb in ("status", "logs", "stop"):
        print(f"  python launch/submit.py {verb} job={order.name}{more}")
    print(f"  bincount evaluate predictions={order.out} labels=labels.csv out=transformed")


def told(order: Transform) -> str:
    """The text of a preview."""
    runs = {
        "job": order.name,
        "model": order.model,
        "of run": order.run,
        "image": order.image,
        "instances": f"{order.instances} x {order.kind}"
        + (f": {order.instance.told}" if order.instance else ""),
        "photos": f"{order.photos}, {order.content}, of up to {LARGEST} MB",
        "answers": f"{order.out}, a file ID.jpg.out for each photo",
        "region": order.launcher.region,
        "role": order.role,
    }
    asked = [(f"request {name}", requests.shown(request)) for name, request in made(order).items()]
    return preview.sections(
        [("what runs", preview.lines(runs)), ("price", preview.lines(_price(order))), *asked]
    )


def _price(order: Transform) -> dict[str, str]:
    assert order.instance is not None
    price = instances.price(order.instance, order.launcher.region, "Transform")
    hour = order.instances * price.usd_hour
    return {
        "an hour": f"{hour:,.3f} USD = {order.instances} x {price.usd_hour:,.3f}, until all is counted",
        "no ceiling": "a transform has no limit of time: `stop` ends it",
        "prices from": price.source,
    }
