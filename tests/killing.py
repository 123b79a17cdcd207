"""Runs that are killed with SIGKILL, ranks and workers at once, and resumed until they are done.

The ranks are forks of this process: they import nothing anew, so a start takes a second and not ten.
"""

import contextlib
import csv
import json
import os
import random
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from bincount import compose, fit, storage, train
from bincount.model import backbones
from bincount.model.module import CountModule
from bincount.training import ranks


@dataclass(frozen=True)
class Moment:
    """When to kill: ``seconds`` after rank 0 begins ``what`` (one of EVENTS) for the ``number``-th time.

    With SIGKILL, or another signal, to all ranks and workers at once.
    """

    what: str
    number: int
    seconds: float = 0.0
    signal: str = "SIGKILL"

    def __str__(self) -> str:
        return f"{1000 * self.seconds:.0f} ms into {self.what} {self.number}"


class Killed(Exception):
    """The ranks were killed at the moment."""


#: What rank 0 tells of when it begins it: a function's owner and name.
EVENTS: dict[str, tuple[Any, str]] = {
    "step": (CountModule, "training_step"),
    "saving": (storage, "write_durably"),
    "validation": (CountModule, "validation_step"),
}


def train_killed(words: list[str], moment: Moment | None = None) -> None:
    """Do what `bincount train` does without evaluating at the end. Raises Killed if the moment came."""
    config = compose.typed("train", compose.compose("train", words))
    with (
        _replaced(ranks, "start", lambda devices, module, folder: _forked(devices, folder, moment)),
        _replaced(train, "fit", lambda config, folder, signals: _forked(1, folder, moment)),
        _replaced(train, "_evaluate", lambda *_: None),
    ):
        train.train(config)


def _forked(devices: int, folder: Path, moment: Moment | None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    told, tell = os.pipe()
    pids: list[int] = []
    start = time.time_ns()
    for rank in range(devices):
        pid = os.fork()
        if pid == 0:
            os.close(told)
            os.setpgid(0, pids[0] if pids else 0)
            _be(rank, devices, port, folder, tell, start)
        os.setpgid(pid, pids[0] if pids else pid)
        pids.append(pid)
    os.close(tell)
    came = _wait_for(moment, told)
    if came and moment:
        os.killpg(pids[0], signal.Signals[moment.signal])
    os.close(told)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    if came:
        raise Killed(str(moment))
    if any(codes):
        raise RuntimeError(f"the ranks ended with {codes}")


def _be(rank: int, devices: int, port: int, folder: Path, tell: int, start: int) -> None:
    """What a rank does, set up as torchrun would."""
    os.environ["RANK"] = str(rank)
    if devices > 1:
        os.environ |= {
            "LOCAL_RANK": str(rank),
            "GROUP_RANK": "0",
            "WORLD_SIZE": str(devices),
            "LOCAL_WORLD_SIZE": str(devices),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "TORCHELASTIC_RUN_ID": "forked",
        }
    code = 1
    try:
        if rank == 0:
            for what, (owner, name) in EVENTS.items():
                setattr(owner, name, _telling(getattr(owner, name), what, tell))
        CountModule.training_step = _noting(CountModule.training_step, folder / f"rows-{rank}.txt", start)
        fit.rank(folder)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _noting(step: Any, path: Path, start: int) -> Any:
    """Write when the ranks were started, the global step, and the rows of its photos: a line each step."""

    def noted(module: CountModule, batch: dict[str, Any], batch_index: int) -> Any:
        with path.open("a") as file:
            print(start, module.global_step, *batch["row"].tolist(), file=file)
        return step(module, batch, batch_index)

    return noted


def _telling(function: Callable[..., Any], what: str, tell: int) -> Callable[..., Any]:
    def told(*args: Any, **kwargs: Any) -> Any:
        os.write(tell, f"{what}\n".encode())
        return function(*args, **kwargs)

    return told


def _wait_for(moment: Moment | None, told: int) -> bool:
    """Whether the moment came before the ranks had ended."""
    times = 0
    with os.fdopen(os.dup(told)) as lines:
        for line in lines:
            times += moment is not None and line.strip() == moment.what
            if moment is not None and times == moment.number:
                time.sleep(moment.seconds)
                return True
    return False


@contextlib.contextmanager
def _replaced(owner: Any, name: str, by: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, by)
    try:
        yield
    finally:
        setattr(owner, name, before)


# --- a run, and how it ends ---------------------------------------------------------------------------


def small_with_dropout(outputs: int) -> nn.Module:
    """A short ResNet with batch norm and dropout, whose steps take milliseconds."""
    wider = nn.Sequential(nn.Conv2d(16, 32, 1, stride=2, bias=False), nn.BatchNorm2d(32))
    stem = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    blocks = nn.Sequential(stem, BasicBlock(16, 16), BasicBlock(16, 32, stride=2, downsample=wider))
    return nn.Sequential(
        blocks, nn.AdaptiveAvgPool2d(1), nn.Sequential(nn.Flatten(), nn.Dropout(0.3)), nn.Linear(32, outputs)
    )


def linear(outputs: int) -> nn.Module:
    """A network whose outputs hang on its weights alone."""
    return nn.Sequential(nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten()), nn.Linear(48, outputs))


