"""Records to the two tables: `bincount prepare` beside DuckDB's read_json and pandas, on the same records.

    python benchmarks/records.py RECORDS [--limit 10441] [--s3] [--times 3]
    python benchmarks/records.py RECORDS --grow 535234

RECORDS is a folder of ID.json. Each way reads every file and writes bins and items as snappy Parquet;
start-up of Python and imports are not counted. ``--s3`` reads them through rclone's S3 server on loopback.
``--grow`` repeats the records under new ids (hard links) up to so many, and measures growing numbers of them,
each in a process of its own, with the peak of its memory.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

DUCKDB = """
create table records as
  select parse_filename(filename, true) id, EXPECTED_QUANTITY expected_quantity, BIN_FCSKU_DATA items
  from read_json('{records}/*.json', format='unstructured', filename=true, columns={{
    EXPECTED_QUANTITY: 'BIGINT',
    BIN_FCSKU_DATA: 'MAP(VARCHAR, STRUCT(asin VARCHAR, name VARCHAR, normalizedName VARCHAR, quantity BIGINT,
      height STRUCT(value DOUBLE), length STRUCT(value DOUBLE), width STRUCT(value DOUBLE),
      weight STRUCT(value DOUBLE)))'}});
create table items as
  select id, item.asin, item.name, item.normalizedName normalized_name, item.quantity,
    item.height.value height_in, item.length.value length_in, item.width.value width_in,
    item.weight.value weight_lb
  from (select id, unnest(map_values(items)) item from records);
copy (select id, expected_quantity, cardinality(items) distinct_items,
        coalesce(list_sum([item.quantity for item in map_values(items)]), 0)::BIGINT quantity_sum,
        quantity_sum != expected_quantity quantity_differs
      from records order by id) to '{out}/bins.parquet' (compression snappy);
copy (select * from items order by id) to '{out}/items.parquet' (compression snappy);
"""


def with_bincount(records: str, out: Path) -> None:
    from bincount import cli

    words = ["source=folder", "source.images=null", f"source.metadata={records}", f"out={out}/ours"]
    assert cli.main(["prepare", *words]) == 0


def with_duckdb(records: str, out: Path) -> None:
    import duckdb

    with duckdb.connect() as connection:
        connection.execute(DUCKDB.format(records=records, out=out))


def with_pandas(records: str, out: Path) -> None:
    import pandas as pd

    bins, items = [], []
    for path in sorted(Path(records).glob("*.json")):
        record = json.loads(path.read_bytes())
        held = record["BIN_FCSKU_DATA"]
        quantity = sum(item["quantity"] for item in held.values())
        count = record["EXPECTED_QUANTITY"]
        bins.append((path.stem, count, len(held), quantity, quantity != count))
        for asin, item in held.items():
            sides = [(item[key] or {}).get("value") for key in ("height", "length", "width", "weight")]
            items.append(
                (path.stem, asin, item["name"], item.get("normalizedName"), item["quantity"], *sides)
            )
    columns = ["id", "asin", "name", "normalized_name", "quantity", "height", "length", "width", "weight"]
    pd.DataFrame(items, columns=columns).to_parquet(out / "items.parquet", compression="snappy")
    columns = ["id", "expected_quantity", "distinct_items", "quantity_sum", "quantity_differs"]
    pd.DataFrame(bins, columns=columns).to_parquet(out / "bins.parquet", compression="snappy")


def seconds(way: Callable[[str, Path], None], records: str, times: int) -> tuple[float, int]:
    """The least time of ``times`` runs, after one that warms up; and the items that were written."""
    least = float("inf")
    for turn in range(times + 1):
        with tempfile.TemporaryDirectory() as out:
            start = time.perf_counter()
            way(records, Path(out))
            taken = time.perf_counter() - start
            if turn:
                least = min(least, taken)
            written = [*Path(out).rglob("items.parquet"), *Path(out).glob("ours/tables/items/*.parquet")]
            items = sum(pq.read_metadata(path).num_rows for path in written)
    return least, items


def compare(records: Path, limit: int, times: int, s3: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "bucket" / "metadata"
        folder.mkdir(parents=True)
        for path in sorted(records.glob("*.json"))[:limit]:
            (folder / path.name).write_bytes(path.read_bytes())
        ours, items = seconds(with_bincount, str(folder), times)
        print(f"{limit:,} records, {items:,} items; seconds, the least of {times}")
        print(f"bincount           {ours:6.2f}")
        if s3:
            from s3_server import environment, serving

            with serving(Path(name), remember=600) as server:
                os.environ.update(environment(server.direct))
                through, again = seconds(with_bincount, "s3://bucket/metadata", times)
            assert again == items
            print(f"bincount, from S3  {through:6.2f}   {through / ours:5.1f} times")
        for told, way in (("DuckDB read_json", with_duckdb), ("pandas", with_pandas)):
            taken, again = seconds(way, str(folder), times)
            assert again == items
            print(f"{told:<18} {taken:6.2f}   {taken / ours:5.1f} times")


def grow(records: Path, most: int) -> None:
    real = sorted(records.glob("*.json"))
    print("records    seconds  records/s  peak MB")
    with tempfile.TemporaryDirectory(dir=records.parent) as name:
        folder = Path(name) / "metadata"
        folder.mkdir()
        linked = 0
        for number in (most // 8, most // 4, most // 2, most):
            for n in range(linked, number):
                os.link(real[n % len(real)], folder / f"{n + 1:06d}.json")
            linked = number
            program = [sys.executable, __file__, str(folder), "--alone"]
            told = subprocess.run(program, check=True, capture_output=True, text=True).stdout.split()
            print(
                f"{number:>7,} {float(told[-2]):10.2f} {number / float(told[-2]):10,.0f} {told[-1]:>8}",
                flush=True,
            )


def alone(records: Path) -> None:
    """Measure this process: seconds, and its peak of memory in MB."""
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        with_bincount(str(records), Path(out))
        taken = time.perf_counter() - start
    print(taken, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("records", type=Path)
    parser.add_argument("--limit", type=int, default=10441)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--s3", action="store_true")
    parser.add_argument("--grow", type=int)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        alone(given.records)
    elif given.grow:
        grow(given.records, given.grow)
    else:
        compare(given.records, given.limit, given.times, given.s3)


if __name__ == "__main__":
    main()
