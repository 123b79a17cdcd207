"""`bincount train -m`: trials, one after the other or some at a time; then a ranked table and a picture.

sweep.yaml  study.log  log.txt  trials.csv  trials.png  000/ 001/ …     a run's folder each

What to try next is decided in `bincount.study`, how a trial runs on this machine in `bincount.trials`.
"""

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from omegaconf import DictConfig, OmegaConf

from bincount import run, space, storage
from bincount.compose import WHOLE, compose, typed
from bincount.config import WATCHED, RandomSweep, SageMaker, TrainConfig
from bincount.errors import BadInput, Stopped, complaint
from bincount.space import Combination, Interval, Space

if TYPE_CHECKING:
    from bincount.ranking import Ranking
    from bincount.study import Study, Trial
    from bincount.training.signals import Signals
    from bincount.trials import Here, Runner

log = logging.getLogger(__name__)

#: What is monitored while training, as results.json names it.
MONITORED = {"val/accuracy": "accuracy", "val/rmse": "rmse", "val/mae": "mae", "val/loss": "nll"}

#: What all trials have in common.
ALIKE = {
    "runs": "a sweep has one folder",
    "trainer.monitor": "trials are ranked by it",
    "trainer.checkpoint_copy": "each trial has its own place in it",
}

#: Combinations up to which each is composed before the first trial; of more, each value is once.
COMPOSED = 100

#: Seconds between two looks at the trials; and until a signal to a trial has reached us, too, if it will.
LOOK, REACHED = 0.1, 2.0


@dataclass(frozen=True)
class SweepPlan:
    """What the words of a sweep ask for. ``configs``: those of a few combinations, each value once."""

    words: list[str]
    where: Path
    space: Space
    configs: list[TrainConfig]

    @property
    def first(self) -> TrainConfig:
        return self.configs[0]


class Venue(Protocol):
    """Where the trials of a sweep run. ``program``: the command that begins a sweep there."""

    program: str

    def check(self, plan: SweepPlan) -> None:
        """Find what would stop the trials, before anything costs time. Raises BadInput."""

    def runner(self, folder: Path, plan: SweepPlan) -> "Runner":
        """What runs them."""


class ThisMachine:
    """Trials that are commands on this machine."""

    program = "bincount train -m"

    def check(self, plan: SweepPlan) -> None:
        _check(plan)

    def runner(self, folder: Path, plan: SweepPlan) -> "Runner":
        return _here(folder, plan)


def sweep(words: Sequence[str], venue: Venue | None = None) -> Path:
    """Begin a sweep, or go on with the one that `resume=` names; gives its folder.

    ``venue`` None: on this machine. Raises Stopped where a signal ends it.
    """
    venue = venue or ThisMachine()
    if "resume" in map(_key, words):
        folder, plan = _continued(words)
    else:
        plan = planned(words, Path.cwd())
        compose_all(plan)
        venue.check(plan)
        folder = _begin(plan, venue)
    run.log_to(folder)
    log.info("sweep %s", folder)
    try:
        _carry_out(folder, plan, venue)
    except (Exception, KeyboardInterrupt) as error:
        run.note(complaint(error))
        raise
    return folder


def first_trial(words: Sequence[str]) -> DictConfig:
    """The configuration of the first trial. Raises BadInput."""
    found = space.parse(words)
    return compose("train", found.words(found.samples()[0]))


def planned(words: Sequence[str], where: Path) -> SweepPlan:
    """Compose some trials, so that a mistake is told before the first. Raises BadInput."""
    found = space.parse(words)
    for word in words:
        if _key(word) == "trainer.evaluate":
            raise BadInput(f"{word}: trials are scored on val; test is left for the best of them, once")
    for key in found.keys:
        if key in ALIKE or key.partition(".")[0] == "sweep":
            raise BadInput(f"{key}: give it one value: {ALIKE.get(key, 'it says how to sweep')}")
    plan = SweepPlan(list(words), where, found, [_typed(found, each) for each in found.samples()[:COMPOSED]])
    if not found.parameters:
        raise BadInput("-m: give a word several values to try, as in optimizer.lr=0.001,0.01,0.1")
    settings = plan.first.sweep
    if not isinstance(settings, RandomSweep):
        found.grid()
    elif found.size is not None and found.size < settings.trials:
        raise BadInput(
            f"sweep={settings.name}: there are {found.size} combinations, fewer than "
            f"sweep.trials={settings.trials}: sweep=grid tries each of them once"
        )
    return plan


