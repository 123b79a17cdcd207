"""What the figures of a run say of its training: a finding for each of the usual faults.

The faults are those that SageMaker Debugger's rules looked for. Here they are judged from metrics.csv alone,
whose columns `bincount.training.health` and `bincount.model.module` explain.
"""

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from bincount.config import WATCHED

#: A row of metrics.csv: what was not logged at its step is empty, or missing.
Row = Mapping[str, str]

#: Rows of training (each tenth step) below which its losses and times are too few to judge.
FEW_ROWS = 10

#: Validations, and figures of gradients or waiting, below which nothing can be said of them.
FEW = 3

#: Of what the loss was in the first third of the rows, it must have lost so much in the last third. Debugger
#: wants 0.1 % within ten steps, which the noise of single batches gives by itself.
LEAST_FALL = 0.01

#: Above so much of the loss of equal probabilities nothing was learnt: on ABID, to know nothing but how often
#: each count comes gives 0.91 of it.
LEARNT = 0.97

#: The validation loss may end so much above its least. Debugger takes 0.1, too.
RISE = 0.1

#: The validation loss may be so many times the training loss, where it gets no better any more.
APART = 1.5

#: Epochs at the end in which nothing got better: so many, and such a share of all. Debugger's patience is 5.
LAST_EPOCHS, LAST_SHARE = 5, 0.25

#: The share of layers without a gradient to speak of, and how far the first layer's may be below the last's.
#: With a root mean square of a hundredth it still learns, if slower; Adam makes up for far more.
VANISHED_LAYERS, FIRST_TO_LAST = 0.1, 1e-3

#: Below this loss the photos are learnt by heart, and gradients are small because nothing is left to learn.
BY_HEART = 0.05

#: How many times the median gradient a gradient, and how many times the first loss a loss may be.
TIMES_MEDIAN, TIMES_START = 100.0, 3.0

#: How much of a layer's size a step changes where the learning rate is about right; a thousandth is usual.
UPDATES = (1e-5, 0.05)

#: The share of rows whose gradient may be infinite: with fp16 a step now and then is left out for it.
INFINITE = 0.05

#: The loss of the first batch may be so many times that of equal probabilities; new heads give 1 to 1.2.
TIMES_FIRST = 2.0

#: The outputs of the first batch's photos must differ so much; those of ResNets do by 0.25.
LEAST_SPREAD = 1e-3

#: The share of the time in which training may wait for photos.
WAITED = 0.2

#: How many times the median step the mean of ten steps may take, and in which share of the rows more.
SLOW, SLOW_SHARE = 3.0, 0.05

OK, LOOK, UNKNOWN = "ok", "look", "unknown"


@dataclass(frozen=True)
class Finding:
    """What was found of one fault: ``verdict`` is ok, look or unknown.

    ``told``: a sentence with the figures behind it, and what to do where it is look.
    """

    name: str
    verdict: str
    told: str


def findings(folder: Path) -> list[Finding]:
    """The findings of the run in ``folder``, one a rule; all unknown where nothing was logged yet."""
    try:
        with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        rows = []
    return judge(rows)


def judge(rows: Sequence[Row]) -> list[Finding]:
    """The findings on these rows of metrics.csv, one a rule."""
    return [Finding(name, *rule(rows)) for name, rule in RULES.items()]


# --- the rules: each gives a verdict, and what is told of it ------------------------------------------

Judged = tuple[str, str]


def loss_not_decreasing(rows: Sequence[Row]) -> Judged:
    """Whether the training loss fell, and below what equal probabilities give."""
    losses = _values(rows, "train/loss")
    if len(losses) < FEW_ROWS:
        return _too_few(len(losses), "training losses")
    if bad := [step for step, loss in _points(rows, "train/loss") if not math.isfinite(loss)]:
        return LOOK, f"The training loss was no number from step {bad[0]} on: lower optimizer.lr."
    third = len(losses) // 3
    first, last = fmean(losses[:third]), fmean(losses[-third:])
    told = f"The training loss was {first:.3g} in the first third of training and {last:.3g} in the last"
    if last > (1 - LEAST_FALL) * first:
        return LOOK, f"{told}: {_rate(rows)}; or look at the photos and labels."
    clueless = _values(rows, "init/clueless")
    if clueless and last > LEARNT * clueless[0]:
        even = f"{clueless[0]:.3g} is what equal probabilities give"
        return LOOK, f"{told}, and {even}, so nothing was learnt: {_rate(rows)}."
    return OK, f"{told}."


