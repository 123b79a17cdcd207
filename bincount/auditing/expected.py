"""What bins are expected to hold: by a label file, a folder of records, or Parquet tables."""

from collections.abc import Iterator
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bincount import progress, storage
from bincount.data.catalogue import id_of
from bincount.data.labels import read_labels
from bincount.data.parquet import table_in
from bincount.data.records import BadRecord, parse_record
from bincount.data.skipped import Skipped
from bincount.errors import BadInput, one_line
from bincount.storage import Store

SCHEMA = pa.schema([pa.field("id", pa.string()), pa.field("expected", pa.int64())])

#: The names that a column of expected quantities may have in a Parquet file.
COLUMNS = ("expected", "expected_quantity", "count")

#: Records that are read and parsed before they join the table.
CHUNK = 10_000


def read_expected(address: str) -> tuple[pa.Table, list[Skipped]]:
    """The expected quantity of each bin, as SCHEMA, one row an id, and what could not be used.

    ``address``: a label file (CSV or JSON, see bincount.data.labels), a Parquet file, a folder of Parquet
    files or of records ``ID.json``, or a data set with ``tables/bins``; on this machine or in S3. Raises
    BadInput where there is nothing of the kind.
    """
    name = address.rstrip("/").rpartition("/")[2].lower()
    if name.endswith((".csv", ".json", ".txt")):
        labels, skipped = read_labels(address)
        columns = [[label.id for label in labels], [label.count for label in labels]]
        return pa.table(columns, schema=SCHEMA), skipped
    if name.endswith(".parquet"):
        above, _, file = address.rpartition("/")
        return _unrepeated(_parquet(storage.open_store(above or "."), file))
    store = storage.open_store(address)
    for inside in ("tables/bins", "bins", ""):
        folder = store.below(inside) if inside else store
        parts = sorted(part for part in folder.held() if part.endswith(".parquet"))
        if inside == "tables/bins":  # Athena gives its files no ending
            parts = [part for part in folder.names() if not part.startswith("_")]
        if parts and "index.parquet" not in parts:
            return _unrepeated(pa.concat_tables(_parquet(folder, part) for part in parts))
    records = [name for name in store.names() if name.endswith(".json")]
    if not records or "index.json" in records:
        raise BadInput(
            f"expected={address}: there are no expected quantities: give a CSV with the columns id,count, "
            "a folder of records (ID.json), or a data set that has tables"
        )
    return _records(store, records)


def _parquet(store: Store, name: str) -> pa.Table:
    where = f"{store.address}/{name}"
    content = store.read(name)
    try:
        columns = pq.read_schema(pa.BufferReader(content)).names
    except pa.ArrowInvalid as error:
        raise BadInput(f"{where} is no Parquet file: {error}") from None
    quantity = next((each for each in COLUMNS if each in columns), None)
    if "id" not in columns or quantity is None:
        told = f"{where} has the columns {', '.join(columns)[:200]}"
        raise BadInput(f"{told}: id and one of {', '.join(COLUMNS)} are needed")
    try:
        table = table_in(content, ["id", quantity]).select(["id", quantity])
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{where} is a damaged Parquet file: {one_line(error)}") from None
    check_ids(where, table["id"].type)
    try:
        return table.rename_columns(SCHEMA.names).cast(SCHEMA)
    except pa.ArrowInvalid as error:
        raise BadInput(f"{where}: {quantity} holds no whole numbers: {error}") from None


def check_ids(where: str, kind: pa.DataType) -> None:
    """Raise BadInput for a column of ids that are no texts."""
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise BadInput(f"{where}: ids must be texts, not {kind}: 1 and 00001 are different photos")


def _unrepeated(table: pa.Table) -> tuple[pa.Table, list[Skipped]]:
    """The rows that have a quantity and whose id stands there once."""
    bad = pc.or_kleene(pc.is_null(table["expected"]), pc.less(table["expected"], 0))
    skipped = [
        Skipped(str(id), "expected", "the expected quantity is missing or below 0")
        for id in table.filter(bad)["id"].to_pylist()
    ]
    table = table.filter(pc.invert(bad))
    times = table.group_by("id").aggregate([("expected", "count")])
    twice = times.filter(pc.greater(times["expected_count"], 1))["id"]
    skipped += [Skipped(str(id), "expected", "the id stands there twice or more") for id in twice.to_pylist()]
    return table.filter(pc.invert(pc.is_in(table["id"], value_set=twice.combine_chunks()))), skipped


def _records(store: Store, names: list[str]) -> tuple[pa.Table, list[Skipped]]:
    skipped: list[Skipped] = []
    contents = progress.track(store.read_many(names), "reading records", len(names))
    read = _parsed(names, contents, skipped)
    parts = []
    while chunk := list(islice(read, CHUNK)):
        parts.append(pa.table([*zip(*chunk, strict=True)], schema=SCHEMA))
    return pa.concat_tables([SCHEMA.empty_table(), *parts]), skipped


def _parsed(
    names: list[str], contents: Iterator[bytes | str], skipped: list[Skipped]
) -> Iterator[tuple[str, int]]:
    for name, content in zip(names, contents, strict=True):
        id = id_of(name)
        try:
            if isinstance(content, str):
                raise BadRecord(f"the record {content}")
            yield id, parse_record(id, content).expected_quantity
        except BadRecord as problem:
            skipped.append(Skipped(id, name, str(problem)))