def register() -> None:
    """Let runs have the models."""
    backbones.register("small_with_dropout", head="3")(small_with_dropout)
    backbones.register("linear", head="1")(linear)


def unregister() -> None:
    """Take the models away."""
    del backbones.BACKBONES["small_with_dropout"], backbones.BACKBONES["linear"]


#: Two ranks with two workers each. Of the 68 training photos of the tests' small data an epoch takes 8 steps.
RUN = ["model=resnet18", "model.name=small_with_dropout", "data.image_size=32", "data.batch_size=4"]
RUN += ["data.workers=2", "data.augment.shift=0.1", "data.augment.zoom=0.1", "data.augment.light=0.1"]
RUN += ["launcher.devices=2", "launcher.precision=32-true", "optimizer.lr=0.01"]
RUN += ["trainer.max_epochs=4", "trainer.checkpoint_every=3"]

#: Where in a checkpoint stands what must be the same; the rest counts what the process itself did.
COMPARED = ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "BinData", "global_step")
COMPARED += ("current_model_state", "averaging_state")  # there under trainer.ema


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two runs at their ends: weights, optimizer, schedule, best weights, figures."""
    found = []
    for name in ("last", "best"):
        file = f"checkpoints/{name}.ckpt"
        here, there = (torch.load(folder / file, weights_only=True) for folder in (one, other))
        found += [
            f"{name}: {each}" for key in COMPARED for each in _unlike(here.get(key), there.get(key), key)
        ]
    if figures(one) != figures(other):
        found.append("metrics.csv")
    return found


def figures(folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv, without what tells of the clock."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: row[name] for name in row if not name.startswith("time/")} for row in rows]


def _unlike(one: Any, other: Any, at: str) -> list[str]:
    if isinstance(one, torch.Tensor):
        return [] if isinstance(other, torch.Tensor) and torch.equal(one, other) else [at]
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [each for key in one for each in _unlike(one[key], other[key], f"{at}.{key}")]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return [each for n in range(len(one)) for each in _unlike(one[n], other[n], f"{at}[{n}]")]
    return [] if one == other else [f"{at}: {one} and {other}"]


def rows_of_steps(folder: Path) -> dict[int, list[list[int]]]:
    """The rows that each step of a run took, for each of its ranks; of steps done twice, the second time."""
    found: dict[int, tuple[int, list[list[int]]]] = {}
    for path in sorted(folder.glob("rows-*.txt")):
        for line in path.read_text().splitlines():
            start, step, *rows = map(int, line.split())
            before, of_ranks = found.get(step, (start, []))
            if start >= before:
                found[step] = start, [*(of_ranks if start == before else []), rows]
    return {step: of_ranks for step, (_, of_ranks) in sorted(found.items())}


def random_moment(chance: random.Random) -> Moment:
    """A moment of training, mostly a step, at which a run of RUN may be killed; some are too late for it."""
    what = chance.choice(["step", "step", "step", "saving", "validation"])
    return Moment(
        what, chance.randint(1, {"step": 14, "saving": 5, "validation": 6}[what]), chance.random() / 10
    )


def kill_until_done(
    words: list[str], runs: Path, starts: Iterable[tuple[list[str], Moment]]
) -> tuple[Path, list[str]]:
    """Train, start after start with more words and killed at a moment, until it is done.

    Gives the run's folder, and the moments that came before it was done.
    """
    kills: list[str] = []
    resume = [f"runs={runs}"]
    for more, moment in starts:
        try:
            train_killed([*(resume if kills else [*words, *resume]), *more], moment)
        except Killed:
            kills.append(str(moment))
        else:
            break
        resume = [f"runs={runs}", "resume=latest"]
    else:
        train_killed(resume if kills else [*words, *resume])
    return (runs / "latest").resolve(), kills


def main(data: str, top: str) -> None:
    """Do the jobs that are read from standard input, and write what came of each to standard output, as JSON.

    A job is ``{"name", "words", "starts": [[more words, [what, number, seconds]], ...], "compare"}``; with
    ``compare`` its end is compared with a run of the same words that is not stopped.
    """
    register()
    results = sys.stdout
    sys.stdout = sys.stderr
    for job in json.load(sys.stdin):
        words = [f"data.root={data}", *RUN, *job["words"]]
        starts = [(more, Moment(*moment)) for more, moment in job["starts"]]
        folder, kills = kill_until_done(words, Path(top) / job["name"], starts)
        result = {"name": job["name"], "run": str(folder), "kills": kills}
        if job["compare"]:
            train_killed([*words, f"runs={top}/{job['name']}-whole"])
            result["differences"] = differences((Path(top) / f"{job['name']}-whole/latest").resolve(), folder)
        print(json.dumps(result), file=results, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
