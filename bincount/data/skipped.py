"""What was left out, and why: the rows of `skipped.csv`."""

import csv
import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from bincount import storage


class Skipped(NamedTuple):
    """One photo, record or label that was not used."""

    id: str
    """The id as it was found, which may be unusable or empty."""
    file: str
    """Where it was found, for example `labels.csv:17`."""
    reason: str
    """Short and lower-case, for example `count is -1, not 0 or more`."""


def write_skipped(rows: Iterable[Skipped], path: Path) -> None:
    """Write `rows`, in their order, as the CSV `id,file,reason`; with no rows, only the header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Skipped._fields)
    writer.writerows(rows)
    storage.write_text(path, text.getvalue())


def common_reasons(rows: Iterable[Skipped]) -> str:
    """The three commonest reasons, without the detail behind their colon, to end an error with."""
    common = Counter(row.reason.partition(":")[0] for row in rows).most_common(3)
    return ": " + "; ".join(f"{reason} ({number:,})" for reason, number in common) if common else ""
