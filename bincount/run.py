"""The run folder: made once, found again by name, `latest` or path.

config.yaml  environment.json  log.txt  metrics.csv  checkpoints/  evaluation/<split>/  report.html
"""

import contextlib
import json
import logging
import os
import platform
import secrets
import subprocess
import sys
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from bincount import storage, words
from bincount.errors import BadInput, near

BEST = Path("checkpoints/best.ckpt")
LAST = Path("checkpoints/last.ckpt")
PREVIOUS = Path("checkpoints/previous.ckpt")
CALIBRATION = Path("calibration.json")

#: What the run tells of its validation photos, once calibrated: count, p_0, p_1 …
ANSWERS = Path("calibration.parquet")

#: Where a service keeps rows of what it saw, unless it is told another folder.
KEPT = Path("kept")

#: What a run learnt before it saw the photos themselves; a folder like a run's.
PRETRAINING = "pretraining"

#: What a sweep's folder has, and a run's has not.
SWEEP = Path("sweep.yaml")

#: Marks a record that is for the log alone.
_TOLD = "bincount_told"

_PACKAGES = (
    "bincount",
    "torch",
    "torchvision",
    "lightning",
    "torchmetrics",
    "webdataset",
    "hydra-core",
    "numpy",
)


def create(runs: str, experiment: str, config: DictConfig) -> Path:
    """Make the folder of a new run, write its config and environment, and point `latest` to it.

    ``BINCOUNT_RUN_ID`` names the run where several processes must agree on one folder.
    """
    folder = new_folder(runs, experiment)
    (folder / "checkpoints").mkdir(exist_ok=True)
    storage.write_text(folder / "config.yaml", OmegaConf.to_yaml(config))
    told = {"run": f"{folder.parent.name}/{folder.name}", **environment(datetime.now(UTC))}
    storage.write_text(folder / "environment.json", json.dumps(told, indent=2) + "\n")
    point_latest(storage.folder(runs), folder)
    return folder


def title(folder: Path) -> str:
    """EXPERIMENT/NAME of the run in a folder, as it was begun: also where SageMaker unpacks it."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads((folder / "environment.json").read_bytes())["run"])
    return f"{folder.parent.name}/{folder.name}"


def new_folder(runs: str, experiment: str, ending: str = "") -> Path:
    """Make a folder that nobody else has; under ``BINCOUNT_RUN_ID`` it may be there already."""
    above = storage.folder(runs) / experiment
    try:
        if told := os.environ.get("BINCOUNT_RUN_ID"):
            (above / told).mkdir(parents=True, exist_ok=True)
            return above / told
        while True:
            folder = above / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}{ending}"
            # A run that began in the same second may have drawn the same number.
            with contextlib.suppress(FileExistsError):
                folder.mkdir(parents=True)
                return folder
    except OSError as error:
        raise BadInput(f"runs={runs}: no run folder can be made there: {error.strerror or error}") from None


def find(name: str, runs: str) -> Path:
    """The folder of a run: ``latest``, a path, or a path below ``runs``. Raises BadInput if there is none."""
    top = storage.folder(runs)
    if name == "latest":
        if not (top / "latest").exists():
            raise BadInput(f"there is no run in {top} yet: train one with `bincount train`, or give runs=…")
        return (top / "latest").resolve()
    for folder in (storage.folder(name), top / name):
        if (folder / "config.yaml").exists():
            return folder.resolve()
        if (folder / SWEEP).exists():
            told = f"name one of its trials; `bincount train -m resume={folder}` goes on with it"
            raise BadInput(f"{name} is a sweep: {told}")
    raise BadInput(f"{name} is no run: {_like(name, top)}")


def _like(name: str, top: Path) -> str:
    """What may have been meant by the name of no run."""
    found = words.runs(top)
    inside = next((each for each in found if each.startswith(f"{Path(name).name}/")), None)
    if inside:
        return f"name one of those in it, such as {inside}"
    meant = near(name, ["latest", *found, *(str(top / each) for each in found)]) if found else None
    none = f"there is no config.yaml in it, nor in {top / name}"
    return f"did you mean {meant}?" if meant else none


def saved_config(folder: Path) -> DictConfig:
    """The configuration that a run was made with."""
    try:
        config = OmegaConf.load(folder / "config.yaml")
    except (OSError, YAMLError, OmegaConfBaseException) as error:
        raise BadInput(f"{folder}/config.yaml cannot be read: {str(error).splitlines()[0]}") from None
    assert isinstance(config, DictConfig)
    return config


def weights(folder: Path) -> Path:
    """The checkpoint that counts: the best one, or the last where there was no validation.

    Raises BadInput for a run that has none.
    """
    for name in (BEST, LAST, PREVIOUS):
        if (folder / name).exists():
            return folder / name
    raise BadInput(f"{folder} has no checkpoint yet: train it with `bincount train resume={folder}`")


def calibration(folder: Path) -> dict[str, Any]:
    """What was found on validation after training, see ``bincount.evaluate.calibrate``; empty without it."""
    path = folder / CALIBRATION
    if not path.exists():
        return {}
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def log_to(folder: Path) -> None:
    """Send what the program says to standard output and to the run's log.txt."""
    package = logging.getLogger("bincount")
    package.setLevel(logging.INFO)
    for before in list(package.handlers):
        package.removeHandler(before)
        before.close()
    file = logging.FileHandler(folder / "log.txt", encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    shown = logging.StreamHandler(sys.stdout)
    shown.addFilter(lambda record: not hasattr(record, _TOLD))
    package.addHandler(shown)
    package.addHandler(file)


def alone(folder: Path) -> AbstractContextManager[None]:
    """Keep the run for this process, which changes it. Raises BadInput where another one does."""
    return storage.alone(
        folder / ".lock", f"{title(folder)}: another process trains this run: wait for its end"
    )


def note(line: str) -> None:
    """Write into the run's log.txt what people are told already."""
    logging.getLogger("bincount").error("%s", line, extra={_TOLD: True})


def environment(now: datetime) -> dict[str, Any]:
    """What a reader needs to judge and repeat a run: command, time, versions, machine, commit."""
    return {
        "command": sys.argv,
        "started": now.isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "commit": _commit(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the checkout that this program runs from, if it does."""
    here = Path(__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return None
    git = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def point_latest(top: Path, folder: Path) -> None:
    """Let ``latest`` in ``top``, the folder of runs, be the run of this folder."""
    link = top / f".latest.{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(folder.relative_to(top))
    os.replace(link, top / "latest")