def overfitting(rows: Sequence[Row]) -> Judged:
    """Whether the validation loss rose, or stayed far above the training loss, while that fell."""
    epochs = _epochs(rows)
    if len(epochs) < FEW:
        return _too_few(len(epochs), "epochs with losses of training and validation")
    best, last = min(epochs, key=lambda each: each.val), epochs[-1]
    told = (
        f"The validation loss was least after epoch {best.number} of {last.number}, {best.val:.3g}, and is "
        f"{last.val:.3g} at the end, where the training loss is {last.train:.3g}"
    )
    risen = last.val > (1 + RISE) * best.val and last.train < best.train
    apart = last.val > APART * last.train and best is not last
    if risen or apart:
        do = "more data.augment, a higher optimizer.weight_decay, more photos, or fewer epochs"
        return LOOK, f"{told}: {do}; best.ckpt has the epoch with the best trainer.monitor."
    return OK, f"{told}."


def overtraining(rows: Sequence[Row]) -> Judged:
    """Whether the last epochs brought nothing better in any figure of validation."""
    curves = {name: _values(rows, name) for name in WATCHED}
    epochs = len(curves["val/loss"])
    if epochs < FEW:
        return _too_few(epochs, "validations")
    best = max(_best(curve, WATCHED[name]) for name, curve in curves.items() if curve) + 1
    told = f"The last epoch of {epochs} in which a figure of validation got better was epoch {best}"
    if epochs - best >= max(LAST_EPOCHS, LAST_SHARE * epochs):
        return LOOK, f"{told}: the {epochs - best} after it were for nothing: set trainer.stop_after."
    return OK, f"{told}."


def vanishing_gradients(rows: Sequence[Row]) -> Judged:
    """Whether layers get no gradient to speak of while there is something to learn."""
    learning = [row for row in rows if (_number(row, "train/loss") or 0) > BY_HEART]
    shares = [each for each in _values(learning, "grad/vanished") if math.isfinite(each)]
    ratios = [
        first / last
        for first, last in zip(_values(learning, "grad/first"), _values(learning, "grad/last"), strict=False)
        if math.isfinite(first) and math.isfinite(last) and last > 0
    ]
    if len(shares) < FEW:
        return _too_few(len(shares), "figures of gradients")
    share, ratio = median(shares), median(ratios) if ratios else 0.0
    told = (
        f"In the median step {share:.0%} of the layers have next to no gradient, and the first layer's is "
        f"{ratio:.2g} times the last's"
    )
    if share > VANISHED_LAYERS or ratio < FIRST_TO_LAST:
        do = "a network with normalisation or shortcuts, pre-trained model.weights, or another optimizer.lr"
        return LOOK, f"{told}, so these hardly learn: try {do}."
    return OK, f"{told}."


def exploding_gradients(rows: Sequence[Row]) -> Judged:
    """Whether gradients or losses grew beyond all measure."""
    points, losses = _points(rows, "grad/norm"), _points(rows, "train/loss")
    norms = [norm for _, norm in points if math.isfinite(norm)]
    do = "lower optimizer.lr, or set trainer.clip_gradient=1"
    if points and len(points) - len(norms) > max(1, INFINITE * len(points)):
        many = f"In {len(points) - len(norms)} of {len(points)} rows the gradient is infinite or no number"
        return LOOK, f"{many}: {do}."
    start = max(
        [*_values(rows, "init/clueless"), *filter(math.isfinite, _values(rows, "init/loss"))], default=0
    )
    if start and (bad := [point for point in losses if not point[1] <= TIMES_START * start]):
        step, loss = bad[0]
        return LOOK, f"The training loss is {loss:.3g} at step {step}, from {start:.3g}: {do}."
    if len(norms) < FEW:
        return _too_few(len(norms), "figures of gradients")
    usual = median(norms)
    step, largest = max(points, key=lambda each: each[1] if math.isfinite(each[1]) else 0)
    told = f"The gradient's norm is {usual:.3g} in the median, and at most {largest:.3g}, at step {step}"
    if largest > TIMES_MEDIAN * usual:
        return LOOK, f"{told}: {do}."
    return OK, f"{told}."


def poor_initialisation(rows: Sequence[Row]) -> Judged:
    """Whether the first batch got loud or equal answers."""
    found = [_values(rows, f"init/{name}") for name in ("loss", "clueless", "spread")]
    if not all(found):
        return UNKNOWN, "The run has no figures of its first batch."
    loss, clueless, spread = (each[0] for each in found)
    told = f"The loss of the first batch is {loss:.3g}, and {clueless:.3g} is what equal probabilities give"
    if not loss <= TIMES_FIRST * clueless:
        do = "start with smaller weights in the last layer, or look at model.weights and the photos"
        return LOOK, f"{told}, so the outputs begin too large: {do}."
    differ = f"its outputs differ by {spread:.2g} between photos"
    if spread == 0 and math.isclose(loss, clueless, rel_tol=1e-5):
        return OK, f"{told}; the last layer begins at 0, which is well."
    if not spread >= LEAST_SPREAD:
        return LOOK, f"{told}; {differ}, so these do not come through: look at the model's layers."
    return OK, f"{told}; {differ}."


