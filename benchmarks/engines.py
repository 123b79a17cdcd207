"""Records to the two tables by each engine: this process, Spark in local mode, Athena's SQL in DuckDB.

    python benchmarks/engines.py RECORDS [--times 3]

RECORDS is a folder of ID.json. All three read every file, and their rows are compared. Spark's first run
starts Java and compiles; it is told apart from the least of the following ones. Of Athena there is only its
SQL here, transpiled to DuckDB, after its stand-in has read the files in Python: AWS's own times are others.
"""

import argparse
import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

from athena_stand_in import run, written  # noqa: E402

from bincount import cli  # noqa: E402
from bincount.data.records import BINS_SCHEMA, ITEMS_SCHEMA  # noqa: E402

SCHEMAS = {"bins": BINS_SCHEMA, "items": ITEMS_SCHEMA}
KEYS = {"bins": [("id", "ascending")], "items": [("id", "ascending"), ("asin", "ascending")]}

Tables = dict[str, pa.Table]


def prepared(records: Path, engine: str) -> Tables:
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        words = [
            "source=folder",
            "source.images=null",
            f"source.metadata={records}",
            f"tables.engine={engine}",
        ]
        assert cli.main(["prepare", *words, f"out={name}/out"]) == 0
        return {table: read(Path(name, "out", "tables", table), schema) for table, schema in SCHEMAS.items()}


def read(folder: Path, schema: pa.Schema) -> pa.Table:
    parts = [pq.read_table(path).cast(schema) for path in sorted(folder.iterdir())]
    return pa.concat_tables([schema.empty_table(), *parts])


def timed(way: Callable[[], Tables]) -> tuple[float, Tables]:
    start = time.perf_counter()
    made = way()
    return time.perf_counter() - start, made


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("records", type=Path)
    parser.add_argument("--times", type=int, default=3)
    given = parser.parse_args()
    ways: dict[str, Callable[[], Tables]] = {
        "local": lambda: prepared(given.records, "local"),
        "spark": lambda: prepared(given.records, "spark"),
        "athena's SQL": lambda: written(run(given.records)),
    }
    ours: Tables = {}
    unit = 0.0
    for engine, way in ways.items():
        runs = [timed(way) for _ in range(given.times + 1)]
        first, least = runs[0][0], min(seconds for seconds, _ in runs[1:])
        tables = {name: table.sort_by(KEYS[name]) for name, table in runs[0][1].items()}
        if not ours:
            ours, unit = tables, least
            print(f"{len(ours['bins']):,} records, {len(ours['items']):,} items; seconds")
            print(f"{'engine':<14} {'first':>7} {'least of ' + str(given.times):>11} {'times':>7}  rows")
        same = all(tables[name].equals(ours[name]) for name in SCHEMAS)
        told = "identical" if same else "DIFFERENT"
        print(f"{engine:<14} {first:7.2f} {least:11.2f} {least / unit:7.1f}  {told}", flush=True)


if __name__ == "__main__":
    main()
