"""cleanup: all that models count with, and pipelines with what they made: of one run or all, listed or gone.

Jobs that have ended cost nothing and cannot be deleted; what they left in S3 is told in docs/sagemaker.md.
"""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from bincount.errors import BadInput
from launch import aws, preview
from launch.hosting import PROJECT
from launch.overrides import launcher_of, own, sending

#: How all that is ours is called.
OURS = "bincount-"


class Found(NamedTuple):
    """Something that carries our tag, and the ``run`` that it is of."""

    kind: str
    name: str
    run: str


@dataclass
class Words:
    """The keys of `cleanup`."""

    run: str | None = None
    all: bool = False


def cleanup(words: list[str]) -> None:
    """List what carries the tag, and with submit=true delete it. Raises BadInput."""
    wanted = sending(words)
    given = own("cleanup", words, Words)
    region = launcher_of(words).region
    if given.all == (given.run is not None):
        raise BadInput("what is to go: give run=NAME, a job that was deployed or a pipeline, or all=true")
    if not aws.has_credentials():
        raise BadInput(aws.NO_CREDENTIALS)
    found = [each for each in tagged(region) if given.all or each.run == given.run]
    if not found:
        whose = "" if given.all else f" of run {given.run}"
        print(f"there is nothing{whose} in {region}")
        return
    for each in found:
        print(f"{each.kind:<16} {each.name}  of run {each.run}")
    if not wanted:
        print(preview.ending([]).replace("sent", "deleted").replace("sends it", "deletes all of these"))
        return
    for each in found:
        _DELETE[each.kind](each.name, region)
    print(f"deleted {len(found)}")


def tagged(region: str) -> list[Found]:
    """What carries our tag, in the order in which it can be deleted."""
    found = []
    for kind, (named, tags_of) in _LIST.items():
        for name, arn in named(region):
            tags = tags_of(arn, region)
            if tags.items() >= PROJECT.items():
                found.append(Found(kind, name, tags.get("bincount:run", "")))
    return found


def _tags(arn: str, region: str) -> dict[str, str]:
    told = aws.ask("sagemaker", "list_tags", region, ResourceArn=arn)["Tags"]
    return {each["Key"]: each["Value"] for each in told}


def _function_tags(arn: str, region: str) -> dict[str, str]:
    found: dict[str, str] = aws.ask("lambda", "list_tags", region, Resource=arn).get("Tags", {})
    return found


def _each(
    asked: Callable[..., dict[str, Any]], field: str, name: str, arn: str, **wanted: str
) -> Iterator[tuple[str, str]]:
    """Name and ARN of each, of as many pages as AWS has. ``wanted``: which; by our name unless said."""
    more: dict[str, str] = {}
    while True:
        answer = asked(**(wanted or {"NameContains": OURS}), **more)
        yield from ((each[name], each[arn]) for each in answer[field])
        if not answer.get("NextToken"):
            return
        more = {"NextToken": answer["NextToken"]}


def _endpoints(region: str) -> Iterator[tuple[str, str]]:
    def asked(**more: str) -> dict[str, Any]:
        return aws.ask("sagemaker", "list_endpoints", region, **more)

    return _each(asked, "Endpoints", "EndpointName", "EndpointArn")


def _configs(region: str) -> Iterator[tuple[str, str]]:
    def asked(**more: str) -> dict[str, Any]:
        return aws.ask("sagemaker", "list_endpoint_configs", region, **more)

    return _each(asked, "EndpointConfigs", "EndpointConfigName", "EndpointConfigArn")


def _models(region: str) -> Iterator[tuple[str, str]]:
    def asked(**more: str) -> dict[str, Any]:
        return aws.ask("sagemaker", "list_models", region, **more)

    return _each(asked, "Models", "ModelName", "ModelArn")


def _pipelines(region: str) -> Iterator[tuple[str, str]]:
    def asked(**more: str) -> dict[str, Any]:
        return aws.ask("sagemaker", "list_pipelines", region, **more)

    # AWS takes no prefix that ends in a hyphen.
    prefix = OURS.rstrip("-")
    found = _each(asked, "PipelineSummaries", "PipelineName", "PipelineArn", PipelineNamePrefix=prefix)
    return ((name, arn) for name, arn in found if name.startswith(OURS))


def _groups(region: str) -> Iterator[tuple[str, str]]:
    def asked(**more: str) -> dict[str, Any]:
        return aws.ask("sagemaker", "list_model_package_groups", region, **more)

    field, name = "ModelPackageGroupSummaryList", "ModelPackageGroupName"
    return _each(asked, field, name, "ModelPackageGroupArn")


def _versions(region: str) -> Iterator[tuple[str, str]]:
    """The models in the groups, each with its group's ARN: they have no tags of their own."""

    def asked(**more: str) -> dict[str, Any]:
        return aws.ask("sagemaker", "list_model_packages", region, **more)

    field, arn = "ModelPackageSummaryList", "ModelPackageArn"
    for group, group_arn in _groups(region):
        for version, _ in _each(asked, field, arn, arn, ModelPackageGroupName=group):
            yield version, group_arn


def _functions(region: str) -> Iterator[tuple[str, str]]:
    """Of Lambda, which neither filters by name nor pages as SageMaker does."""
    more: dict[str, str] = {}
    while True:
        answer = aws.ask("lambda", "list_functions", region, **more)
        for each in answer["Functions"]:
            if each["FunctionName"].startswith(OURS):
                yield each["FunctionName"], each["FunctionArn"]
        if not answer.get("NextMarker"):
            return
        more = {"Marker": answer["NextMarker"]}


#: What there is of each kind in a region, by name and ARN, and the tags of an ARN.
_LIST = {
    "pipeline": (_pipelines, _tags),
    "function": (_functions, _function_tags),
    "endpoint": (_endpoints, _tags),
    "endpoint config": (_configs, _tags),
    "model": (_models, _tags),
    "model version": (_versions, _tags),
    "model group": (_groups, _tags),
}


def _delete_endpoint(name: str, region: str) -> None:
    aws.ask("sagemaker", "delete_endpoint", region, EndpointName=name)


def _delete_config(name: str, region: str) -> None:
    aws.ask("sagemaker", "delete_endpoint_config", region, EndpointConfigName=name)


def _delete_model(name: str, region: str) -> None:
    aws.ask("sagemaker", "delete_model", region, ModelName=name)


def _delete_pipeline(name: str, region: str) -> None:
    token = secrets.token_hex(16)
    aws.ask("sagemaker", "delete_pipeline", region, PipelineName=name, ClientRequestToken=token)


def _delete_function(name: str, region: str) -> None:
    aws.ask("lambda", "delete_function", region, FunctionName=name)


def _delete_version(name: str, region: str) -> None:
    aws.ask("sagemaker", "delete_model_package", region, ModelPackageName=name)


def _delete_group(name: str, region: str) -> None:
    aws.ask("sagemaker", "delete_model_package_group", region, ModelPackageGroupName=name)


_DELETE = {
    "pipeline": _delete_pipeline,
    "function": _delete_function,
    "endpoint": _delete_endpoint,
    "endpoint config": _delete_config,
    "model": _delete_model,
    "model version": _delete_version,
    "model group": _delete_group,
}
