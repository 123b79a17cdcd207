"""deploy: a trained model behind an endpoint, previewed or made; it costs until `cleanup`."""

import re
from dataclasses import dataclass
from typing import Any

from launch import aws, hosting, hosting_checks, instances, preview, requests
from launch.hosting import Endpoint
from launch.job import new_name
from launch.ordering import Requests, carry_out
from launch.overrides import launcher_of, own, ruled, sending

OURS = re.compile(r"bincount(-[a-zA-Z0-9]+)+")

#: MB that a serverless endpoint can have.
MEMORY = (1024, 2048, 3072, 4096, 5120, 6144)


@dataclass
class Words:
    """The keys of `deploy`. ``name`` None: a new one."""

    job: str | None = None
    model: str | None = None
    name: str | None = ruled(
        None,
        lambda value: bool(OURS.fullmatch(value)) and len(value) < 64,
        "must be bincount-… of letters, digits and -, below 64: rights and cleanup go by it",
    )
    instance_type: str = "ml.c5.xlarge"
    instances: int = ruled(1, lambda value: value >= 1, "must be 1 or above")
    serverless: bool = False
    memory: int = ruled(4096, lambda value: value in MEMORY, f"must be one of {', '.join(map(str, MEMORY))}")
    concurrency: int = ruled(5, lambda value: 1 <= value <= 200, "must be from 1 to 200")


def deploy(words: list[str]) -> None:
    """Preview an endpoint, or make it. Raises BadInput where something would go wrong."""
    wanted = sending(words)
    carry_out(composed(words), hosting_checks.ENDPOINTS, wanted, made, told, make)


def composed(words: list[str], name: str | None = None) -> Endpoint:
    """The endpoint that the words ask for."""
    given = own("deploy", words, Words)
    launcher = launcher_of(words)
    model, run = hosting.trained(given.job, given.model, launcher.region)
    return Endpoint(
        name=name or given.name or new_name("endpoint"),
        launcher=launcher,
        model=model,
        run=run,
        kind=given.instance_type,
        instances=given.instances,
        serverless=given.serverless,
        memory=given.memory,
        concurrency=given.concurrency,
    )


def made(endpoint: Endpoint) -> Requests:
    """The requests that make it, by their names, in their order."""
    named = {"EndpointConfigName": endpoint.name}
    config = {**named, "ProductionVariants": [variant(endpoint)], "Tags": endpoint.tags}
    return {
        "CreateModel": hosting.model_request(endpoint),
        "CreateEndpointConfig": config,
        "CreateEndpoint": {"EndpointName": endpoint.name, **named, "Tags": endpoint.tags},
    }


def variant(endpoint: Endpoint) -> dict[str, Any]:
    """What the endpoint runs on."""
    found: dict[str, Any] = {"VariantName": "all", "ModelName": endpoint.name}
    if endpoint.serverless:
        room = {"MemorySizeInMB": endpoint.memory, "MaxConcurrency": endpoint.concurrency}
        return {**found, "ServerlessConfig": room}
    return {**found, "InstanceType": endpoint.kind, "InitialInstanceCount": endpoint.instances}


def make(endpoint: Endpoint) -> None:
    """Make the model, the endpoint's configuration and the endpoint."""
    region, requested = endpoint.launcher.region, made(endpoint)
    aws.ask("sagemaker", "create_model", region, **requested["CreateModel"])
    aws.ask("sagemaker", "create_endpoint_config", region, **requested["CreateEndpointConfig"])
    aws.ask("sagemaker", "create_endpoint", region, **requested["CreateEndpoint"])
    more = "" if region == "us-east-1" else f" launcher.region={region}"
    print(f"sent {endpoint.name}; it answers in some minutes, and costs until cleanup:")
    print(f"  aws sagemaker wait endpoint-in-service --endpoint-name {endpoint.name} --region {region}")
    print(f"  python launch/submit.py invoke endpoint={endpoint.name} photo=bin.jpg{more}")
    print(f"  python launch/submit.py cleanup run={endpoint.run}{more}")


# --- what a preview tells -----------------------------------------------------------------------------


def told(endpoint: Endpoint) -> str:
    """The text of a preview."""
    launcher = endpoint.launcher
    runs = {
        "endpoint": endpoint.name,
        "model": endpoint.model,
        "of run": endpoint.run,
        "image": endpoint.image,
        "runs on": runs_on(endpoint),
        "region": launcher.region,
        "role": endpoint.role,
    }
    asked = [(f"request {name}", requests.shown(request)) for name, request in made(endpoint).items()]
    return preview.sections(
        [
            ("what is made", preview.lines(runs)),
            ("price, until cleanup", preview.lines(price(endpoint))),
            *asked,
        ]
    )


def runs_on(endpoint: Endpoint) -> str:
    """What answers, in words."""
    if endpoint.serverless:
        return f"no instance: {endpoint.memory:,} MB, up to {endpoint.concurrency} requests at the same time"
    holds = f": {endpoint.instance.told}" if endpoint.instance else ""
    return f"{endpoint.instances} x {endpoint.kind}{holds}"


def price(endpoint: Endpoint) -> dict[str, str]:
    """What it costs while it is there."""
    if endpoint.serverless:
        return _price_serverless(endpoint)
    assert endpoint.instance is not None
    price = instances.price(endpoint.instance, endpoint.launcher.region, "Hosting")
    hour = endpoint.instances * price.usd_hour
    return {
        "an hour": f"{hour:,.3f} USD = {endpoint.instances} x {price.usd_hour:,.3f}, asked or not",
        "a month": f"{hour * preview.HOURS_A_MONTH:,.2f} USD where nobody cleans up",
        "no longer": f"`cleanup run={endpoint.run}` ends it",
        "prices from": price.source,
    }


def _price_serverless(endpoint: Endpoint) -> dict[str, str]:
    table = instances.table()
    hour = endpoint.memory / 1024 * table["serverless_gb_second"] * 3600
    return {
        "an hour": f"{hour:,.3f} USD of counting for each request under way, "
        f"{endpoint.concurrency * hour:,.3f} USD at most; nothing while nobody asks",
        "beside that": f"{table['serverless_gb']:.3f} USD a GB of photos and answers",
        "prices from": f"instances.yaml: AWS's list of {table['as_of']} for {table['region']}",
    }
