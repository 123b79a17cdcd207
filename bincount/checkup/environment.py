"""This machine: Python and its packages, torch, processors, memory, disk, GPUs."""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from bincount import machine
from bincount.checkup.finding import Finding, Mark

OLDEST_PYTHON = (3, 11)

#: Below so many bytes a finding is no longer ok. A run of ResNet34 keeps three checkpoints of 260 MB.
LEAST_DISK, LEAST_MEMORY, LEAST_SHARED = 2e9, 4e9, 5e8

#: Seconds for torch to be imported, and for the driver to answer.
IMPORTING, ANSWERING = 180, 20

#: Packages whose versions are told also where all is well.
TOLD = ("torch", "torchvision", "lightning")

#: What torch tells of itself and of the machine; it runs in a process of its own, which may crash.
PROBE = """
import json, sys, warnings
told = {}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import torch
    told |= {"torch": torch.__version__, "threads": torch.get_num_threads(), "cuda": torch.version.cuda}
    told["cpu_bf16"] = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    told["gpus"] = [
        {"name": torch.cuda.get_device_name(n), "memory": torch.cuda.get_device_properties(n).total_memory}
        for n in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    ]
    told["gpu_bf16"] = bool(told["gpus"]) and torch.cuda.is_bf16_supported()
    told["warned"] = [str(each.message) for each in caught if "CUDA" in str(each.message)]
print(json.dumps(told), flush=True)
import torchvision
"""


def python() -> Iterator[Finding]:
    """Whether Python is new enough."""
    told = f"{platform.python_version()} ({sys.executable})"
    wanted = ".".join(map(str, OLDEST_PYTHON))
    if sys.version_info < OLDEST_PYTHON:
        yield Finding(Mark.BAD, "Python", told, f"install Python {wanted} or newer")
    else:
        yield Finding(Mark.OK, "Python", told)


def packages() -> Iterator[Finding]:
    """Whether the packages that pyproject.toml asks for are there, in the versions that it asks for."""
    from packaging.requirements import Requirement

    try:
        asked = [Requirement(each) for each in metadata.requires("bincount") or []]
    except metadata.PackageNotFoundError:
        yield Finding(Mark.HINT, "packages", "bincount is not installed", "pip install -e . in its checkout")
        return
    needed = [each for each in asked if each.marker is None or each.marker.evaluate({"extra": ""})]
    wrong = 0
    for each in needed:
        found = _version(each.name)
        if found is None or not each.specifier.contains(found, prereleases=True):
            wrong += 1
            told = f"{found} does not do" if found else "is not installed"
            yield Finding(Mark.BAD, each.name, told, f"pip install '{each.name}{each.specifier}'")
    if not wrong:
        versions = ", ".join(f"{name} {_version(name)}" for name in TOLD)
        yield Finding(Mark.OK, "packages", f"{len(needed)} as pyproject.toml asks: {versions}")


def torch() -> Iterator[Finding]:
    """Whether torch and torchvision fit each other, and can be imported."""
    here, made_for = _version("torch"), _torch_of_torchvision()
    if here and made_for and not made_for.contains(here, prereleases=True):
        told = f"torchvision {_version('torchvision')} is made for torch{made_for}, and torch is {here}"
        fix = f"pip install 'torch{made_for}', or the torchvision that was released with torch {here}"
        yield Finding(Mark.BAD, "torchvision", told, fix)
    found, failure = probe()
    if failure:
        fix = "pip install --force-reinstall torch torchvision, both in one command"
        yield Finding(Mark.BAD, "torchvision" if found else "torch", f"cannot be imported: {failure}", fix)
    else:
        yield Finding(Mark.OK, "torch", f"{found['torch']}, and torchvision fits it")


def processors() -> Iterator[Finding]:
    """How many processors there are for this program, and how many threads compute."""
    usable, limit = machine.processors(), _processor_limit()
    threads = probe()[0].get("threads")
    told = f"{usable} of {os.cpu_count()} may be used" + (
        f", torch computes with {threads}" if threads else ""
    )
    if limit is not None and limit < usable:
        fix = f"OMP_NUM_THREADS={max(1, round(limit))}, and few data.workers"
        yield Finding(Mark.HINT, "processors", f"{told}; the container has the time of {limit:g}", fix)
    elif threads and threads > usable:
        fix = f"OMP_NUM_THREADS={usable}"
        yield Finding(Mark.HINT, "processors", f"{told}: they get in each other's way", fix)
    else:
        yield Finding(Mark.OK, "processors", told)


