"""The course of a training: which epoch a global step lies in, and what of that epoch was done before it.

A run can be resumed with other ranks, workers or batches. An epoch is then done in *parts*, each in a layout
of its own: (layout, steps), in turn. Every part takes photos that the parts before it left.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from bincount.data.plan import Layout
from bincount.errors import BadInput

Part = tuple[Layout, int]

#: Settings that an epoch's plan rests on: within an epoch they stay as they are.
KEPT = ("seed", "data.fraction", "data.balance", "data.span", "data.window")


class Place(NamedTuple):
    """An epoch and what is done of it; of an epoch that only begins there are no parts."""

    epoch: int
    parts: tuple[Part, ...] = ()

    @property
    def steps(self) -> int:
        """Steps that are done of the epoch."""
        return sum(steps for _, steps in self.parts)


#: Where a new run begins.
START = Place(0)


@dataclass(frozen=True)
class Course:
    """A training of epochs over ``rows`` photos that begins, or goes on, in ``layout`` after ``step`` steps.

    ``start`` is the place it begins at. ``scheduled`` is the place in the learning rate's schedule, in steps
    of this layout: of a run that was never in another layout it is the global step.
    """

    rows: int
    layout: Layout
    step: int = 0
    start: Place = START
    scheduled: int = 0

    @property
    def steps(self) -> int:
        """Steps of an epoch that is done in this layout alone."""
        return self.rows // self.layout.global_batch

    @property
    def earlier(self) -> tuple[Part, ...]:
        """The parts of the epoch it begins in that were done in other layouts."""
        return self.start.parts[:-1] if self._goes_on else self.start.parts

    def steps_of(self, epoch: int) -> int:
        """Steps of an epoch, with those that were done in other layouts."""
        if epoch != self.start.epoch:
            return self.steps
        return sum(steps for _, steps in self.earlier) + self._rest

    def at(self, step: int, ended: bool = True) -> Place:
        """The place after ``step`` global steps.

        ``ended``: after an epoch's last step comes the next one's start. Otherwise this is still the end of
        the epoch, which is to be validated.
        """
        done = self._own + step - self.step
        if done < self._rest or (done == self._rest and not ended):
            return Place(self.start.epoch, (*self.earlier, *self._part(done)))
        epochs, done = divmod(done - self._rest, self.steps)
        if done == 0 and epochs > 0 and not ended:
            return Place(self.start.epoch + epochs, self._part(self.steps))
        return Place(self.start.epoch + 1 + epochs, self._part(done))

    def steps_done(self, place: Place) -> int:
        """Steps of the place's epoch that are done in this layout."""
        return place.steps - (sum(n for _, n in self.earlier) if place.epoch == self.start.epoch else 0)

    def schedule(self, max_epochs: int, max_steps: int | None) -> tuple[int, int]:
        """Steps of an epoch, and of the whole way of the learning rate's schedule, in this layout."""
        left = self.steps_of(self.start.epoch) - self.start.steps
        left += (max_epochs - self.start.epoch - 1) * self.steps
        if max_steps is not None:
            left = min(left, max_steps - self.step)
        return self.steps, self.scheduled + max(left, 0)

    def state(self, step: int, ended: bool) -> dict[str, Any]:
        """What :func:`resumed` needs to go on after ``step``, as plain values."""
        place = self.at(step, ended)
        return {
            "epoch": place.epoch,
            "parts": [[*_plain(layout), steps] for layout, steps in place.parts],
            "layout": _plain(self.layout),
            "rows": self.rows,
            "step": step,
            "scheduled": self.scheduled + step - self.step,
        }

    @property
    def _goes_on(self) -> bool:
        """Whether the last part of the epoch was in this layout, and is only continued."""
        return bool(self.start.parts) and _alike(self.start.parts[-1][0], self.layout)

    @property
    def _own(self) -> int:
        return self.start.parts[-1][1] if self._goes_on else 0

    @property
    def _rest(self) -> int:
        """Steps of the first epoch in this layout."""
        seen = sum(layout.global_batch * steps for layout, steps in self.earlier)
        return (self.rows - seen) // self.layout.global_batch

    def _part(self, steps: int) -> tuple[Part, ...]:
        return ((self.layout, steps),) if steps else ()


def resumed(state: Mapping[str, Any], rows: int, layout: Layout) -> Course:
    """The course that goes on where :meth:`Course.state` was taken, perhaps in another layout."""
    before = state["rows"] // Layout(*state["layout"]).global_batch
    now = rows // layout.global_batch
    parts = tuple((Layout(*part[:3]), part[3]) for part in state["parts"])
    scheduled = state["scheduled"] if now == before else round(state["scheduled"] * now / before)
    return Course(rows, layout, state["step"], Place(state["epoch"], parts), scheduled)


def check_kept(state: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise BadInput where a setting of KEPT was changed since ``state`` was taken within an epoch."""
    if not state["parts"]:
        return
    for key in KEPT:
        if state["settings"][key] != settings[key]:
            raise BadInput(
                f"{key}={settings[key]}: the run stopped within epoch {state['epoch'] + 1}, which began with "
                f"{key}={state['settings'][key]}: finish the epoch with that"
            )


def _plain(layout: Layout) -> list[int]:
    return [layout.world_size, layout.workers, layout.batch_size]


def _alike(one: Layout, other: Layout) -> bool:
    """Whether both make the same plan: a rank without a worker reads like one worker."""
    return (one.world_size, one.lanes, one.batch_size) == (other.world_size, other.lanes, other.batch_size)
