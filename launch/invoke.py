"""invoke: a photo to an endpoint, or to any address of `bincount serve`; its count comes back."""

from dataclasses import dataclass
from typing import Any

from bincount.answer import Answer
from bincount.client import Client
from bincount.errors import BadInput
from launch import aws
from launch.overrides import launcher_of, own


@dataclass
class Words:
    """The keys of `invoke`. ``endpoint`` latest: the newest; ``url``: instead of an endpoint."""

    photo: str | None = None
    endpoint: str | None = None
    url: str | None = None


def invoke(words: list[str]) -> None:
    """Print what is counted in a photo. Raises BadInput, and BincountError where nobody answers."""
    given = own("invoke", words, Words)
    region = launcher_of(words).region
    if given.photo is None:
        raise BadInput("photo is not given: add photo=FILE, a JPEG or PNG")
    if (given.endpoint is None) == (given.url is None):
        raise BadInput("who is asked: give endpoint=NAME, endpoint=latest or url=http://HOST:PORT")
    address = given.url
    if address is None:
        address = f"sagemaker://{_newest(region) if given.endpoint == 'latest' else given.endpoint}"
    with Client(address, region=region) as client:
        print(told(given.photo, client.count(given.photo)))


def told(photo: str, answer: Answer) -> str:
    """An answer as people read it."""
    last = len(answer.probabilities) - 1
    names = [f"{count} or more" if answer.more and count == last else f"{count}" for count in range(last + 1)]
    shares = ", ".join(
        f"{name}: {share:.0%}" for name, share in zip(names, answer.probabilities, strict=True)
    )
    return f"{photo}: {names[answer.count]} items ({shares})"


def _newest(region: str) -> str:
    if not aws.has_credentials():
        raise BadInput(aws.NO_CREDENTIALS)
    wanted: dict[str, Any] = {"NameContains": "bincount-", "MaxResults": 1}
    wanted |= {"SortBy": "CreationTime", "SortOrder": "Descending"}
    found = aws.ask("sagemaker", "list_endpoints", region, **wanted)["Endpoints"]
    if not found:
        raise BadInput(f"endpoint=latest: there is no endpoint of bincount in {region}: `deploy` makes one")
    return str(found[0]["EndpointName"])
