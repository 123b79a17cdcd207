"""Label files: the counts that photos are trained on, in the formats that earlier projects used.

The format is found by looking at the content:

- CSV with a header row that has `id,count` and perhaps `group`; any other columns are ignored.
- JSON `{"1": ["data/metadata/100313.json", ...], "2": [...]}`: paths by count; a path's stem is the id.
- JSON `[[index, count], ...]`, as in 2018: index is from 0, and entry n is the photo `f"{n + 1:05d}"`.
"""

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import orjson

from bincount import storage
from bincount.data.ids import id_problem
from bincount.data.records import BadRecord, whole_number
from bincount.data.skipped import Skipped
from bincount.errors import BadInput, BincountError

_WANTED = (
    "wanted a CSV with the columns id,count[,group], a JSON mapping of counts to lists of paths, "
    "or a JSON list of pairs [index, count]"
)


@dataclass(frozen=True, slots=True)
class Label:
    """The count of one photo, and the group that must stay in one split with it, where one is given."""

    id: str
    count: int
    group: str | None


Row = tuple[Label, str]
"""A good label, and where it stands."""


def read_labels(address: str) -> tuple[list[Label], list[Skipped]]:
    """Read a label file, on disk or in S3: the usable labels in its order, and the rows that were left out.

    A row is left out for a count that is missing, below 0 or no whole number, for an id that cannot name a
    photo (`id_problem`), or for an id that stands there twice: of rows with the same count the first is kept,
    of rows with different counts none, since nobody can know which is right. Raises BadInput for a file that
    cannot be read or has none of the formats.
    """
    try:
        content = storage.read(address)
    except BincountError as problem:
        raise BadInput(f"cannot read the labels: {problem}") from None
    rows: list[Row] = []
    skipped: list[Skipped] = []
    for row in _rows(address, content):
        if isinstance(row, Skipped):
            skipped.append(row)
        else:
            rows.append(row)
    return _without_repeats(rows, skipped), skipped


def _rows(address: str, content: bytes) -> Iterator[Row | Skipped]:
    content = content.removeprefix(b"\xef\xbb\xbf")
    if content.lstrip()[:1] not in (b"{", b"["):
        return _csv_rows(address, content)
    try:
        data = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise BadInput(f"the labels {address} are invalid JSON: {error}") from None
    if isinstance(data, dict) and all(isinstance(paths, list) for paths in data.values()):
        return _path_rows(PurePosixPath(address).name, data)
    if isinstance(data, list) and all(isinstance(pair, list) for pair in data):
        return _pair_rows(PurePosixPath(address).name, data)
    raise BadInput(f"the labels {address} are JSON of another shape: {_WANTED}")


def _csv_rows(address: str, content: bytes) -> Iterator[Row | Skipped]:
    # strict: a quote that is never closed would otherwise swallow the rest of the file as one field.
    reader = csv.reader(io.StringIO(_utf8(address, content), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(address, header)
        for cells in reader:
            if cells:
                yield _csv_row(header, cells, f"{PurePosixPath(address).name}:{reader.line_num}")
    except csv.Error as error:
        raise BadInput(f"the labels {address} are no valid CSV at line {reader.line_num}: {error}") from None


def _utf8(address: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise BadInput(f"the labels {address} are not UTF-8 at line {line}: save them as UTF-8") from None


def _check_header(address: str, header: list[str]) -> None:
    found = repr(",".join(header)[:200])  # one line, whatever is in the file
    if "id" not in header or "count" not in header:
        raise BadInput(f"the labels {address} have the columns {found}: {_WANTED}")
    if any(header.count(name) > 1 for name in ("id", "count", "group")):
        raise BadInput(f"the labels {address} name a column twice, {found}: keep one")


def _csv_row(header: list[str], cells: list[str], where: str) -> Row | Skipped:
    row = dict(zip(header, cells, strict=False))
    if len(cells) > len(header):
        return Skipped(row["id"], where, f"the row has {len(cells)} cells, the header {len(header)}")
    count = row.get("count", "").strip()
    return _row(row.get("id", ""), count, row.get("group", "").strip() or None, where)


def _path_rows(name: str, paths_by_count: dict[str, list[object]]) -> Iterator[Row | Skipped]:
    for count, paths in paths_by_count.items():
        for n, path in enumerate(paths):
            where = f'{name}["{count}"][{n}]'
            if isinstance(path, str):
                yield _row(PurePosixPath(path).stem, count.strip(), None, where)
            else:
                yield Skipped("", where, "the path is not a text")


def _pair_rows(name: str, pairs: list[list[object]]) -> Iterator[Row | Skipped]:
    for n, pair in enumerate(pairs):
        where = f"{name}[{n}]"
        if len(pair) != 2:
            yield Skipped("", where, f"the entry has {len(pair)} values, not [index, count]")
            continue
        try:
            index = whole_number("the index", pair[0])
        except BadRecord as problem:
            yield Skipped("", where, str(problem))
        else:
            yield _row(f"{index + 1:05d}", pair[1], None, where)


def _row(id: str, count: object, group: str | None, where: str) -> Row | Skipped:
    try:
        label = Label(id, _count(count), group)
    except BadRecord as problem:
        return Skipped(id, where, str(problem))
    problem_of_id = id_problem(id)
    return Skipped(id, where, problem_of_id) if problem_of_id else (label, where)


def _count(value: object) -> int:
    """Give the count that a cell or a JSON value holds; `3.0` is one, since pandas writes that for 3."""
    if value == "":
        raise BadRecord("count is missing")
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,18}(\.[0-9]*)?", value):
        return whole_number("count", float(value) if "." in value else int(value))
    return whole_number("count", value)


def _without_repeats(rows: Iterable[Row], skipped: list[Skipped]) -> list[Label]:
    """Give the labels whose id stands there once, or always with one count; list the others in `skipped`."""
    by_id: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_id[row[0].id].append(row)
    labels = []
    for id, same in by_id.items():
        counts = sorted({label.count for label, _ in same})
        if len(counts) == 1:
            labels.append(same[0][0])
            skipped.extend(Skipped(id, where, f"the id again, as in {same[0][1]}") for _, where in same[1:])
        else:
            reason = f"the id has different counts: {', '.join(map(str, counts))}"
            skipped.extend(Skipped(id, where, reason) for _, where in same)
    return labels
