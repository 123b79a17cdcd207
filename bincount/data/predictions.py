"""Predictions made elsewhere: CSV, Parquet or JSON lines with an id, a count, and perhaps probabilities.

Or the folder that a batch transform of SageMaker has filled: what `bincount serve` answers of each photo, as
``ID.jpg.out``.

The format is found by looking at the content. A row has

- ``id`` (or ``photo``, in JSON also its path): a string, never cast or padded;
- ``count``, or ``predicted``, which is taken where there are both: our own predictions.parquet has the
  recorded count under the former. Without either the likeliest count is taken;
- ``p_0``, ``p_1`` …, or a list ``probabilities``, where there are any.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from bincount import storage
from bincount.client import answer_of
from bincount.data.images import SUFFIXES
from bincount.data.index import Counts, probability_columns
from bincount.data.parquet import table_in
from bincount.errors import BadInput, BincountError, one_line

#: How far the probabilities of a photo may be from adding up to 1: they may be rounded.
ROUNDED = 1e-2

#: What a batch transform adds to the name of each photo.
ANSWER = ".out"

_WANTED = "wanted a CSV, Parquet or JSON lines with id, count, and perhaps p_0, p_1 …"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Predictions:
    """Answers to photos: ``id``, and by the name of its class the count told, ``told``, of each.

    ``names`` of the classes and ``probabilities``, float64 (photos, classes), are None where there are none.
    """

    id: list[str]
    told: list[str]
    names: list[str] | None
    probabilities: npt.NDArray[np.float64] | None


def read_predictions(address: str) -> Predictions:
    """Read predictions, on disk or in S3. Raises BadInput, naming the first row that cannot be used."""
    try:
        rows = list(_found(address.rstrip("/")))
    except BadInput:
        raise
    except BincountError as problem:
        raise BadInput(f"predictions={address}: {problem}") from None
    if not rows:
        raise BadInput(f"predictions={address}: there is no answer in it: {_WANTED}")
    names = _names(rows[0][0])
    found: dict[str, str] = {}
    ids, told, probabilities = [], [], []
    for row, where in rows:
        id = _id(row, where)
        if id in found:
            raise BadInput(f"{where}: the id {id} stands there twice, as in {found[id]}: keep one")
        found[id] = where
        shares = _probabilities(row, names, where) if names else None
        ids.append(id)
        told.append(_told(row, names, shares, where))
        probabilities.append(shares)
    return Predictions(ids, told, names, np.stack(probabilities) if names else None)  # type: ignore[arg-type]


def _found(address: str) -> Iterable[tuple[Row, str]]:
    """Each row of a file, or of the files in a folder, and where it stands."""
    if "://" not in address and storage.folder(address).is_dir():
        return _transformed(address)
    try:
        content = storage.read(address)
    except storage.NotThere:
        if "://" in address and (rows := _transformed(address)):
            return rows
        raise
    return _rows(PurePosixPath(address).name, content)


def _transformed(address: str) -> list[tuple[Row, str]]:
    """The answers in a folder that a batch transform has filled."""
    store = storage.open_store(address)
    names = [name for name in store.names(deep=True) if name.endswith(ANSWER)]
    found = []
    for name, content in zip(names, store.read_many(names), strict=True):
        if isinstance(content, str):
            raise BincountError(f"{name} {content}")
        try:
            found.append((_answered(name, content), name))
        except BincountError as problem:
            raise BincountError(f"{name}: {problem}") from None
    return found


def _answered(name: str, content: bytes) -> Row:
    answer = answer_of(content)
    classes = Counts(len(answer.probabilities) - 1 - answer.more, answer.more).names
    shares = dict(zip(probability_columns(classes), answer.probabilities, strict=True))
    return {"photo": PurePosixPath(name.removesuffix(ANSWER)).name, "count": classes[answer.count], **shares}


def _rows(name: str, content: bytes) -> Iterator[tuple[Row, str]]:
    """Each row, and where it stands."""
    content = content.removeprefix(b"\xef\xbb\xbf")
    if content.startswith(b"PAR1"):
        return _parquet_rows(name, content)
    if content.lstrip()[:1] in (b"{", b"["):
        return _json_rows(name, content)
    return _csv_rows(name, content)


def _parquet_rows(name: str, content: bytes) -> Iterator[tuple[Row, str]]:
    try:
        table = table_in(content)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{name} is a damaged Parquet file: {one_line(error)}") from None
    for number, row in enumerate(table.to_pylist(), start=1):
        yield row, f"{name}, row {number}"


def _json_rows(name: str, content: bytes) -> Iterator[tuple[Row, str]]:
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise BadInput(f"{where}: invalid JSON ({one_line(error)}): write an object a line") from None
        for row in found if isinstance(found, list) else [found]:
            if not isinstance(row, dict):
                raise BadInput(f"{where}: no object with id and count: {_WANTED}")
            yield row, where


def _csv_rows(name: str, content: bytes) -> Iterator[tuple[Row, str]]:
    try:
        reader = csv.reader(io.StringIO(content.decode(), newline=""), strict=True)
        header = [column.strip() for column in next(reader, [])]
        if twice := next((column for column in header if header.count(column) > 1), None):
            raise BadInput(f"{name} names the column {twice} twice: keep one")
        for cells in reader:
            where = f"{name}:{reader.line_num}"
            if cells and len(cells) != len(header):
                raise BadInput(f"{where}: {len(cells)} cells, and the header has {len(header)}")
            if cells:
                yield dict(zip(header, cells, strict=True)), where
    except UnicodeDecodeError:
        raise BadInput(f"{name} is neither text nor Parquet: {_WANTED}") from None
    except csv.Error as error:
        raise BadInput(f"{name} is no valid CSV: {error}") from None


def _names(row: Row) -> list[str] | None:
    """The classes that a row has probabilities of; None where it has none."""
    if isinstance(row.get("probabilities"), list):
        return [str(count) for count in range(len(row["probabilities"]))]
    names = [key.removeprefix("p_") for key in row if re.fullmatch(r"p_(\d+|more)", key)]
    return sorted(names, key=lambda name: (name == "more", len(name), name)) or None


def _id(row: Row, where: str) -> str:
    id = row.get("id", row.get("photo"))
    if id is None:
        raise BadInput(f"{where}: there is no id, but {', '.join(row) or 'nothing'}: {_WANTED}")
    if not isinstance(id, str):
        raise BadInput(f"{where}: the id {id} is a number: write ids as texts, as 1 and 00001 differ")
    if "id" not in row and PurePosixPath(id).suffix.lower() in SUFFIXES:
        return PurePosixPath(id).stem
    return id


def _told(row: Row, names: list[str] | None, shares: npt.NDArray[np.float64] | None, where: str) -> str:
    """The name of the class that the row tells."""
    value = row.get("predicted", row.get("count"))
    if value in (None, "") and names and shares is not None:
        return names[int(shares.argmax())]
    text = str(value).strip()
    if text == "more":
        return text
    if not re.fullmatch(r"[0-9]{1,9}(\.0*)?", text):
        raise BadInput(f"{where}: the count is {'missing' if value in (None, '') else text}, no whole number")
    return str(int(float(text)))


def _probabilities(row: Row, names: Iterable[str], where: str) -> npt.NDArray[np.float64]:
    """The probabilities of a row, made to add up to 1."""
    given = row.get("probabilities")
    values = given if isinstance(given, list) else [row.get(column) for column in probability_columns(names)]
    try:
        shares = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise BadInput(f"{where}: a probability is no number") from None
    # Not `not (shares >= 0)`: NaN is to fail here, too.
    if len(shares) != len(list(names)) or not (shares >= 0).all() or not abs(shares.sum() - 1) <= ROUNDED:
        raise BadInput(f"{where}: the probabilities are not {len(list(names))} shares that add up to 1")
    return np.asarray(shares / shares.sum())
