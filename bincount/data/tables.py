"""Records become the tables ``tables/bins`` and ``tables/items``, a part at a time.

Part n holds the records n * RECORDS_PER_PART and on, by the order of their names. So memory holds the records
of one part, and of all others no more than their names.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bincount import progress
from bincount.data.parquet import table_in
from bincount.data.records import BINS_SCHEMA, ITEMS_SCHEMA, BadRecord, Record, parse_record, record_tables
from bincount.data.skipped import Skipped
from bincount.data.unfinished import Piece, Unfinished
from bincount.storage import Store

RECORDS_PER_PART = 20_000

#: What a piece of the tables notes besides what it left out.
_NO_ROWS = pa.table({})


def write_tables(draft: Unfinished, records: Store, named: Mapping[str, str], first: float) -> list[str]:
    """Write the parts that the draft has not got yet; gives the names of all as pieces of the draft.

    ``named``: the records' names by id, in order. ``first``: where among the parts to begin, as a share of
    all. Machines that begin at different parts, and leave out those that others made, share the work.
    """
    parts = max(1, -(-len(named) // RECORDS_PER_PART))
    begin = int(first * parts)
    order = (*range(begin, parts), *range(begin))
    for _ in progress.track(_written(draft, records, [*named.items()], order), "reading records", len(named)):
        pass
    return [_piece(number) for number in range(parts)]


def _piece(number: int) -> str:
    return f"tables/part-{number:06d}"


def _written(
    draft: Unfinished, records: Store, named: Sequence[tuple[str, str]], order: Iterable[int]
) -> Iterator[None]:
    """Yield once for each record that is done."""
    for number in order:
        of_part = named[number * RECORDS_PER_PART : (number + 1) * RECORDS_PER_PART]
        if draft.has(_piece(number)):
            yield from (None for _ in of_part)
            continue
        good: list[Record] = []
        skipped: list[Skipped] = []
        contents = records.read_many([name for _, name in of_part])
        for (id, name), content in zip(of_part, contents, strict=True):
            parsed = _parsed(id, name, content)
            if isinstance(parsed, Record):
                good.append(parsed)
            else:
                skipped.append(parsed)
            yield
        for table, rows in zip(("bins", "items"), record_tables(good), strict=True):
            draft.store.write(f"tables/{table}/part-{number:06d}.parquet", _parquet(rows))
        draft.finish(_piece(number), Piece(_NO_ROWS, skipped))


def _parsed(id: str, name: str, content: bytes | str) -> Record | Skipped:
    if isinstance(content, str):
        return Skipped(id, name, f"the record {content}")
    try:
        return parse_record(id, content)
    except BadRecord as problem:
        return Skipped(id, name, str(problem))


def _parquet(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="snappy")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def read_counts(store: Store) -> dict[str, int]:
    """The expected quantity of each bin in the tables of ``store``, by id."""
    found = _read(store, "bins", ["id", "expected_quantity"])
    return dict(zip(found["id"].to_pylist(), found["expected_quantity"].to_pylist(), strict=True))


def read_items(store: Store) -> dict[str, list[int]]:
    """The products of each bin that is not empty, by id; a product is a number, the same in all bins."""
    found = _read(store, "items", ["id", "asin"])
    products = found["asin"].combine_chunks().dictionary_encode().indices.to_pylist()
    items: dict[str, list[int]] = {}
    for id, product in zip(found["id"].to_pylist(), products, strict=True):
        items.setdefault(id, []).append(product)
    return items


def describe(store: Store) -> str:
    """What the tables hold, in a few words."""
    bins, items = _read(store, "bins", ["quantity_differs"]), _read(store, "items", ["quantity"])
    differing = pc.sum(bins["quantity_differs"]).as_py() or 0
    flagged = f", {differing:,} flagged: their quantity is not the sum of their items'" if differing else ""
    return f"{len(bins):,} bins, {len(items):,} items{flagged}"


def _read(store: Store, table: str, columns: list[str]) -> pa.Table:
    full = {"bins": BINS_SCHEMA, "items": ITEMS_SCHEMA}[table]
    schema = pa.schema([full.field(name) for name in columns])
    return read_parts(store, table, schema)


def read_parts(store: Store, table: str, schema: pa.Schema) -> pa.Table:
    """The columns of ``schema`` of all parts of a table, whatever engine wrote them.

    Athena gives its files no ending; those with an underscore before their name are notes of others'.
    """
    folder = store.below(f"tables/{table}")
    names = [name for name in folder.names() if not name.startswith("_")]
    parts = [table_in(folder.read(name), schema.names) for name in names]
    return pa.concat_tables([schema.empty_table(), *parts], promote_options="permissive").cast(schema)
