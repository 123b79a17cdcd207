"""A data set as a database: DuckDB over its index and its tables, which it cannot change.

``bins`` and ``items`` have the columns of :mod:`bincount.data.records`, ``photos`` those of
:mod:`bincount.data.index`. All is read once, through the store; after that DuckDB reaches neither files nor
the network, whatever it is asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from bincount import storage
from bincount.data.ids import id_order, id_series
from bincount.data.index import COLUMNS, Index
from bincount.data.records import BINS_SCHEMA, ITEMS_SCHEMA
from bincount.data.tables import read_parts
from bincount.errors import BadInput, one_line
from bincount.storage import Folder, Store

if TYPE_CHECKING:
    import duckdb

#: The tables that a data set may have, and the columns of each.
TABLES = {"bins": BINS_SCHEMA, "items": ITEMS_SCHEMA, "photos": COLUMNS}

#: The ids of all bins in id order: what comes after what, which SQL by itself cannot tell.
PLACES = pa.schema(
    [("id", pa.string()), ("place", pa.int64()), ("series", pa.int8()), ("number", pa.int64())]
)

#: Statements that only ask. A pivot is several to DuckDB.
QUESTIONS = {"SELECT", "EXPLAIN", "MULTI", "PRAGMA", "CALL"}

#: What leaves DuckDB without files, network and extensions; in this order.
_CLOSED = {
    "temp_directory": "''",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "enable_external_access": "false",
    "lock_configuration": "true",
}


@dataclass(frozen=True)
class Database:
    """An opened data set. ``index`` None: it has no photos; ``tables``: those of TABLES that it has."""

    address: str
    index: Index | None
    tables: Sequence[str]
    connection: "duckdb.DuckDBPyConnection"

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """The rows of our own ``query``."""
        return self.connection.sql(query).fetchall()

    def row(self, query: str) -> dict[str, Any]:
        """The only row of our own ``query``, by column."""
        asked = self.connection.sql(query)
        return dict(zip(asked.columns, asked.fetchall()[0], strict=True))

    def ask(self, question: str) -> pa.Table:
        """What a user's SQL gives. Raises BadInput, naming the tables and columns there are."""
        import duckdb

        try:
            statements = self.connection.extract_statements(question)
            if len(statements) != 1 or statements[0].type.name not in QUESTIONS:
                raise BadInput(f"sql: ask one question (select …); {self._there_is()}")
            answer = self.connection.sql(question)
            return answer.to_arrow_table()
        except duckdb.Error as error:
            told = one_line(error).partition(" LINE 1: ")[0].rstrip(".! ")
            raise BadInput(f"sql: {told}; {self._there_is()}") from None

    def _there_is(self) -> str:
        shown = [f"{name} ({', '.join(map(_written, TABLES[name].names))})" for name in self.tables]
        return f"there is {', '.join(shown)}"


def open_database(address: str) -> Database:
    """Open the data set at ``address``, or what there is of one. Raises BadInput where there is nothing."""
    store = storage.open_store(address)
    held = store.held()
    if "index.json" not in held and "tables" not in held:
        if isinstance(store, Folder):
            storage.existing_folder(address, "data.root")
        raise BadInput(
            f"data.root={address} has neither photos (index.json) nor records (tables/): make a data set "
            "with `bincount prepare`"
        )
    import duckdb  # here, as it takes a quarter of a second, which mistakes need not wait for

    index = Index.open(address) if "index.json" in held else None
    found = {} if index is None else {"photos": index.rows()}
    if "tables" in held:
        found |= {name: _parts(store, name) for name in ("bins", "items")}
    connection = duckdb.connect()
    for name, rows in {**found, "places": _places(found)}.items():
        connection.register("given", rows)
        connection.execute(f"create table {name} as select * from given")
        connection.unregister("given")
    for option, value in _CLOSED.items():
        connection.execute(f"set {option} = {value}")
    return Database(store.address, index, [name for name in TABLES if name in found], connection)


def _parts(store: Store, table: str) -> pa.Table:
    try:
        return read_parts(store, table, TABLES[table])
    except (pa.ArrowException, ValueError) as error:
        where, told = store.place(f"tables/{table}"), "prepare the data set again"
        raise BadInput(f"{where} cannot be read: {one_line(error)}: {told}") from None


def _places(found: dict[str, pa.Table]) -> pa.Table:
    """A row a bin: its place in id order, its series, and its number where its id is one."""
    ids = sorted(set(found["bins"]["id"].to_pylist()) if "bins" in found else (), key=id_order)
    numbers = [int(id) if id.isdecimal() and len(id) < 19 else None for id in ids]
    columns = [ids, range(len(ids)), map(id_series, ids), numbers]
    return pa.table([pa.array(column) for column in map(list, columns)], names=PLACES.names).cast(PLACES)


def _written(column: str) -> str:
    """The column as SQL takes it."""
    return f'"{column}"' if column in ("group", "offset") else column