def _typed(found: Space, combination: Combination) -> TrainConfig:
    try:
        config: TrainConfig = typed("train", compose("train", found.words(combination)))
    except BadInput as error:
        for each in found.parameters:
            if isinstance(each, Interval) and WHOLE in str(error) and str(error).startswith(each.key):
                low, high = each.texts[0], each.texts[-1]
                raise BadInput(
                    f"{each.key}: whole numbers are needed: write int(interval({low},{high}))"
                ) from None
        raise
    return config


def compose_all(plan: SweepPlan) -> None:
    """Compose every combination of a grid that is not too large. Raises BadInput."""
    if not isinstance(plan.first.sweep, RandomSweep) and (plan.space.size or 0) <= COMPOSED:
        composed = plan.space.samples()
        for combination in plan.space.grid():
            if combination not in composed:
                _typed(plan.space, combination)


def _check(plan: SweepPlan) -> None:
    """Find what would stop trials on this machine, before anything costs time. Raises BadInput."""
    for config in plan.configs:
        if isinstance(config.launcher, SageMaker):
            name = config.launcher.name
            raise BadInput(
                f"launcher={name}: trials run on this machine: write launcher=local or launcher=gpu; "
                "`python launch/submit.py train -m …` makes a job of each"
            )
    from bincount import train
    from bincount.data.index import Index

    for root in dict.fromkeys(config.data.root for config in plan.configs):
        if "val" not in Index.open(root).splits:
            raise BadInput(
                f"{root} has no split 'val', on which trials are scored: prepare it with split.val"
            )
    train.check(plan.first, Index.open(plan.first.data.root))


def _begin(plan: SweepPlan, venue: Venue) -> Path:
    """Make the folder of a new sweep."""
    folder = run.new_folder(plan.first.runs, plan.first.experiment, "-sweep")
    if (folder / run.SWEEP).exists():
        raise BadInput(f"{folder} has a sweep already: `{venue.program} resume={folder}` goes on with it")
    _write(folder, plan)
    environment = json.dumps(run.environment(datetime.now(UTC)), indent=2)
    storage.write_text(folder / "environment.json", f"{environment}\n")
    return folder


def _write(folder: Path, plan: SweepPlan) -> None:
    config = plan.first
    facts = {
        "words": plan.words,
        "where": str(plan.where),
        "sweep": asdict(config.sweep),
        "seed": config.seed,
        "monitor": config.trainer.monitor,
    }
    storage.write_text(folder / run.SWEEP, OmegaConf.to_yaml(OmegaConf.create(facts)))


def _continued(words: Sequence[str]) -> tuple[Path, SweepPlan]:
    """Find the sweep to go on with; its words are changed only in how to sweep."""
    given = {_key(word): word for word in words}
    for key, word in given.items():
        if key not in ("resume", "runs") and not key.startswith("sweep."):
            raise BadInput(
                f"{word}: a sweep goes on with its own words: only sweep.… can be given with resume"
            )
    folder = _find(_value(given["resume"]), _value(given.get("runs", "runs=runs")))
    saved = OmegaConf.load(folder / run.SWEEP)
    assert isinstance(saved, DictConfig)
    where = Path(saved.where)
    if not where.is_dir():
        raise BadInput(f"{folder} was begun in {where}, which is not there any more")
    changed = [word for key, word in given.items() if key.startswith("sweep.")]
    kept = [word for word in saved.words if _key(word) not in given]
    plan = planned([*kept, *changed], where)
    return folder, plan


def _find(name: str, runs: str) -> Path:
    """The folder of a sweep: that of the ``latest`` run, a path, or a path below ``runs``."""
    top = storage.folder(runs)
    folders = [storage.folder(name), top / name]
    if name == "latest":
        folders = [(top / "latest").resolve().parent]
    for folder in folders:
        if (folder / run.SWEEP).exists():
            return folder
    raise BadInput(
        f"{name} is no sweep: there is no {run.SWEEP} in {folders[0]}; without -m resume takes a run"
    )


