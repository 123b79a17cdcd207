"""Tables from the bytes of Parquet files."""

import sys

import pyarrow as pa
import pyarrow.parquet as pq

from bincount.data.parquet import table_in


def content_of(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=100)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def test_it_gives_the_table_or_some_of_its_columns() -> None:
    table = pa.table({"id": ["1", "00001"], "count": [3, None]}).replace_schema_metadata({b"a": b"b"})
    content = content_of(table)
    assert table_in(content).equals(table, check_metadata=True)
    assert table_in(content, ["count", "other"]).equals(table.select(["count"]))


def test_nobody_holds_the_bytes_once_they_are_read() -> None:
    """Whoever does asks for Python's lock later, which aborts a command that ends meanwhile."""
    content = content_of(pa.table({name: range(1000) for name in "abcdefgh"}))
    for _ in range(300):
        own = bytes(bytearray(content))
        held = sys.getrefcount(own)
        read = table_in(own)
        assert sys.getrefcount(own) == held
        assert len(read) == 1000
