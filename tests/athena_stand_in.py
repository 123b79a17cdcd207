"""Athena for tests: its SQL transpiled to DuckDB by sqlglot, on records as the Ion SerDe gives them.

What the SerDe does is taken from its documentation and source: a row a value; numbers are decimals; fields
regardless of case; JSON null and a missing field are null; after malformed text no more rows of a file; a
value of another type ends the query. Only AWS can show that its own reads as this one.
"""

import json
import re
from collections.abc import Iterator
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import sqlglot
from sqlglot import exp

from bincount.data.records import BINS_SCHEMA, ITEMS_SCHEMA
from bincount.engines.athena import Statement, statements

#: Enough digits for any column.
WIDE = Context(prec=60)

PLACE = "s3://mine/metadata"


class Ended(Exception):
    """The query failed in AWS."""


class Athena:
    """Runs statements on the records in ``folder``, which stands for PLACE."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._duckdb = duckdb.connect()
        self.tables: dict[str, pa.Table] = {}
        self.properties: dict[str, str] = {}

    def run(self, statement: Statement) -> None:
        parsed = sqlglot.parse_one(statement.sql, read="athena")
        # What sqlglot does not understand it takes as it is.
        assert not isinstance(parsed, exp.Command), statement.sql
        if not isinstance(parsed, exp.Create):
            self.tables[statement.name] = self._ask(parsed)
        elif parsed.kind == "DATABASE":
            self._duckdb.execute(f"create schema if not exists {parsed.this.sql('duckdb')}")
        elif isinstance(parsed.expression, exp.Query):
            self._create(parsed, statement.name)
        else:
            self._register(parsed)

    def _ask(self, query: exp.Expression) -> pa.Table:
        return self._duckdb.sql(
            query.sql("duckdb", unsupported_level=sqlglot.ErrorLevel.RAISE)
        ).to_arrow_table()

    def _create(self, made: exp.Create, name: str) -> None:
        for each in made.args["properties"].expressions:
            self.properties[f"{name}.{_key(each)}"] = (
                each.args["value"].name if "value" in each.args else each.name
            )
        self.tables[name] = given = self._ask(made.expression)
        self._duckdb.register("given", given)
        self._duckdb.execute(f"create table {made.this.sql('duckdb')} as select * from given")
        self._duckdb.unregister("given")

    def _register(self, made: exp.Create) -> None:
        table, columns = (
            made.this.this.sql("duckdb"),
            {each.name: each.kind for each in made.this.expressions},
        )
        properties = made.args["properties"].expressions
        (location,) = (each for each in properties if isinstance(each, exp.LocationProperty))
        assert location.this.name == f"{PLACE}/"
        if columns.keys() == {"line"}:
            rows = [
                (f"{PLACE}/{path.name}", line)
                for path in self._files()
                for line in path.read_bytes().splitlines()
            ]
            given = pa.table(
                {"$path": [row[0] for row in rows], "line": [row[1].decode(errors="replace") for row in rows]}
            )
        else:
            given = self._ion(columns)
        self._duckdb.register("given", given)
        self._duckdb.execute(f"create table {table} as select * from given")
        self._duckdb.unregister("given")

    def _files(self) -> Iterator[Path]:
        return (
            path for path in sorted(self._folder.iterdir()) if path.is_file() and path.name[0] not in "._"
        )

    def _ion(self, columns: dict[str, Any]) -> pa.Table:
        types = {name: _arrow(kind) for name, kind in columns.items()}
        rows = [
            {
                "$path": f"{PLACE}/{path.name}",
                **{name: _value(_field(value, name), kind) for name, kind in types.items()},
            }
            for path in self._files()
            for value in _documents(path.read_bytes())
        ]
        return pa.Table.from_pylist(rows, pa.schema({"$path": pa.string(), **types}))


def run(folder: Path, out: str = "s3://mine/bins") -> Athena:
    """An Athena that has run all statements."""
    athena = Athena(folder)
    for statement in statements(PLACE, out, "s3://mine/scratch", "bincount", "test"):
        athena.run(statement)
    return athena


def written(athena: Athena) -> dict[str, pa.Table]:
    """The tables as local has them, but for the order of their rows: sorted by id and ASIN."""
    keys = {"bins": ["id"], "items": ["id", "asin"]}
    schemas = {"bins": BINS_SCHEMA, "items": ITEMS_SCHEMA}
    found = {}
    for name, schema in schemas.items():
        table = athena.tables[name]
        assert table.schema.names == schema.names
        assert table.schema.types == schema.types
        found[name] = table.cast(schema).sort_by([(key, "ascending") for key in keys[name]])
    return found


def _key(each: exp.Expression) -> str:
    return {exp.FileFormatProperty: "format"}.get(type(each)) or str(
        each.this if isinstance(each.this, str) else each.this.name
    )


def _arrow(kind: Any) -> pa.DataType:
    """The Arrow type of a Hive type, as sqlglot parses it."""
    names = exp.DataType.Type
    if kind.this == names.MAP:
        return pa.map_(*(_arrow(each) for each in kind.expressions))
    if kind.this == names.STRUCT:
        return pa.struct([(each.name, _arrow(each.kind)) for each in kind.expressions])
    if kind.this == names.DECIMAL:
        return pa.decimal128(*(int(each.this.name) for each in kind.expressions))
    assert kind.this in (names.TEXT, names.VARCHAR), kind
    return pa.string()


def _documents(content: bytes) -> Iterator[Any]:
    """The top-level values of a file, up to what is no JSON."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return
    decoder, place = json.JSONDecoder(parse_float=Decimal, parse_int=Decimal), 0
    while place < len(text) and (found := re.compile(r"\S").search(text, place)):
        try:
            value, place = decoder.raw_decode(text, found.start())
        except ValueError:
            return
        yield value


def _field(value: Any, name: str) -> Any:
    """The field regardless of its case; null of what has no fields."""
    if not isinstance(value, dict):
        return None
    return next((each for key, each in value.items() if key.lower() == name), None)


def _value(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    if pa.types.is_map(kind) and isinstance(value, dict):
        return [(key, _value(each, kind.item_type)) for key, each in value.items()]
    if pa.types.is_struct(kind) and isinstance(value, dict):
        return {field.name: _value(_field(value, field.name), field.type) for field in kind}
    if pa.types.is_decimal(kind) and isinstance(value, Decimal):
        return value.quantize(Decimal(1).scaleb(-kind.scale), context=WIDE) if abs(value) < 10**10 else None
    if pa.types.is_string(kind):
        return value if isinstance(value, str) else json.dumps(value, default=str)
    raise Ended(f"{value!r} in a column {kind}")
