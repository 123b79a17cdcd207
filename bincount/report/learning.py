"""How a run learnt: its curves, the figures behind them, and whether the training was healthy."""

import csv
from pathlib import Path
from typing import Any

from bincount import health, pictures, run
from bincount.comparison import number, percent
from bincount.config import WATCHED
from bincount.page import folded, heading, line, picture, table

COLLAGES, LEARNING, HEALTH = "Learning from collages first", "Learning", "Training health"

#: What is shown of each epoch.
SHOWN = ("val/loss", "val/accuracy", "val/rmse", "val/mae")

#: How a verdict of bincount.health is told.
VERDICTS = {"ok": "✓ ok", "look": "✗ look here", "unknown": "not known"}


def sections(folder: Path, monitor: str) -> list[str]:
    """Curves and health of the run in ``folder``, whose best epoch is that with the best ``monitor``."""
    drawn = folder / "evaluation"
    drawn.mkdir(exist_ok=True)
    parts = []
    if before := _curves(folder / run.PRETRAINING, drawn / "collages.png", monitor):
        told = (
            "The run counted collages before the photos: bins put together from items that were cut out of "
            "training photos (pretrain.epochs). The figures are of collages that it did not learn from. The "
            "weights of its last epoch went on to the photos."
        )
        parts += [heading(2, COLLAGES), line(told), *before]
    if then := _curves(folder, drawn / "curves.png", monitor):
        told = f"What is evaluated are the weights of the epoch with the best {monitor}."
        parts += [heading(2, LEARNING), line(told), *then]
    return [*parts, *_health(folder)]


def epochs(folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv that tell of a validation; none where there is no such file."""
    return [row for row in _rows(folder) if row.get("val/loss")]


def best_epoch(validated: list[dict[str, str]], monitor: str) -> dict[str, str] | None:
    """The row with the best ``monitor``, the first of equals."""
    having = [row for row in validated if row.get(monitor)]
    sign = 1 if WATCHED.get(monitor) == "min" else -1
    return min(having, key=lambda row: sign * float(row[monitor]), default=None)


def _rows(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metrics.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _curves(folder: Path, drawn: Path, monitor: str) -> list[str]:
    """How the training in ``folder`` went, with the picture ``drawn``; nothing where none is known."""
    if not pictures.curves(drawn, _rows(folder)):
        return []
    validated = epochs(folder)
    best = best_epoch(validated, monitor)
    if best is None:
        return [picture(drawn, "The training loss over the steps.", wide=True)]
    last = validated[-1]
    end = "it was the last" if best is last else f"the last had {number(float(last.get(monitor) or 'nan'))}"
    told = (
        f"Of {len(validated)} epochs, epoch {int(best['epoch']) + 1} had the best {monitor}, "
        f"{number(float(best[monitor]))}, and {end}."
    )
    alternative = (
        "Three line charts over the training steps: loss in training and validation, accuracy and RMSE in "
        f"validation. The validation loss goes from {number(float(validated[0]['val/loss']))} to "
        f"{number(float(last['val/loss']))}. {told}"
    )
    rows = [
        (
            "ours" if row is best else "",
            str(int(row["epoch"]) + 1),
            row["step"],
            *(_shown(name, row.get(name)) for name in SHOWN),
        )
        for row in validated
    ]
    head = ["epoch", "step", *SHOWN]
    behind = table(head, rows, "Validation after each epoch; the best is bold")
    return [
        line(told),
        picture(drawn, alternative, wide=True),
        folded("The figures of each epoch", [behind]),
    ]


def _shown(name: str, value: str | None) -> str:
    if not value:
        return ""
    return percent(float(value)) if name == "val/accuracy" else number(float(value))


def _health(folder: Path) -> list[str]:
    found = health.findings(folder)
    if not found:
        return []
    rows = [(each.verdict, each.name, VERDICTS[each.verdict], each.told) for each in found]
    look = [each.name for each in found if each.verdict == "look"]
    told = f"Worth a look: {', '.join(look)}." if look else "No fault was found."
    return [
        heading(2, HEALTH),
        line(f"The usual faults of a training, each judged from the figures that it logged. {told}"),
        table(["fault", "verdict", "what the figures say"], rows, "Faults looked for", words=True),
    ]
