"""A job of SageMaker on this machine: each host in a mount namespace with an /opt/ml of its own.

All hosts share the loopback network, so their names lead to it, and one rehearsal runs at a time.
"""

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from processes import Training

#: What makes the namespace: an /opt with all that the machine's has, and the host's own ml.
_NAMESPACE = r"""
set -euo pipefail
host=$1 name=$2; shift 2
mkdir -p "$host/opt/ml"
for each in /opt/*; do
    [ -d "$each" ] && [ "$each" != /opt/ml ] || continue
    mkdir -p "$host$each"
    mount --rbind "$each" "$host$each"
done
mount --bind "$host/ml" "$host/opt/ml"
mount --rbind "$host/opt" /opt
mount --bind "$host/hosts" /etc/hosts
hostname "$name"
cd /
exec env --ignore-environment "$@"
"""


def image_entry() -> list[str]:
    """What an image of launch/Dockerfile runs; SageMaker puts `train` or `serve` behind it."""
    lines = (Path(__file__).parents[1] / "launch/Dockerfile").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("ENTRYPOINT")]
    found: list[str] = json.loads(line.removeprefix("ENTRYPOINT"))
    return found


@cache
def refused() -> str | None:
    """Why this machine lets us make no namespaces; None where it does."""
    try:
        done = subprocess.run([*_unshare(), "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True)
    except FileNotFoundError as error:
        return str(error)
    return done.stderr.decode().strip() if done.returncode else None


def _unshare() -> list[str]:
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", "--mount", "--uts", *as_root]


@contextlib.contextmanager
def stage() -> Iterator[None]:
    """To rehearse in: skips where namespaces are refused, and waits while another rehearsal runs."""
    if problem := refused():
        pytest.skip(f"this machine lets us make no namespaces: {problem}")
    with (Path(tempfile.gettempdir()) / "bincount-rehearsal.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Host(Training):
    """One host of a job, whose entry runs: its files are in ``folder/ml``, which it sees as /opt/ml.

    ``brought``: which folder or file is copied to which place below /opt/ml. ``checkpoints``: what SageMaker
    brings back; :meth:`upload` is what it keeps.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        hosts: Sequence[str],
        command: Sequence[str],
        *,
        brought: Mapping[str, Path] | None = None,
        environment: Mapping[str, str] | None = None,
        checkpoints: Path | None = None,
        hyperparameters: Mapping[str, str] | None = None,
        job: str = "job",
        processing: bool = False,
    ):
        self.name, self.ml = name, folder / "ml"
        for each in ("model", "output", "checkpoints"):
            (self.ml / each).mkdir(parents=True)
        resources = {"current_host": name, "hosts": list(hosts), "network_interface_name": "lo"}
        channels = [place.rpartition("/")[2] for place in brought or {} if place.startswith("input/data/")]
        told = {
            "resourceconfig": resources,
            "hyperparameters": hyperparameters or {},
            "inputdataconfig": {channel: {"TrainingInputMode": "File"} for channel in channels},
        }
        for file, content in told.items():
            place = self.ml / ("config" if processing else "input/config") / f"{file}.json"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps(content))
        for place, held in (brought or {}).items():
            _copy(held, self.ml / place)
        if checkpoints is not None:
            _copy(checkpoints, self.ml / "checkpoints")
        numbers = {each: n for n, each in enumerate(sorted(hosts), 1)}
        lines = ["127.0.0.1 localhost", *(f"127.0.0.{n} {each}" for each, n in numbers.items())]
        (folder / "hosts").write_text("\n".join(lines) + "\n")
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        variables = {
            "PATH": path,
            "HOME": str(folder),
            "OMP_NUM_THREADS": "1",
            "TRAINING_JOB_NAME": job,
            **(environment or {}),
        }
        words = [f"{key}={value}" for key, value in variables.items()] + list(command)
        self.job = job
        super().__init__(
            folder, [], [*_unshare(), "bash", "-c", _NAMESPACE, "bash", str(folder), name, *words]
        )

    @classmethod
    def from_request(
        cls,
        request: Mapping[str, Any],
        uploaded: Mapping[str, Path],
        folder: Path,
        name: str = "algo-1",
        *,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = (),
        brought: Mapping[str, Path] | None = None,
        hyperparameters: Mapping[str, str] | None = None,
    ) -> "Host":
        """A host of the job that a request of ``create_training_job`` or ``create_processing_job`` asks for.

        ``uploaded``: what is at each s3:// address, or below it, on this machine. The addresses of outputs
        are not needed; that of checkpoints brings them back. ``environment`` and ``brought`` are beside the
        request's own; ``command`` stands for its entry, with ``hyperparameters`` of that program.
        """
        if "ProcessingJobName" in request:
            job, program = request["ProcessingJobName"], request["AppSpecification"]
            instances = request["ProcessingResources"]["ClusterConfig"]["InstanceCount"]
            inputs = [each["S3Input"] for each in request.get("ProcessingInputs", [])]
            addresses = {each["LocalPath"].removeprefix("/opt/ml/"): each["S3Uri"] for each in inputs}
        else:
            job, program = request["TrainingJobName"], request["AlgorithmSpecification"]
            instances = request["ResourceConfig"]["InstanceCount"]
            addresses = {
                f"input/data/{each['ChannelName']}": each["DataSource"]["S3DataSource"]["S3Uri"]
                for each in request.get("InputDataConfig", [])
            }
        kept = request.get("CheckpointConfig", {}).get("S3Uri", "").rstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        return cls(
            folder,
            name,
            [f"algo-{n}" for n in range(1, instances + 1)],
            command or [*program["ContainerEntrypoint"], *program.get("ContainerArguments", [])],
            brought={
                **{place: _found(address, uploaded) for place, address in addresses.items()},
                **(brought or {}),
            },
            environment={**request.get("Environment", {}), **(environment or {})},
            checkpoints=uploaded.get(kept) or uploaded.get(f"{kept}/"),
            hyperparameters=hyperparameters or request.get("HyperParameters", {}),
            job=job,
            processing="ProcessingJobName" in request,
        )

    @property
    def run(self) -> Path:
        return next((self.ml / "checkpoints/runs").glob("*/*/config.yaml")).parent

    @property
    def failure(self) -> str | None:
        """What it tells SageMaker of why it failed."""
        found = [self.ml / "output" / name for name in ("failure", "message")]
        return next((file.read_text() for file in found if file.exists()), None)

    def upload(self, kept: Path) -> None:
        """What SageMaker does with checkpoints: files alone, no links and no empty folders."""
        _copy(self.ml / "checkpoints", kept)


def _copy(source: Path, to: Path) -> None:
    if source.is_file():
        to.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, to)
        return
    for path in sorted(source.rglob("*")):
        if path.is_file() and not path.is_symlink():
            place = to / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)


def _found(address: str, uploaded: Mapping[str, Path]) -> Path:
    """What is at an address: of the longest one in ``uploaded`` that leads to it."""
    for known in sorted(uploaded, key=len, reverse=True):
        top = known.rstrip("/")
        if address.rstrip("/") == top or address.startswith(f"{top}/"):
            return uploaded[known] / address[len(top) :].strip("/")
    raise AssertionError(f"nothing was uploaded to {address}, but to {shlex.join(uploaded)}")