def waiting_for_data(rows: Sequence[Row]) -> Judged:
    """Whether the accelerator was idle for want of photos."""
    times, waited = _values(rows, "time/step")[1:], _values(rows, "time/waited")[1:]  # the first starts up
    if len(times) < FEW or len(waited) != len(times):
        return _too_few(len(times), "figures of time")
    share = sum(waited) / max(sum(times), 1e-9)
    told = f"Steps take {fmean(times):.2g} s, and {share:.0%} of that is waiting for photos"
    if share > WAITED:
        do = "more data.workers, a data.cache for shards in S3, or a data set prepared with smaller photos"
        return LOOK, f"{told}, while the accelerator is idle: {do}."
    return OK, f"{told}."


def step_time_outliers(rows: Sequence[Row]) -> Judged:
    """Whether some steps took far longer than the others."""
    points = [
        (step, seconds, _number(row, "time/waited") or 0.0)
        for row in rows
        if (seconds := _number(row, "time/step")) is not None and (step := _step(row)) is not None
    ][1:]
    if len(points) < FEW_ROWS:
        return _too_few(len(points), "figures of time")
    usual = median(seconds for _, seconds, _ in points)
    slow = [point for point in points if point[1] > SLOW * usual]
    step, seconds, waited = max(points, key=lambda point: point[1])
    told = (
        f"Steps take {usual:.2g} s in the median; {len(slow)} of {len(points)} rows are above {SLOW:g} times "
        f"that, and the slowest ten steps, up to step {step}, took {seconds:.2g} s each"
    )
    if len(slow) > max(1, SLOW_SHARE * len(points)):
        cause = "waiting for photos" if waited > seconds / 2 else "in the step itself"
        return LOOK, f"{told}, mostly {cause}: look what else runs there; trainer.profiler=simple tells more."
    return OK, f"{told}."


RULES: dict[str, Callable[[Sequence[Row]], Judged]] = {
    "loss not decreasing": loss_not_decreasing,
    "overfitting": overfitting,
    "overtraining": overtraining,
    "vanishing gradients": vanishing_gradients,
    "exploding gradients": exploding_gradients,
    "poor initialisation": poor_initialisation,
    "waiting for data": waiting_for_data,
    "step-time outliers": step_time_outliers,
}


# --- figures of rows ----------------------------------------------------------------------------------


def _number(row: Row, name: str) -> float | None:
    try:
        return float(row.get(name) or "")
    except ValueError:
        return None


def _step(row: Row) -> int | None:
    step = _number(row, "step")
    return None if step is None or not math.isfinite(step) else int(step)


def _values(rows: Sequence[Row], name: str) -> list[float]:
    return [value for row in rows if (value := _number(row, name)) is not None]


def _points(rows: Sequence[Row], name: str) -> list[tuple[int, float]]:
    return [
        (step, value)
        for row in rows
        if (step := _step(row)) is not None and (value := _number(row, name)) is not None
    ]


@dataclass(frozen=True)
class _Epoch:
    """An epoch, counted from 1: the mean of its training losses, and its validation loss."""

    number: int
    train: float
    val: float


def _epochs(rows: Sequence[Row]) -> list[_Epoch]:
    """The epochs of which both losses are known, and are numbers."""
    train: dict[float, list[float]] = {}
    val: dict[float, float] = {}
    for row in rows:
        epoch, loss, validated = (_number(row, name) for name in ("epoch", "train/loss", "val/loss"))
        if epoch is not None and loss is not None and math.isfinite(loss):
            train.setdefault(epoch, []).append(loss)
        if epoch is not None and validated is not None and math.isfinite(validated):
            val[epoch] = validated
    return [_Epoch(int(epoch) + 1, fmean(train[epoch]), val[epoch]) for epoch in sorted(train.keys() & val)]


def _best(curve: Sequence[float], mode: str) -> int:
    """The first place of the best value; 0 where there is no number."""
    sign = 1 if mode == "max" else -1
    return max(range(len(curve)), key=lambda n: -math.inf if math.isnan(curve[n]) else sign * curve[n])


def _rate(rows: Sequence[Row]) -> str:
    """What to do about the learning rate, going by how much the median step changed the last layer."""
    updates = [each for each in _values(rows, "update/last") if math.isfinite(each)]
    update = median(updates) if updates else math.nan
    told = f"optimizer.lr, since a step changes the last layer by {update:.2g} of its size"
    if update > UPDATES[1]:
        return f"lower {told}"
    return f"raise {told}" if update < UPDATES[0] else "try another optimizer.lr"


def _too_few(number: int, what: str) -> Judged:
    return UNKNOWN, f"There are too few {what} to say: {number}."
