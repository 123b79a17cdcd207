"""What `bincount prepare` wrote, as tests look at it."""

import csv
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from bincount import storage


def rows(out: Path) -> dict[str, dict[str, Any]]:
    """The index, by id."""
    table = pq.read_table(out / "index.parquet").to_pylist()
    by_id = {row["id"]: row for row in table}
    assert len(by_id) == len(table)
    return by_id


def skipped(out: Path) -> dict[str, list[tuple[str, str]]]:
    """skipped.csv, by id: (file, reason)."""
    with (out / "skipped.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        assert reader.fieldnames == ["id", "file", "reason"]
        by_id = defaultdict(list)
        for row in reader:
            by_id[row["id"]].append((row["file"], row["reason"]))
        return dict(by_id)


def jpeg_of(out: Path, row: dict[str, Any]) -> bytes:
    return storage.read_range(out / row["shard"], row["jpeg_offset"], row["jpeg_length"])


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under the folder."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def splits_of_groups(out: Path) -> dict[str, set[str]]:
    found = defaultdict(set)
    for row in rows(out).values():
        found[row["group"]].add(row["split"])
    return found
