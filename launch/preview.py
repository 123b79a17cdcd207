"""What will run and what it costs at most, before anything is sent."""

from typing import Any

from launch import instances, requests
from launch.instances import Price
from launch.job import Job

#: A month of AWS's bill.
HOURS_A_MONTH = 730

#: The smallest file system of FSx for Lustre.
FSX_LEAST_GB = 1200

#: By how much spot instances are cheaper, as AWS tells it of most types; nobody promises it.
SPOT_SAVES = (0.5, 0.9)


def preview(job: Job, price: Price | None, data_told: str) -> str:
    """The text of a preview. ``data_told``: why the data set is not known, where it is not."""
    made = requests.request(job)
    parts = [
        ("configuration", requests.config_yaml(job).rstrip()),
        ("what runs", lines(_runs(job))),
        ("in and out", lines(_places(job))),
        ("steps", _steps(job, data_told)),
        ("price, at most", lines(_price(job, price)) if price else "not known: no such instance type"),
        (f"request {requests.operation(job)}", requests.shown(made)),
    ]
    return sections(parts)


def ceiling(job: Job, price: Price) -> float:
    """USD that the job costs at most: all its instances for all its hours, and their volumes."""
    return job.launcher.max_hours * job.launcher.nodes * (price.usd_hour + _volume(job))


def _volume(job: Job) -> float:
    per_month: float = instances.table()["volume_gb_month"]
    return job.launcher.volume_gb * per_month / HOURS_A_MONTH


def _runs(job: Job) -> dict[str, str]:
    launcher, instance = job.launcher, job.instance
    found = {
        "job": job.name,
        "verb": f"python -m bincount.container {job.verb}",
        "image": job.image + (" (AWS's own)" if job.stock else ""),
        "code": launcher.code or "in the image",
        "instances": f"{launcher.nodes} x {job.instance_type}" + (f": {instance.told}" if instance else ""),
        "volume": f"{launcher.volume_gb} GB each",
        "region": launcher.region,
        "role": job.role,
        "ends after": f"{launcher.max_hours:g} hours",
    }
    if job.train:
        found["ranks"] = f"{job.ranks}, {launcher.devices} on each, backend {launcher.backend}"
        waits = f", with waiting {launcher.max_wait_hours:g} hours" if launcher.max_wait_hours else ""
        found["spot"] = f"yes{waits}" if launcher.spot else "no"
    if job.secrets:
        found["secrets"] = ", ".join(f"{variable} from {name}" for variable, name in job.secrets.items())
    return found


def _places(job: Job) -> dict[str, str]:
    found = {"configuration": job.place("config/config.yaml")}
    if job.prepare:
        found["data set"] = f"{job.prepare.out} (each instance makes its part)"
        return found
    config, launcher = job.train, job.launcher
    assert config is not None
    how = {
        "s3": "streamed from S3 while training; starts at once, needs no room on the volume",
        "File": "copied to the volume before training starts; those minutes are paid for",
        "FastFile": "as files that SageMaker streams from S3 on demand",
    }
    month = FSX_LEAST_GB * instances.table()["fsx_gb_month"]
    found["data"] = f"{config.data.root}, {how[launcher.input]}"
    found["FSx for Lustre"] = (
        f"not used: its smallest file system is {FSX_LEAST_GB:,} GB, about {month:,.0f} USD a "
        "month whether jobs run or not, and it needs a VPC"
    )
    found["checkpoints"] = job.checkpoints or "none are kept: what is interrupted is lost"
    found["model, run folder"] = f"{job.output}/{job.name}/output/model.tar.gz"
    return found


def _steps(job: Job, data_told: str) -> str:
    config = job.train
    if config is None:
        return ""
    batch = (
        f"{config.data.batch_size} photos x {job.ranks} ranks = {config.data.batch_size * job.ranks:,} a step"
    )
    if job.data is None or job.steps is None:
        return f"{batch}; steps are not known: {data_told}"
    epochs = config.trainer.max_epochs
    return (
        f"{batch}; {job.data.photos.epoch:,} photos an epoch = {job.steps:,} steps an epoch on each rank, "
        f"{job.steps * epochs:,} in {epochs} epochs; the data set has {job.data.gb:,.2f} GB"
    )


def _price(job: Job, price: Price) -> dict[str, str]:
    most, launcher = ceiling(job, price), job.launcher
    found = {
        "on demand": (
            f"{most:,.2f} USD = {launcher.max_hours:g} h x {launcher.nodes} x "
            f"({price.usd_hour:,.3f} USD for an instance + {_volume(job):,.3f} USD for its volume) an hour"
        )
    }
    if job.train:
        low, high = (most * (1 - share) for share in reversed(SPOT_SAVES))
        found["on spot"] = (
            f"never more than that; as a rule {low:,.2f} to {high:,.2f} USD, as AWS tells of "
            f"{SPOT_SAVES[0]:.0%} to "
            f"{SPOT_SAVES[1]:.0%} saved" + ("" if launcher.spot else " (launcher.spot=true)")
        )
    found["beside that"] = "S3 storage and requests; within the region no transfer"
    found["prices from"] = price.source
    return found


def sections(parts: list[tuple[str, str]]) -> str:
    """The text of titles and what stands below them, where there is something."""
    return "\n\n".join(f"[{title}]\n{text}" for title, text in parts if text)


def ending(lacking: list[str]) -> str:
    """The last lines: that nothing was sent, and what is to be given before it can be."""
    told = [f"first: {line}" for line in lacking] or ["submit=true sends it"]
    return "\n".join(["", "[this is a preview: nothing was sent]", *told])


def lines(facts: dict[str, Any]) -> str:
    """A line for each fact, its name before it."""
    width = max(map(len, facts))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in facts.items())
