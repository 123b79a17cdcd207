"""Going on in the middle of a run, so that it ends as if it had never stopped.

The same weights come out, bit for bit: the same photos come in the same batches (bincount.data), each step
draws the same random numbers (:class:`SeedSteps`), and Lightning goes on at the place (:class:`Resuming`).
"""

import random
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch

Counts = dict[str, int]


class Start(NamedTuple):
    """Where a resumed run goes on.

    The epoch, its steps that are done, all its steps, and the place in a schedule that goes by steps.
    """

    epoch: int
    done: int
    steps: int
    scheduled: int


class SeedSteps(L.Callback):
    """Seeds the global random generators before each step from the run's seed, the rank and the step.

    So a checkpoint holds no generators, and a resumed step draws what it would have drawn. It takes less than
    1 ms.
    """

    def __init__(self, seed: int):
        self._seed = seed

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        key = np.random.SeedSequence([self._seed, trainer.global_rank, trainer.global_step])
        number = int(key.generate_state(1, np.uint64)[0])
        random.seed(number)
        np.random.seed(number % 2**32)
        torch.manual_seed(number)


class Resuming(L.Callback):
    """Sets Lightning's counters to where the data says that the run stands.

    Lightning 2.6 guesses from its own counters at which of its hooks a checkpoint was saved. It then leaves
    out a validation, or counts an epoch twice, and knows nothing of epochs that change their length. Here
    they are put to one of three places that it handles well: before an epoch, between two steps, or after
    an epoch's last step and before its validation.

    ``start`` tells it, once the data's part of a checkpoint was loaded.
    """

    def __init__(self, start: Callable[[], Start]):
        self._start = start
        self._resumed: Start | None = None

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._resumed = self._start()
        checkpoint["loops"]["fit_loop"].update(_counters(checkpoint["global_step"], self._resumed))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._resumed is None:
            return
        # Under max_steps Lightning takes every resumed epoch for one that was begun.
        if self._resumed.done == 0:
            trainer.fit_loop.epoch_loop.restarting = False
        for each in trainer.lr_scheduler_configs:
            if each.interval == "step":
                each.scheduler.last_epoch = self._resumed.scheduled


def _counters(step: int, start: Start) -> dict[str, Any]:
    """What differs in the state of Lightning's fit loop between the three places."""
    epoch, done = start.epoch, start.done
    begun = epoch + 1 if done else epoch
    to_validate = 0 < done == start.steps
    started = int(to_validate)  # a validation that was begun: Lightning begins it anew
    return {
        "epoch_progress": _both(_tracked(begun, epoch), _tracked(begun, epoch)),
        "epoch_loop.batch_progress": {
            **_both(_tracked(step, step), _tracked(done, done)),
            "is_last_batch": to_validate,
        },
        "epoch_loop.val_loop.batch_progress": {
            **_both(_tracked(started, 0), _tracked(started, 0)),
            "is_last_batch": False,
        },
        # The step under which figures are logged; a validation's is that of the step before it.
        "epoch_loop.state_dict": {"_batches_that_stepped": step - started},
    }


def _tracked(begun: int, ended: int) -> Counts:
    return {"ready": begun, "started": begun, "processed": ended, "completed": ended}


def _both(total: Counts, current: Counts) -> dict[str, Counts]:
    return {"total": total, "current": current}


def difference(
    then: Mapping[str, Any], now: Mapping[str, Any], before: str = ""
) -> tuple[str, Any, Any] | None:
    """The first key, dotted, that has another value, and both values; None where all are equal."""
    for key in {**then, **now}:
        one, other = then.get(key), now.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            if found := difference(one, other, f"{before}{key}."):
                return found
        elif one != other:
            return f"{before}{key}", one, other
    return None
