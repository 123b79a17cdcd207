"""Ids of photos: strings, never cast or padded. `1` and `00001` are different photos."""

import re

ID_BYTES = 95
"""The longest id in UTF-8, so that `ID.json` fits the 100 bytes of a plain tar header."""

_ABID = re.compile(r"[1-9][0-9]{5,}|[0-9]{5}")
_UNPADDED = re.compile(r"0|[1-9][0-9]{0,3}")


def id_problem(id: str) -> str | None:
    """Say why `id` cannot name a photo, or None where it can.

    The one rule for photo file names (without extension), record names and labels. The reason is short and
    lower-case, to stand in `skipped.csv`.
    """
    if not id:
        return "the id is empty"
    if "." in id:
        return "the id has a dot, which ends a WebDataset key"
    if "/" in id or "\\" in id:
        return "the id has a slash"
    # isprintable() is false for control characters, any whitespace but the space, and invalid UTF-8.
    if " " in id or not id.isprintable():
        return "the id has whitespace or an unprintable character"
    if len(id.encode()) > ID_BYTES:
        return f"the id is longer than {ID_BYTES} bytes"
    return None


def id_series(id: str) -> int:
    """Tell in which series of photos `id` stands.

    0: numbered as ABID does (`f"{n:05d}"`); 1: numbers below 10,000 without padding, which ABID uses for
    other photos; 2: any other name.
    """
    if _ABID.fullmatch(id):
        return 0
    return 1 if _UNPADDED.fullmatch(id) else 2


def id_order(id: str) -> tuple[int, str, str]:
    """Give the sort key of id order: by series, and within one by number (`bin2` before `bin10`)."""
    return id_series(id), re.sub("[0-9]+", _sortable, id), id


def _sortable(digits: re.Match[str]) -> str:
    """Write a number so that strings sort as numbers: its length goes before it."""
    number = digits[0].lstrip("0")
    return f"{len(number):02d}{number}"
