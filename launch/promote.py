"""The last step of a pipeline, in AWS Lambda: a new model is deployed if it is better than what is deployed.

This one file is all that the function has: Python's own library, and boto3, which Lambda brings. A model's
figures are those of results.json, whose address its package keeps. What is deployed is told by the endpoint
itself, whenever an execution comes here, and whoever started it.
"""

import json
from typing import Any

import boto3
from botocore.exceptions import ClientError

#: Whether more is better, of the figures that models are compared by.
MORE_IS_BETTER = {"accuracy": True, "rmse": False, "mae": False, "nll": False}

#: What has to be the same for figures to be compared: they are of the same photos.
PHOTOS = ("split", "index_digest", "samples")


class Left(Exception):
    """The endpoint is left as it is, and why."""


def handler(event: dict[str, str], context: Any) -> dict[str, str]:
    """Deploy the model package ``event["package"]``, or leave the endpoint as it is.

    ``event``: package (an ARN), endpoint (a name), figure (of results.json), role (of the model's container),
    variant (JSON: what the endpoint runs on), tags (JSON). The answer has ``deployed`` (yes, no) and ``why``.
    """
    sagemaker, s3 = boto3.client("sagemaker"), boto3.client("s3")
    try:
        answer = {"deployed": "yes", "why": promoted(event, sagemaker, s3)}
    except Left as why:
        answer = {"deployed": "no", "why": str(why)}
    print(json.dumps({**event, **answer}))
    return answer


def promoted(event: dict[str, str], sagemaker: Any, s3: Any) -> str:
    """Deploy the package, and tell why. Raises Left."""
    package, figure = event["package"], event["figure"]
    new = figures(package, sagemaker, s3)
    above_guessing(new, figure)
    endpoint = described(event["endpoint"], sagemaker)
    if endpoint is None:
        why = f"the first: {figure} {new[figure]:.4g}"
    else:
        why = compared(package, new, figure, endpoint, sagemaker, s3)
    sagemaker.update_model_package(ModelPackageArn=package, ModelApprovalStatus="Approved")
    config = configured(event, sagemaker)
    if endpoint is None:
        tags = json.loads(event["tags"])
        sagemaker.create_endpoint(EndpointName=event["endpoint"], EndpointConfigName=config, Tags=tags)
    else:
        sagemaker.update_endpoint(EndpointName=event["endpoint"], EndpointConfigName=config)
    return why


def figures(package: str, sagemaker: Any, s3: Any) -> dict[str, Any]:
    """The results.json that a model package has."""
    told = sagemaker.describe_model_package(ModelPackageName=package)
    address = told["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]
    bucket, _, key = address.removeprefix("s3://").partition("/")
    found: dict[str, Any] = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    return found


def above_guessing(new: dict[str, Any], figure: str) -> None:
    """Raise Left where a model tells no more than the commonest count would."""
    guess = new["baselines"]["prior" if figure == "nll" else "majority"].get(figure)
    if guess is not None and not better(new[figure], guess, figure):
        raise Left(f"{figure} {new[figure]:.4g} is no better than guessing, {guess:.4g}")


def better(one: float, other: float, figure: str) -> bool:
    """Whether one model is better than the other; equal ones are not."""
    return one > other if MORE_IS_BETTER[figure] else one < other


def compared(
    package: str, new: dict[str, Any], figure: str, endpoint: dict[str, Any], sagemaker: Any, s3: Any
) -> str:
    """Tell by what the new model is better than the one that is served. Raises Left where it is not."""
    name, state = endpoint["EndpointName"], endpoint["EndpointStatus"]
    if state != "InService":
        raise Left(f"{name} is {state}: only what is in service is replaced")
    served = served_by(endpoint, sagemaker)
    if served == package:
        raise Left("it is deployed already")
    if served is None:
        raise Left(f"{name} serves no registered model, so its figures are not known")
    old = figures(served, sagemaker, s3)
    if differing := [key for key in PHOTOS if new[key] != old[key]]:
        raise Left(f"{name} was evaluated on other photos ({', '.join(differing)} differ): not comparable")
    told = f"{figure} {new[figure]:.4g}, and {old[figure]:.4g} of what is deployed"
    if not better(new[figure], old[figure], figure):
        raise Left(f"no better: {told}")
    return f"better: {told}"


def served_by(endpoint: dict[str, Any], sagemaker: Any) -> str | None:
    """The ARN of the model package that an endpoint serves; None where its model is of none."""
    config = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    model = sagemaker.describe_model(ModelName=config["ProductionVariants"][0]["ModelName"])
    package: str | None = model["PrimaryContainer"].get("ModelPackageName")
    return package


def configured(event: dict[str, str], sagemaker: Any) -> str:
    """The name of the model of this package, and of the configuration that serves it, made where missing."""
    version, tags = event["package"].rpartition("/")[2], json.loads(event["tags"])
    name = f"{event['endpoint']}-{version}"
    variant = {**json.loads(event["variant"]), "ModelName": name}
    container = {"ModelPackageName": event["package"]}
    role = event["role"]
    with_tags = {"Tags": tags}
    if not known(lambda: sagemaker.describe_model(ModelName=name)):
        sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=role, **with_tags)
    if not known(lambda: sagemaker.describe_endpoint_config(EndpointConfigName=name)):
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], **with_tags)
    return name


def described(endpoint: str, sagemaker: Any) -> dict[str, Any] | None:
    """What AWS tells of an endpoint; None where there is none."""
    found: dict[str, Any] | None = known(lambda: sagemaker.describe_endpoint(EndpointName=endpoint))
    return found


def known(describe: Any) -> Any:
    """What is answered, None where there is no such thing."""
    try:
        return describe()
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("ValidationException", "ResourceNotFound"):
            raise
        return None
