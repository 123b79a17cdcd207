"""A run's figures beside what guessing gives on the same photos, and what others published on theirs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table

from bincount.model.published import PUBLISHED

OURS, GUESS, PUBLISHED_ELSEWHERE = "ours", "guess", "published"

#: How a row of each kind is shown on a terminal.
STYLES = {OURS: "bold", GUESS: "", PUBLISHED_ELSEWHERE: "dim"}

#: Columns from which on a terminal has room for every figure.
WIDE = 110


@dataclass(frozen=True)
class Row:
    """One line of the comparison. Shares are 0 to 1, errors in items; None where a figure is not known."""

    kind: str
    name: str
    accuracy: float | None
    rmse: float | None
    mae: float | None = None
    within_one: float | None = None
    count_accuracy: Sequence[float | None] = ()


def rows(results: Mapping[str, dict[str, Any]]) -> list[Row]:
    """The lines for the results of runs, by name, that were evaluated on the same photos."""
    first = next(iter(results.values()))
    found = [_run(name, result) for name, result in results.items()]
    guess = first["baselines"]
    for name, given in (
        ("guessing at random", guess["random"]),
        (f"commonest count, {guess['majority']['count']}", guess["majority"]),
    ):
        found.append(Row(GUESS, name, given["accuracy"], given["rmse"]))
    classes = len(first["names"])
    for each in PUBLISHED:
        per_count = each.count_accuracy[:classes]
        found.append(
            Row(PUBLISHED_ELSEWHERE, f"{each.name} *", each.accuracy, each.rmse, count_accuracy=per_count)
        )
    return found


def table(results: Mapping[str, dict[str, Any]], split: str, width: int) -> Table:
    """The comparison for a terminal of ``width`` columns; a narrow one is shown fewer figures and digits."""
    first, digits = next(iter(results.values())), 1 if width >= WIDE else 0
    shown = Table("", box=box.SIMPLE_HEAD, padding=(0, 1), title_justify="left", caption_justify="left")
    shown.title = f"{split}: {first['samples']:,} photos; on the right the accuracy of each count"
    shown.caption = "* published on other splits of ABID"
    more = ("MAE", "within 1") if digits else ()
    for name in ("accuracy", "RMSE", *more, *first["names"]):
        shown.add_column(name, justify="right", no_wrap=True)
    kind = OURS
    for row in rows(results):
        if row.kind != kind:
            shown.add_section()
            kind = row.kind
        extra = (number(row.mae), percent(row.within_one)) if more else ()
        per_count = (percent(share, digits) for share in row.count_accuracy)
        cells = (row.name, percent(row.accuracy), number(row.rmse), *extra, *per_count)
        shown.add_row(*cells, style=STYLES[kind])
    return shown


def percent(share: float | None, digits: int = 1) -> str:
    """``55.7%``; empty where the share is not known."""
    return "" if share is None else f"{100 * share:.{digits}f}%"


def number(value: float | None) -> str:
    """``0.930``; empty where the value is not known."""
    return "" if value is None else f"{value:.3f}"


def _run(name: str, result: dict[str, Any]) -> Row:
    per_count = [each["accuracy"] for each in result["per_count"]]
    return Row(OURS, name, result["accuracy"], result["rmse"], result["mae"], result["within_one"], per_count)
