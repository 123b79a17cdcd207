"""The table in the bytes of a Parquet file.

Arrow's `read_table` and its threads hold such bytes for a moment longer than they take to read them. Where
that is the command's last, they ask for Python's lock when Python is gone, and the whole process aborts
("terminate called without an active exception", apache/arrow issue 33975). One thread that waits for nothing
holds nothing.
"""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq


def table_in(content: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """The table, or the named columns of it. Raises pa.ArrowException or OSError where it is damaged.

    Columns that are not there are left out; the others come in the file's order.
    """
    with pq.ParquetFile(pa.BufferReader(content)) as file:
        return file.read(columns, use_threads=False)
