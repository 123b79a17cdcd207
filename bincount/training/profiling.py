"""Where the time of training goes: Lightning's and PyTorch's own profilers, writing into the run's folder."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from lightning.pytorch.profilers import Profiler, PyTorchProfiler, SimpleProfiler

from bincount.training.stopping import StoppedTraining

log = logging.getLogger(__name__)

#: Where the files lie in the run's folder, with a rank's number in the name of each.
FOLDER = Path("profile")

#: Steps that PyTorch's profiler warms up in, and that it records.
WARM_UP, RECORDED = 5, 5


def build(name: str | None, folder: Path) -> Profiler | None:
    """The profiler ``name`` of the run in ``folder``: simple, pytorch, or None."""
    if name == "simple":
        return SimpleProfiler(folder / FOLDER, name)
    if name == "pytorch":
        os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # else it tells of its start, and of each missing GPU
        schedule = torch.profiler.schedule(wait=0, warmup=WARM_UP, active=RECORDED, repeat=1)
        rank = os.environ.get("RANK", "0")
        keep = torch.profiler.tensorboard_trace_handler(str(folder / FOLDER), f"rank-{rank}", use_gzip=True)
        kept = {"schedule": schedule, "on_trace_ready": keep, "acc_events": True}
        return PyTorchProfiler(folder / FOLDER, name, **kept)
    return None


@contextlib.contextmanager
def written(profiler: Profiler | None) -> Iterator[None]:
    """Around training: at its end the log says where the profile is, even where it is stopped."""
    try:
        yield
    except StoppedTraining:
        if profiler is not None:
            profiler.describe()  # as Lightning does after the last epoch
        raise
    finally:
        if profiler is not None and profiler.dirpath is not None:
            _tell(Path(profiler.dirpath))


def _tell(where: Path) -> None:
    if any(each.stat().st_size for each in where.glob("*")):
        log.info("where the time went is in %s (trainer.profiler)", where)
    else:
        log.warning("nothing was profiled: trainer.profiler=pytorch begins after %d steps", WARM_UP)
