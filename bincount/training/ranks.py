"""Several ranks: torchrun starts a process a device and watches over them; how one tells why it ended."""

import json
import logging
import os
import signal
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bincount import run
from bincount.errors import BincountError, Stopped, complaint, exit_code, retold
from bincount.machine import processors
from bincount.training.hosts import PORT, Meeting

#: Tells ranks that the process above them tells people what went wrong.
LAUNCHED = "BINCOUNT_LAUNCHED"


def start(devices: int, module: str, folder: Path) -> None:
    """Run ``python -m MODULE FOLDER`` on every rank and wait. Raises BincountError where one fails.

    The ranks are told the run folder alone: its config.yaml needs no quoting and is parsed once.
    """
    _launch(  # as `torchrun --standalone` has it
        module,
        folder,
        nodes=1,
        nproc_per_node=devices,
        run_id=str(uuid.uuid4()),
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
    )


def start_on_all(meeting: Meeting, devices: int, module: str, folder: Path) -> None:
    """Like :func:`start`, for this host's ranks of several hosts, each of which comes here.

    Raises on all of them what ended the first rank or host that ended badly.
    """
    hosts = meeting.hosts
    try:
        _launch(
            module,
            folder,
            nodes=len(hosts.names),
            nproc_per_node=devices,
            run_id=hosts.job,
            rdzv_endpoint=f"{hosts.first}:{PORT}",
            rdzv_configs={"is_host": False},  # the meeting has the store
            local_addr=hosts.own,  # ranks are numbered in the order of these
        )
    except Exception as error:
        raise meeting.ended(error) from None


def going_on(folder: Path, nodes: int) -> str:
    """How people go on with a run that was stopped."""
    if nodes > 1:
        return "the job goes on where it is started again with the same checkpoints"
    # A pre-training is a part of its run.
    whole = folder.parent if folder.name == run.PRETRAINING else folder
    return f"`bincount train resume={whole}` goes on"


def _launch(module: str, folder: Path, nodes: int, nproc_per_node: int, **settings: Any) -> None:
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=nproc_per_node,
        rdzv_backend="c10d",
        max_restarts=0,
        **settings,
    )
    threads = max(1, processors() // nproc_per_node)
    # DDP warns on each rank of the search for unused parameters, which is meant (see training.channel).
    defaults = {"OMP_NUM_THREADS": str(threads), "TORCH_CPP_LOG_LEVEL": "ERROR", LAUNCHED: "1"}
    try:
        with _environment({**defaults, **os.environ}), _torchrun_quiet():
            elastic_launch(config, sys.executable)("-m", module, str(folder))
    except SignalException as stopped:
        raise Stopped(signal.Signals(stopped.sigval), f": {going_on(folder, nodes)}") from None
    except ChildFailedError as error:
        raise _first(error.failures) from None


def _first(failures: Mapping[int, Any]) -> BincountError:
    """What ended the ranks, of torchrun's account of each rank that failed."""
    # A rank that was killed tells nothing, and some were killed by torchrun only after the first had failed.
    rank, failure = min(failures.items(), key=lambda each: (each[1].exitcode < 0, each[1].timestamp))
    if failure.exitcode < 0:
        return BincountError(f"rank {rank} was killed by {signal.Signals(-failure.exitcode).name}")
    return retold(str(failure.message), failure.exitcode)


def report(error: BaseException) -> int:
    """Tell torchrun, and people if nobody else does, why this rank ends; gives its exit code."""
    line = complaint(error)
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        Path(file).write_text(json.dumps({"message": line, "timestamp": int(time.time())}), encoding="utf-8")
    if LAUNCHED not in os.environ:
        run.note(line)
        print(f"bincount: rank {os.environ['RANK']}: {line}", file=sys.stderr, flush=True)
    return exit_code(error)


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _torchrun_quiet() -> Iterator[None]:
    """Without torchrun's own account of failures, a page of which the line that is wanted is told anyway."""
    talker = logging.getLogger("torch.distributed.elastic")
    silence, propagates = logging.NullHandler(), talker.propagate
    talker.addHandler(silence)
    talker.propagate = os.environ.get("BINCOUNT_DEBUG") == "1"
    try:
        yield
    finally:
        talker.propagate = propagates
        talker.removeHandler(silence)