def memory() -> Iterator[Finding]:
    """How much memory is free, and how much of it processes can share."""
    free = _free_memory()
    if free is None:
        yield Finding(Mark.HINT, "memory", "this system does not tell")
    elif free < LEAST_MEMORY:
        fix = "close what needs it, or take data.workers=0 and a smaller data.batch_size"
        yield Finding(Mark.HINT, "memory", f"{size(free)} free, which is little", fix)
    else:
        yield Finding(Mark.OK, "memory", f"{size(free)} free")
    shared = Path("/dev/shm")
    if shared.exists() and (left := shutil.disk_usage(shared).free) < LEAST_SHARED:
        told = f"{size(left)} free in {shared}, through which data.workers hand on their photos"
        yield Finding(Mark.HINT, "memory", told, "docker run --shm-size=2g, or data.workers=0")


def disk() -> Iterator[Finding]:
    """How much room is left in this folder, where data sets and runs go unless said."""
    yield room("disk", Path.cwd())


def gpu() -> Iterator[Finding]:
    """Which GPUs torch can use, and whether the driver sees more than torch does."""
    found, seen = probe()[0], _seen_by_driver()
    if found.get("gpus"):
        names = ", ".join(f"{gpu['name']} ({size(gpu['memory'])})" for gpu in found["gpus"])
        told = f"{names}; {_driver(seen)}CUDA {found['cuda']}; launcher=gpu trains on it"
        if found["gpu_bf16"]:
            yield Finding(Mark.OK, "GPU", f"{told} in bf16")
        else:
            yield Finding(Mark.HINT, "GPU", f"{told} in 32 bits", "launcher.precision=16-mixed is quicker")
    elif seen and found:
        why = "is built for the CPU alone" if found["cuda"] is None else "cannot use it"
        told = f"the driver sees {seen[0]}, and torch {found['torch']} {why}"
        told += "".join(f": {line}" for line in found["warned"][:1])
        yield Finding(Mark.BAD, "GPU", told, "install a torch for the driver's CUDA: pytorch.org/get-started")
    elif seen:
        yield Finding(Mark.HINT, "GPU", f"the driver sees {seen[0]}; torch is not there to use it")
    else:
        how = {True: " in bf16", False: " in 32 bits"}.get(found.get("cpu_bf16", ""), "")
        yield Finding(Mark.OK, "GPU", f"none: trains on the CPU{how}")


@cache
def probe() -> tuple[dict[str, Any], str]:
    """What torch tells (see PROBE), empty where it cannot be imported; and why something could not be."""
    command = [sys.executable, "-c", PROBE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=IMPORTING, check=False)
    except subprocess.TimeoutExpired:
        return {}, f"no answer in {IMPORTING} s"
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    found: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    if done.returncode == 0:
        return found, ""
    said = done.stderr.strip().splitlines()
    ended = f"the import was ended by signal {-done.returncode}"
    return found, ended if done.returncode < 0 else (said or ["no reason given"])[-1][:300]


def room(what: str, folder: Path) -> Finding:
    """How much of a disk is free."""
    free = shutil.disk_usage(folder).free
    if free < LEAST_DISK:
        return Finding(Mark.BAD, what, f"only {size(free)} free in {folder}", "make room, or work elsewhere")
    return Finding(Mark.OK, what, f"{size(free)} free in {folder}")


def size(bytes: float) -> str:
    """Bytes as people say them."""
    return f"{bytes / 1e9:,.1f} GB" if bytes >= 1e9 else f"{bytes / 1e6:,.0f} MB"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _torch_of_torchvision() -> Any:
    """The versions of torch that the installed torchvision names; None where it names none."""
    from packaging.requirements import Requirement

    if _version("torchvision") is None:
        return None
    asked = map(Requirement, metadata.requires("torchvision") or [])
    return next((each.specifier for each in asked if each.name == "torch" and each.specifier), None)


def _seen_by_driver() -> list[str]:
    """Each GPU's name and its driver's version, as nvidia-smi tells them; none where it is not there."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWERING, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _driver(seen: list[str]) -> str:
    return f"driver {seen[0].rpartition(', ')[2]}, " if seen else ""


def _free_memory() -> float | None:
    """Bytes that can be had without swapping, in a container no more than it is allowed."""
    told = Path("/proc/meminfo")
    if not told.exists():
        return None
    lines = dict(line.split(":", 1) for line in told.read_text().splitlines())
    free = float(lines["MemAvailable"].split()[0]) * 1024
    limit, used = _of_group("memory.max"), _of_group("memory.current")
    return free if limit is None or used is None else min(free, limit[0] - used[0])


def _processor_limit() -> float | None:
    """The processors whose time the container has; None: it has all."""
    quota = _of_group("cpu.max")
    return quota[0] / quota[1] if quota is not None and len(quota) == 2 else None


def _of_group(name: str) -> list[float] | None:
    """The numbers in a file of the container's control group; None where it sets no limit."""
    path = Path("/sys/fs/cgroup") / name
    words = path.read_text().split() if path.is_file() else ["max"]
    return None if words[0] == "max" else [float(word) for word in words]
