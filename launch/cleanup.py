"""cleanup: all that was made for models to count, of one run or of all, listed or deleted.

Jobs that have ended cost nothing and cannot be deleted; what they left in S3 is told in docs/sagemaker.md.
"""

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
        raise BadInput("what is to go: give run=NAME, the job that was deployed, or all=true")
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
    for kind, named in _LIST.items():
        for name, arn in named(region):
            told = aws.ask("sagemaker", "list_tags", region, ResourceArn=arn)["Tags"]
            tags = {each["Key"]: each["Value"] for each in told}
            if tags.items() >= PROJECT.items():
                found.append(Found(kind, name, tags.get("bincount:run", "")))
    return found


def _each(asked: Callable[..., dict[str, Any]], field: str, name: str, arn: str) -> Iterator[tuple[str, str]]:
    """Name and ARN of each, of as many pages as AWS has."""
    more: dict[str, str] = {}
    while True:
        answer = asked(NameContains=OURS, **more)
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


_LIST = {"endpoint": _endpoints, "endpoint config": _configs, "model": _models}


def _delete_endpoint(name: str, region: str) -> None:
    aws.ask("sagemaker", "delete_endpoint", region, EndpointName=name)


def _delete_config(name: str, region: str) -> None:
    aws.ask("sagemaker", "delete_endpoint_config", region, EndpointConfigName=name)


def _delete_model(name: str, region: str) -> None:
    aws.ask("sagemaker", "delete_model", region, ModelName=name)


_DELETE = {"endpoint": _delete_endpoint, "endpoint config": _delete_config, "model": _delete_model}