def _carry_out(folder: Path, plan: SweepPlan, venue: Venue) -> None:
    """Run the trials that are left, and tell how all of them rank."""
    from bincount.ranking import Ranking
    from bincount.study import Goal, Study
    from bincount.training.signals import Signals

    config = plan.first
    goal = Goal(MONITORED[config.trainer.monitor], WATCHED[config.trainer.monitor])
    with Signals() as signals:
        study = Study(folder.resolve() / "study.log", plan.space, config.sweep, config.seed, goal)
        with contextlib.closing(study):
            _write(folder, plan)  # it may have other settings now
            ranking = Ranking(folder, plan.space, study, goal)
            if study.over:
                more = "" if isinstance(config.sweep, RandomSweep) else ": each combination was tried"
                log.info("the sweep is finished with %d trials%s", study.total, more)
            else:
                with contextlib.chdir(plan.where):
                    venue.check(plan)
                settings = config.sweep
                told = "%d trials in all (sweep=%s), %d at a time"
                log.info(told, study.total, settings.name, settings.jobs)
                if not _search(study, venue.runner(folder, plan), ranking, signals):
                    assert signals.received is not None
                    raise Stopped(signals.received, f": `{venue.program} resume={folder}` goes on")
            ranking.tell()


def _here(folder: Path, plan: SweepPlan) -> "Here":
    """What runs the trials on this machine."""
    from bincount.trials import Here

    return Here(folder, lambda trial: _command(plan, folder, trial), _slots(plan.configs), plan.where)


def _search(study: "Study", here: "Runner", ranking: "Ranking", signals: "Signals") -> bool:
    """Run trials until none is left to try; False where a signal ended it, once all have saved themselves."""
    waiting = study.begun()
    here.settle(waiting)
    with signals.noted():
        try:
            while signals.received is None:
                while here.free and (trial := waiting.pop(0) if waiting else study.next()):
                    here.start(trial)
                if not here.running:
                    return True
                time.sleep(LOOK)
                for ended in here.ended():
                    if ended.stopped:
                        _wait_for_our_own(signals)
                    ranking.note(ended, stopping=signals.received is not None)
            for ended in here.stop(signals.received):
                ranking.note(ended, stopping=True)
            return False
        finally:
            here.kill()


def _wait_for_our_own(signals: "Signals") -> None:
    """Wait for the signal that ended a trial to reach us, too, as one to all processes does."""
    until = time.monotonic() + REACHED
    while signals.received is None and time.monotonic() < until:
        time.sleep(LOOK)


def _command(plan: SweepPlan, folder: Path, trial: "Trial") -> list[str]:
    """What trains one trial, or goes on with it where it has begun: the sweep's words, and what all have."""
    command = [sys.executable, "-m", "bincount", "train"]
    whole = folder.resolve()
    own = {"runs": str(whole.parents[1]), "trainer.evaluate": "val"}
    if (whole / trial.name / "config.yaml").exists():
        return [*command, f"resume={whole / trial.name}", f"runs={own['runs']}"]
    if copy := plan.first.trainer.checkpoint_copy:
        own["trainer.checkpoint_copy"] = f"{copy.rstrip('/')}/{folder.name}"
    kept = [
        word
        for word in plan.space.words(trial.values)
        if _key(word) not in own and _key(word).partition(".")[0] != "sweep"
    ]
    return [*command, *kept, *(f"{key}={value}" for key, value in own.items())]


def _slots(configs: Sequence[TrainConfig]) -> list[dict[str, str]]:
    """The share of the machine that each of the trials at the same time has. Raises BadInput."""
    from bincount import trials

    jobs, devices = configs[0].sweep.jobs, max(config.launcher.devices for config in configs)
    if all(config.launcher.accelerator == "cpu" for config in configs):
        return trials.slots(jobs, devices, None)
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    gpus = visible.split(",") if visible else [str(n) for n in range(torch.cuda.device_count())]
    if jobs * devices > len(gpus):
        raise BadInput(
            f"sweep.jobs={jobs}: a trial takes {devices} GPUs (launcher.devices), and there are {len(gpus)}"
        )
    return trials.slots(jobs, devices, gpus)


def _key(word: str) -> str:
    return word.partition("=")[0]


def _value(word: str) -> str:
    return word.partition("=")[2]
