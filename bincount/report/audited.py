"""How well an audit finds wrong records, where errors were planted: evaluation/<split>/audit.json."""

import json
from pathlib import Path

from bincount.comparison import number, percent
from bincount.page import heading, line, picture, table
from bincount.report.scored import Scored

#: What `bincount audit planted.times=N` leaves in an evaluation's folder.
FIGURES, PICTURE = "audit.json", "audit.png"


def sections(scored: Scored) -> list[str]:
    """The planted errors that were found, in words, drawn, and as a table; nothing without any."""
    path = scored.folder / FIGURES
    if not path.exists():
        return []
    found = json.loads(path.read_bytes())
    kinds, orders = found["kinds"], found["orders"]
    first, last = found["first"], kinds[-1]
    precision = {order: percent(last["orders"][order]["precision"]) for order in orders}
    told = (
        f"{last['wrong']:,} of {last['bins']:,} records were made wrong ({percent(found['rate'])}), "
        f"{last['times']:,} times for each kind of error. With errors of any kind, of the first {first} bins "
        f"that `bincount audit` names {precision['audit']} were wrong; of those whose record differs most "
        f"from the count told {precision['differs']}, and {precision['random']} of as many at random."
    )
    head = ["errors planted", *(f"first {first}: {words}" for words in orders.values())]
    head += [f"average precision: {words}" for words in orders.values()]
    rows = []
    for kind in kinds:
        of = [kind["orders"][order] for order in orders]
        cells = [_spread(each["precision"], each["precision_spread"]) for each in of]
        cells += [_spread(each["average_precision"], each["average_precision_spread"]) for each in of]
        rows.append(("", found["words"][kind["kind"]], *cells))
    caption = f"Planted errors found: mean and standard deviation over {last['times']:,} plantings"
    return [
        heading(3, f"{scored.title}: finding wrong records"),
        line(told),
        picture(scored.folder / PICTURE, "Average precision by the kind of the errors, as in the table"),
        table(head, rows, caption),
    ]


def forget(folder: Path) -> None:
    """Remove what was found with predictions that are no more."""
    for name in (FIGURES, PICTURE):
        (folder / name).unlink(missing_ok=True)


def _spread(mean: float, spread: float) -> str:
    return f"{number(mean)} ± {number(spread)}"
