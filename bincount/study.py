"""What to try next, and what came of what was tried: a sweep's study.log, which is a journal of Optuna.

Nothing here knows how a trial is run.
"""

import fcntl
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import IO, Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from bincount.config import RandomSweep, Sweep, TPESweep
from bincount.errors import BadInput
from bincount.space import Choice, Combination, Interval, Parameter, Space

optuna.logging.set_verbosity(optuna.logging.WARNING)

#: The study's name in its journal.
NAME = "sweep"

#: The figures of a trial that are kept, as results.json names them.
FIGURES = ("accuracy", "rmse", "mae", "nll")


@dataclass(frozen=True)
class Goal:
    """The figure that trials are ranked by, and whether the ``max`` or the ``min`` of it is best."""

    figure: str
    best: str


class State(Enum):
    """How far a trial has come."""

    BEGUN = "unfinished"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Trial:
    """One combination, and what came of it. ``reason``: why it failed."""

    number: int
    values: Combination
    state: State = State.BEGUN
    figures: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    reason: str = ""

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.number:03d}"


class Study:
    """The trials of a sweep, in the file ``path``, which no other process may use meanwhile.

    A trial's number alone decides what is drawn for it, beside the results so far: a study that is stopped
    and continued goes on as if it had never been stopped.
    """

    def __init__(self, path: Path, space: Space, settings: Sweep, seed: int, goal: Goal):
        self._space, self._settings, self._seed, self._goal = space, settings, seed, goal
        self._grid = None if isinstance(settings, RandomSweep) else space.grid()
        self._file = _alone(path)
        self._storage = JournalStorage(JournalFileBackend(str(path)))
        self._study = optuna.create_study(
            study_name=NAME,
            storage=self._storage,
            direction="maximize" if goal.best == "max" else "minimize",
            load_if_exists=True,
        )
        self._id = self._storage.get_study_id_from_name(NAME)

    @property
    def total(self) -> int:
        """How many trials there will be."""
        if isinstance(self._settings, RandomSweep):
            return self._settings.trials
        return len(self._grid or ())

    @property
    def over(self) -> bool:
        """Whether all trials have ended."""
        trials = self._study.get_trials(deepcopy=False)
        return len(trials) >= self.total and all(each.state.is_finished() for each in trials)

    def next(self) -> Trial | None:
        """Begin the next trial; None where all have begun."""
        number = len(self._study.get_trials(deepcopy=False))
        if number >= self.total:
            return None
        self._study.sampler = self._sampler(number)
        return Trial(number, self._draw(self._study.ask()))

    def begun(self) -> list[Trial]:
        """The trials that have begun, and not ended."""
        found = []
        for each in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            # Who was killed while a trial began may not have drawn all of its values.
            self._study.sampler = self._sampler(each.number)
            values = self._draw(optuna.trial.Trial(self._study, self._id_of(each.number)))
            found.append(Trial(each.number, values, seconds=each.user_attrs.get("seconds", 0.0)))
        return found

    def interrupted(self, trial: Trial, seconds: float) -> None:
        """Note how long it took until now of a trial that will go on."""
        self._note(trial, seconds=seconds)

    def done(self, trial: Trial, figures: Mapping[str, float], seconds: float) -> None:
        """Note what a trial gave."""
        kept = {figure: float(figures[figure]) for figure in FIGURES}
        self._note(trial, figures=kept, seconds=seconds)
        self._study.tell(trial.number, kept[self._goal.figure])

    def failed(self, trial: Trial, reason: str, seconds: float) -> None:
        """Note why a trial failed."""
        self._note(trial, reason=reason, seconds=seconds)
        self._study.tell(trial.number, state=TrialState.FAIL)

    def ranked(self) -> list[Trial]:
        """All trials: the best first, those that failed or are not done last."""
        trials = [self._trial(each) for each in self._study.get_trials(deepcopy=False)]
        sign = -1 if self._goal.best == "max" else 1

        def rank(trial: Trial) -> tuple[bool, float, int]:
            done = trial.state is State.DONE
            return not done, sign * trial.figures[self._goal.figure] if done else 0.0, trial.number

        return sorted(trials, key=rank)

    def best(self) -> Trial | None:
        """The best trial so far."""
        return next((each for each in self.ranked() if each.state is State.DONE), None)

    def close(self) -> None:
        """Let others use the file."""
        self._file.close()

    def _trial(self, kept: FrozenTrial) -> Trial:
        states = {TrialState.COMPLETE: State.DONE, TrialState.FAIL: State.FAILED}
        drawn = {each.key: each for each in self._space.parameters if each.key in kept.params}
        values = {key: _text(parameter, kept.params[key]) for key, parameter in drawn.items()}
        return Trial(kept.number, values, states.get(kept.state, State.BEGUN), **kept.user_attrs)

    def _draw(self, trial: optuna.trial.Trial) -> Combination:
        return {each.key: _text(each, _suggested(trial, each)) for each in self._space.parameters}

    def _sampler(self, number: int) -> BaseSampler:
        if self._grid is not None:
            return InTurn(self._grid)
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        if isinstance(self._settings, TPESweep):
            return TPESampler(n_startup_trials=self._settings.startup, seed=seed)
        return RandomSampler(seed=seed)

    def _note(self, trial: Trial, **facts: Any) -> None:
        for name, fact in facts.items():
            self._storage.set_trial_user_attr(self._id_of(trial.number), name, fact)

    def _id_of(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)


class InTurn(BaseSampler):
    """Gives each trial the combination of its number.

    Optuna's own GridSampler shuffles them, and stops the study itself, which asking and telling cannot have.
    """

    def __init__(self, grid: list[Combination]):
        self._grid = grid

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        text = self._grid[trial.number][param_name]
        return text if isinstance(param_distribution, CategoricalDistribution) else float(text)


def _suggested(trial: optuna.trial.Trial, parameter: Parameter) -> str | float:
    key = parameter.key
    if isinstance(parameter, Choice):
        return trial.suggest_categorical(key, parameter.texts)
    low, high = parameter.low, parameter.high
    if isinstance(parameter, Interval):
        if isinstance(low, int) and isinstance(high, int):
            return trial.suggest_int(key, low, high, log=parameter.log)
        return trial.suggest_float(key, low, high, log=parameter.log)
    if isinstance(low, int) and isinstance(high, int) and isinstance(parameter.step, int):
        return trial.suggest_int(key, low, high, step=parameter.step)
    return trial.suggest_float(key, low, high, step=parameter.step)


def _text(parameter: Parameter, value: Any) -> str:
    return str(value) if isinstance(parameter, Choice) else parameter.text(value)


def _alone(path: Path) -> IO[bytes]:
    """Open the journal for this process alone, and put right what a killed one left. Raises BadInput."""
    file = path.open("a+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise BadInput(f"{path.parent}: this sweep is running already") from None
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)  # Optuna's own
    file.seek(0)
    # Optuna would append to a line that was cut off, and then read neither.
    whole = file.read().rpartition(b"\n")
    if whole[2]:
        os.truncate(path, len(whole[0]) + len(whole[1]))
    return file
