"""The tables of records by Athena: the SQL, and nothing else. `launch/athena.py` sends it.

The records are read through the Ion SerDe, as JSON SerDes want a record on one line. What its documentation
and source tell of it, and what follows:

- A JSON number with a point is an Ion decimal, which a DOUBLE column does not take. So numbers are DECIMAL,
  and become doubles by way of their text, which rounds as reading the JSON does.
- Hive's names are in lower case: fields are found regardless of their case.
- A file that is no JSON ends a query. With ``ion.ignore_malformed`` it has no row, and so the same files are
  read a second time as lines of text: what has lines and no row is listed as no JSON. A file of 0 bytes has
  neither, and is not seen.
- A value of another type (a text for a count) ends the query, and AWS names the column.
"""

import re
from dataclasses import dataclass

MAX_COUNT = 2**31 - 1
ID_BYTES = 95
UNITS = {"height": "IN", "length": "IN", "width": "IN", "weight": "pounds"}

#: 10 digits before the point, 28 behind: the real measures have 19.
NUMBER = "decimal(38,28)"

_MEASURE = f"struct<unit:string,value:{NUMBER}>"
_ITEM = ",".join(
    ["asin:string", "name:string", "normalizedname:string", f"quantity:{NUMBER}"]
    + [f"{name}:{_MEASURE}" for name in UNITS]
)


@dataclass(frozen=True)
class Statement:
    """One query. ``title`` tells people what it makes.

    ``reads``: how often it reads the records, or the Parquet that is made of them, which is smaller.
    """

    name: str
    title: str
    sql: str
    reads: int


def statements(records: str, out: str, scratch: str, database: str, suffix: str) -> list[Statement]:
    """What Athena has to do, in this order, to make the tables of ``records`` in ``out``.

    All are addresses s3://bucket/prefix; ``scratch`` is for what lies between. The tables of Athena's
    catalogue are in ``database`` and end in ``suffix``. Raises ValueError for what could end a text or a name
    in SQL.
    """
    if not re.fullmatch(r"[a-z0-9_]+ [a-z0-9_]+", f"{database} {suffix}"):
        raise ValueError(f"{database}, {suffix}: these are no names")
    for address in (records, out, scratch):
        if not address.startswith("s3://") or not address.isprintable() or set(address) & set("'\"`\\?#"):
            raise ValueError(f"{address}: this is no s3://bucket/prefix that SQL can name")
    place = records.rstrip("/") + "/"
    raw, lines, read = (f"{database}.{name}_{suffix}" for name in ("records", "lines", "read"))
    # Athena reads a table anew at each of its names in a query, and bills it.
    places = {"read": f"{scratch.rstrip('/')}/read"}
    places |= {name: f"{out.rstrip('/')}/tables/{name}" for name in ("bins", "items")}
    queries = {"read": _read(raw, place), "bins": _bins(read), "items": _items(read)}
    made = {
        name: _made(f"{database}.{name}_{suffix}", places[name], query) for name, query in queries.items()
    }
    return [
        Statement("database", "a database", f"CREATE DATABASE IF NOT EXISTS {database}", 0),
        Statement("records", "the records, as they are", _ion_table(raw, place), 0),
        Statement("lines", "their lines, as text", _text_table(lines, place), 0),
        Statement("read", "the records as Parquet, read once", made["read"], 1),
        Statement("bins", "a row a record", made["bins"], 3),
        Statement("items", "a row an item", made["items"], 4),
        Statement("skipped", "what is in neither", _skipped(read, lines, place), 5),
    ]


def _ion_table(name: str, place: str) -> str:
    return f"""CREATE EXTERNAL TABLE {name} (
  expected_quantity {NUMBER},
  bin_fcsku_data map<string,struct<{_ITEM}>>
)
ROW FORMAT SERDE 'com.amazon.ionhiveserde.IonHiveSerDe'
WITH SERDEPROPERTIES (
  'ion.path_extractor.case_sensitive' = 'false',
  'ion.ignore_malformed' = 'true'
)
STORED AS ION
LOCATION '{place}'"""


def _text_table(name: str, place: str) -> str:
    # A separator that is in no record: a line is one column.
    return f"""CREATE EXTERNAL TABLE {name} (line string)
ROW FORMAT DELIMITED FIELDS TERMINATED BY '\\001' LINES TERMINATED BY '\\n'
STORED AS TEXTFILE
LOCATION '{place}'"""


def _made(table: str, place: str, query: str) -> str:
    return f"""CREATE TABLE {table}
WITH (
  format = 'PARQUET',
  write_compression = 'SNAPPY',
  external_location = '{place}/'
) AS
{query}"""


def _read(raw: str, place: str) -> str:
    return f"""SELECT "$path" AS path, {_file('"$path"')} AS file,
  expected_quantity AS expected, bin_fcsku_data AS items
FROM {raw}
WHERE "$path" = '{place}' || {_file('"$path"')} AND lower("$path") LIKE '%.json'"""


def _file(path: str) -> str:
    return f"regexp_extract({path}, '[^/]*$')"


def _shown(number: str) -> str:
    """A decimal as it stands in a file, without the zeros that fill its scale."""
    return f"regexp_replace(CAST({number} AS varchar), '\\.?0+$', '')"


