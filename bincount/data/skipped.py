"""What was left out, and why: the rows of `skipped.csv`."""

import csv
import io
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple


class Skipped(NamedTuple):
    """One photo, record or label that was not used."""

    id: str
    """The id as it was found, which may be unusable or empty."""
    file: str
    """Where it was found, for example `labels.csv:17`."""
    reason: str
    """Short and lower-case, for example `count is -1, not 0 or more`."""


def as_csv(rows: Iterable[Skipped]) -> bytes:
    """The rows, in their order, as the CSV `id,file,reason`; with no rows, only the header.

    What is no Unicode, as a file name may be, is escaped, and so is a carriage return, which not every Python
    quotes.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Skipped._fields)
    writer.writerows([cell.replace("\r", "\\r") for cell in row] for row in rows)
    return text.getvalue().encode("utf-8", errors="backslashreplace")


def from_csv(content: bytes) -> list[Skipped]:
    """The rows of :func:`as_csv`."""
    rows = csv.reader(io.StringIO(content.decode(), newline=""))
    next(rows)
    return [Skipped(*row) for row in rows]


def common_reasons(rows: Iterable[Skipped]) -> str:
    """The three commonest reasons, without the detail behind their colon, to end an error with."""
    common = Counter(row.reason.partition(":")[0] for row in rows).most_common(3)
    return ": " + "; ".join(f"{reason} ({number:,})" for reason, number in common) if common else ""
