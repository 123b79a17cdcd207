"""What a counter tells of many photos, kept a part at a time, so that an audit that was stopped goes on."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import torch

from bincount import progress
from bincount.auditing.expected import check_ids
from bincount.counter import Counter
from bincount.counting import counted
from bincount.data.found import Found
from bincount.data.index import probability_columns
from bincount.data.predictions import ROUNDED
from bincount.data.skipped import Skipped, as_csv, from_csv
from bincount.errors import BadInput, one_line
from bincount.storage import Folder

#: Photos that are counted again, at the most, where an audit was killed.
PART = 1024

_FACTS = "facts.json"


def count_photos(
    counter: Counter, photos: Sequence[Found], batch_size: int, draft: Path, run: dict[str, Any]
) -> tuple[list[Path], list[Skipped]]:
    """Parquet files with id, photo and p_0, p_1 … of the photos, and those that could not be read.

    The files are kept in the folder ``draft`` until :func:`forget`; those of the same ``run`` and photos are
    not made again.
    """
    facts = json.dumps({"run": run, "photos": _digest(photos), "part": PART})
    kept = Folder(draft)
    if not kept.has(_FACTS) or kept.read(_FACTS).decode() != facts:
        kept.clear()
        kept.write(_FACTS, facts.encode())
    parts = -(-len(photos) // PART)
    todo = iter(progress.track(photos, "counting photos", len(photos)))
    for number in range(parts):
        of_part, name = islice(todo, PART), f"{number:06d}"
        if kept.has(f"{name}.parquet"):
            for _ in of_part:
                pass
            continue
        skipped: list[Skipped] = []
        table = _counted(counter, of_part, batch_size, skipped)
        kept.write(f"{name}.csv", as_csv(skipped))
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        kept.write(f"{name}.parquet", sink.getvalue().to_pybytes())
    names = [f"{number:06d}" for number in range(parts)]
    unreadable = [row for name in names for row in from_csv(kept.read(f"{name}.csv"))]
    return [draft / f"{name}.parquet" for name in names], unreadable


def forget(draft: Path) -> None:
    """Remove the kept parts."""
    shutil.rmtree(draft, ignore_errors=True)


def given_answers(path: Path, names: Sequence[str], draft: Path) -> list[Path]:
    """Answers made before, as `bincount predict` writes them or as Parquet, kept like :func:`count_photos`'.

    ``names``: of the counts that there must be probabilities of. Raises BadInput.
    """
    wanted = probability_columns(names)
    schema = pa.schema([("id", pa.string()), *((name, pa.float32()) for name in wanted)])
    draft.mkdir(parents=True, exist_ok=True)
    copy = draft / "given.parquet"
    try:
        found, batches = _opened(path, wanted)
        _check_columns(path, found, wanted)
        with pq.ParquetWriter(copy, schema, compression="zstd") as writer:
            for batch in batches:
                writer.write_table(
                    _checked(path, pa.Table.from_batches([batch]).select(schema.names), schema)
                )
    except (OSError, ValueError, TypeError) as error:  # ArrowInvalid is a ValueError
        raise BadInput(f"predictions={path} cannot be read: {one_line(error)}") from None
    return [copy]


def _opened(path: Path, wanted: Sequence[str]) -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
    if path.suffix == ".parquet":
        file = pq.ParquetFile(path)
        return file.schema_arrow, file.iter_batches()
    # Else the first rows alone would say of what type a column is, and "more" may come late.
    types = {"id": pa.string(), "count": pa.string(), **dict.fromkeys(wanted, pa.float64())}
    reader = pyarrow.csv.open_csv(path, convert_options=pyarrow.csv.ConvertOptions(column_types=types))
    return reader.schema, reader


def _check_columns(path: Path, schema: pa.Schema, wanted: Sequence[str]) -> None:
    missing = [name for name in ("id", *wanted) if name not in schema.names]
    if missing:
        needed = f"an audit needs id and {wanted[0]} to {wanted[-1]}, as `bincount predict` writes them"
        raise BadInput(f"predictions={path} lacks the column {missing[0]}: {needed}")
    check_ids(f"predictions={path}", schema.field("id").type)


def _checked(path: Path, answers: pa.Table, schema: pa.Schema) -> pa.Table:
    """The answers of some photos, whose probabilities add up to 1. Raises BadInput where they do not."""
    columns = [answers[name].to_numpy().astype(np.float64) for name in schema.names[1:]]
    shares = np.stack(columns, axis=1)
    sums = shares.sum(axis=1)
    right = (shares >= 0).all(axis=1) & (abs(sums - 1) <= ROUNDED)
    if not right.all():
        id = answers["id"][int((~right).argmax())].as_py()
        raise BadInput(f"predictions={path}: the probabilities of {id} are no shares that add up to 1")
    of_counts = (shares / sums[:, None]).astype(np.float32).T
    return pa.table([answers["id"].cast(pa.string()), *of_counts], schema=schema)


def _counted(counter: Counter, photos: Iterable[Found], batch_size: int, skipped: list[Skipped]) -> pa.Table:
    ids, addresses, shares = [], [], [torch.empty(0, len(counter.counts))]
    for batch, probabilities in counted(counter, photos, batch_size, skipped):
        ids += [photo.id for photo in batch]
        addresses += [photo.address for photo in batch]
        shares.append(probabilities)
    told = torch.cat(shares).numpy()
    of_counts = [pa.array(told[:, place]) for place in range(told.shape[1])]
    texts = [pa.array(ids, pa.string()), pa.array(addresses, pa.string())]
    return pa.table([*texts, *of_counts], names=["id", "photo", *probability_columns(counter.counts.names)])


def _digest(photos: Sequence[Found]) -> str:
    """Another one where photos were added or taken away; on this machine also where they were changed."""
    found = hashlib.sha256()
    for photo in photos:
        told = photo.address
        with contextlib.suppress(OSError):
            status = os.stat(told)
            told = f"{told}\0{status.st_size}\0{status.st_mtime_ns}"
        found.update(f"{told}\n".encode(errors="surrogateescape"))
    return found.hexdigest()