def _each(read: str) -> str:
    """The records with the reason why they are refused, and their items with theirs."""
    names = ", ".join(
        [
            "item.asin AS asin",
            "item.name AS name",
            "item.normalizedname AS normalized_name",
            "item.quantity AS quantity",
        ]
        + [f"item.{name}.unit AS {name}_unit, item.{name}.value AS {name}" for name in UNITS]
    )
    measures = "\n".join(
        f"""      WHEN {name} < 0
        THEN '{name} of ' || item_asin || ' is ' || {_shown(name)} || ', not 0 or more'
      WHEN {name} IS NOT NULL AND coalesce({name}_unit, '') <> '{unit}' THEN '{name} of ' || item_asin
        || ' is in ' || coalesce('"' || {name}_unit || '"', 'null') || ', not in "{unit}"'"""
        for name, unit in UNITS.items()
    )
    return f"""WITH records AS (
  SELECT path, file, regexp_extract(file, '^(.*)\\.[^.]*$', 1) AS id,
    max(expected) AS expected, arbitrary(items) AS items, count(*) AS documents
  FROM {read}
  GROUP BY path, file
), unnested AS (
  SELECT path, key, element_at(items, key) AS item
  FROM records
  CROSS JOIN UNNEST(map_keys(items)) AS keys (key)
), named AS (
  SELECT path, key, item IS NULL AS missing, coalesce(nullif(item.asin, ''), key) AS item_asin, {names}
  FROM unnested
), judged AS (
  SELECT *,
    CASE
      WHEN missing THEN 'item ' || key || ' is null, not a mapping'
{_whole("'quantity of ' || item_asin", "quantity")}
{measures}
    END AS reason
  FROM named
), sums AS (
  SELECT path, count(*) AS distinct_items, sum(quantity) AS quantity_sum, min(reason) AS reason
  FROM judged
  GROUP BY path
), same AS (
  SELECT id, count(*) AS files
  FROM records
  GROUP BY id
), bins AS (
  SELECT r.path, r.file, r.id, r.expected,
    coalesce(s.distinct_items, 0) AS distinct_items, coalesce(s.quantity_sum, 0) AS quantity_sum,
    CASE
      WHEN r.id = '' THEN 'the id is empty'
      WHEN r.id LIKE '%.%' THEN 'the id has a dot, which ends a WebDataset key'
      WHEN strpos(r.id, chr(92)) > 0 THEN 'the id has a slash'
      WHEN regexp_like(r.id, '[\\p{{C}}\\p{{Z}}]') THEN 'the id has whitespace or an unprintable character'
      WHEN length(to_hex(to_utf8(r.id))) > {2 * ID_BYTES} THEN 'the id is longer than {ID_BYTES} bytes'
      WHEN n.files > 1 THEN CAST(n.files AS varchar) || ' files have this id'
      WHEN r.documents > 1 THEN 'invalid JSON: unexpected content after document'
{_whole("'EXPECTED_QUANTITY'", "r.expected")}
      WHEN r.items IS NULL THEN 'BIN_FCSKU_DATA is missing or null'
      ELSE s.reason
    END AS reason
  FROM records r
  JOIN same n ON n.id = r.id
  LEFT JOIN sums s ON s.path = r.path
)"""


def _whole(what: str, number: str) -> str:
    told = f"{what} || ' is ' || {_shown(number)} ||"
    return f"""      WHEN {number} IS NULL THEN {what} || ' is missing or null'
      WHEN {number} <> floor({number}) THEN {told} ', not a whole number'
      WHEN {number} < 0 THEN {told} ', not 0 or more'
      WHEN {number} > {MAX_COUNT} THEN {told} ', too large for a count'"""


def _bins(read: str) -> str:
    return f"""{_each(read)}
SELECT id,
  CAST(expected AS bigint) AS expected_quantity,
  CAST(distinct_items AS bigint) AS distinct_items,
  CAST(quantity_sum AS bigint) AS quantity_sum,
  quantity_sum <> expected AS quantity_differs
FROM bins
WHERE reason IS NULL"""


def _items(read: str) -> str:
    measures = ",\n  ".join(
        f"CAST(CAST(j.{name} AS varchar) AS double) AS {name}_{'lb' if unit == 'pounds' else 'in'}"
        for name, unit in UNITS.items()
    )
    return f"""{_each(read)}
SELECT b.id,
  j.item_asin AS asin,
  j.name,
  j.normalized_name,
  CAST(j.quantity AS bigint) AS quantity,
  {measures}
FROM judged j
JOIN bins b ON b.path = j.path
WHERE b.reason IS NULL"""


def _skipped(read: str, lines: str, place: str) -> str:
    return f"""{_each(read)}, unread AS (
  SELECT "$path" AS path, {_file('"$path"')} AS file, max(regexp_like(line, '[^\\s]')) AS written
  FROM {lines}
  GROUP BY 1, 2
)
SELECT id, file, reason FROM bins WHERE reason IS NOT NULL
UNION ALL
SELECT regexp_extract(u.file, '^(.*)\\.[^.]*$', 1), u.file,
  CASE WHEN u.written THEN 'invalid JSON' ELSE 'the file is empty' END
FROM unread u
LEFT JOIN records r ON r.path = u.path
WHERE r.path IS NULL AND lower(u.file) LIKE '%.json' AND u.path = '{place}' || u.file
ORDER BY 2"""
