"""ABID's records: what should be in a bin, one JSON file a photo.

A record is `{"BIN_FCSKU_DATA": {ASIN: item, ...}, "EXPECTED_QUANTITY": count}`.
What the 10,677 real ones hold:

- `EXPECTED_QUANTITY` is always a whole number, 0 to 88. It is the count that a photo is trained on. In six
  records it differs from the sum of the items' quantities: those bins are flagged, not dropped.
- `BIN_FCSKU_DATA` is always there, and empty in the 158 empty bins and in no other. An item's key is always
  its `asin`; its quantity is always a whole number above 0.
- `height`, `length`, `width` are `{"unit": "IN", "value": ...}` and `weight` has the unit "pounds"; there are
  no other units, and all values are above 0. A hole is null in place of the whole mapping: 606 weights, and
  the three dimensions of 46 items together. Height is never more than width, nor width than length: they are
  an item's shortest, middle and longest side.
- `name` and `normalizedName` are both null in 4 items. The 16 records with an unpadded id have no
  `normalizedName` at all (40 items), and add `image_fname`, which only repeats the id.
- Names are kept as they are: 3 end in a no-break space and 3 hold a tab.

Holes become None. A value of another type, in another unit or below 0 is no hole: the record is refused, so
that it is seen in `skipped.csv` and no centimetre stands in a column of inches.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import orjson
import pyarrow as pa

MAX_COUNT = 2**31 - 1
"""No count in a record or label may be larger: sums of them then fit 64 bits."""

BINS_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("expected_quantity", pa.int64(), nullable=False),
        pa.field("distinct_items", pa.int64(), nullable=False),
        pa.field("quantity_sum", pa.int64(), nullable=False),
        pa.field("quantity_differs", pa.bool_(), nullable=False),
    ]
)
"""One row a record. `quantity_differs`: the expected quantity is not the sum of the items' quantities."""

ITEMS_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("asin", pa.string(), nullable=False),
        pa.field("name", pa.string()),
        pa.field("normalized_name", pa.string()),
        pa.field("quantity", pa.int64(), nullable=False),
        pa.field("height_in", pa.float64()),
        pa.field("length_in", pa.float64()),
        pa.field("width_in", pa.float64()),
        pa.field("weight_lb", pa.float64()),
    ]
)
"""One row an item of a record; `id` is the record's. Inches and pounds; holes are nulls."""


class BadRecord(ValueError):
    """A record that cannot be used; the message is the reason, one line, as it stands in `skipped.csv`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason if reason.isprintable() else reason.encode("unicode_escape").decode())


@dataclass(frozen=True, slots=True)
class Item:
    """One product in a bin. None is a hole in the record."""

    asin: str
    name: str | None
    normalized_name: str | None
    quantity: int
    height: float | None
    """Inches, as are length and width."""
    length: float | None
    width: float | None
    weight: float | None
    """Pounds."""


@dataclass(frozen=True, slots=True)
class Record:
    """What should be in the bin of one photo."""

    id: str
    expected_quantity: int
    """The count that the photo is trained on."""
    items: tuple[Item, ...]
    """In the order of the file."""

    @property
    def distinct_items(self) -> int:
        return len(self.items)

    @property
    def quantity_sum(self) -> int:
        return sum(item.quantity for item in self.items)

    @property
    def quantity_differs(self) -> bool:
        return self.quantity_sum != self.expected_quantity


def parse_record(id: str, text: bytes) -> Record:
    """Read the record of photo `id` from the JSON `text`; raises BadRecord where it cannot be used."""
    if not text.strip():
        raise BadRecord("the file is empty")
    try:
        fields = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadRecord(f"invalid JSON: {error.msg}") from None
    fields = _mapping("the record", fields)
    count = whole_number("EXPECTED_QUANTITY", _present("EXPECTED_QUANTITY", fields, "EXPECTED_QUANTITY"))
    items = _mapping("BIN_FCSKU_DATA", _present("BIN_FCSKU_DATA", fields, "BIN_FCSKU_DATA"))
    return Record(id, count, tuple(_item(key, item) for key, item in items.items()))


def whole_number(what: str, value: object) -> int:
    """Give a JSON value as a count (2.0 is one, true and "2" are not); raises BadRecord naming `what`."""
    if type(value) is int and 0 <= value <= MAX_COUNT:  # as nearly all are
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise BadRecord(f"{what} is {_shown(value)}, not a whole number")
    if value < 0:
        raise BadRecord(f"{what} is {_shown(value)}, not 0 or more")
    if value > MAX_COUNT:
        raise BadRecord(f"{what} is {_shown(value)}, too large for a count")
    return int(value)


def record_tables(records: Iterable[Record]) -> tuple[pa.Table, pa.Table]:
    """Flatten records into a table of bins (BINS_SCHEMA) and one of items (ITEMS_SCHEMA), in their order."""
    records = tuple(records)
    bins = {
        "id": [record.id for record in records],
        "expected_quantity": [record.expected_quantity for record in records],
        "distinct_items": [record.distinct_items for record in records],
        "quantity_sum": [record.quantity_sum for record in records],
        "quantity_differs": [record.quantity_differs for record in records],
    }
    every = [item for record in records for item in record.items]
    items = {
        "id": [record.id for record in records for _ in record.items],
        "asin": [item.asin for item in every],
        "name": [item.name for item in every],
        "normalized_name": [item.normalized_name for item in every],
        "quantity": [item.quantity for item in every],
        "height_in": [item.height for item in every],
        "length_in": [item.length for item in every],
        "width_in": [item.width for item in every],
        "weight_lb": [item.weight for item in every],
    }
    return pa.Table.from_pydict(bins, BINS_SCHEMA), pa.Table.from_pydict(items, ITEMS_SCHEMA)


def _item(key: str, value: object) -> Item:
    fields = _mapping(f"item {key}", value)
    asin = _text(key, fields, "asin") or key
    return Item(
        asin,
        _text(asin, fields, "name"),
        _text(asin, fields, "normalizedName"),
        whole_number(f"quantity of {asin}", _present(f"quantity of {asin}", fields, "quantity")),
        _measure(asin, fields, "height", "IN"),
        _measure(asin, fields, "length", "IN"),
        _measure(asin, fields, "width", "IN"),
        _measure(asin, fields, "weight", "pounds"),
    )


def _text(asin: str, fields: Mapping[str, object], key: str) -> str | None:
    value = fields.get(key)
    if value is None or isinstance(value, str):
        return value
    raise BadRecord(f"{key} of {asin} is {_shown(value)}, not a text")


def _measure(asin: str, fields: Mapping[str, object], key: str, unit: str) -> float | None:
    """Give a length in inches or a weight in pounds, or None where the record has a hole."""
    measure = fields.get(key)
    if measure is None:
        return None
    if type(measure) is dict:
        value = measure.get("value")
        if type(value) is float and value >= 0 and measure.get("unit") == unit:  # as nearly all are
            return value
    measure = _mapping(f"{key} of {asin}", measure)
    value = measure.get("value")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRecord(f"{key} of {asin} is {_shown(value)}, not a number")
    if value < 0:
        raise BadRecord(f"{key} of {asin} is {_shown(value)}, not 0 or more")
    if measure.get("unit") != unit:
        raise BadRecord(f'{key} of {asin} is in {_shown(measure.get("unit"))}, not in "{unit}"')
    return float(value)


def _mapping(what: str, value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise BadRecord(f"{what} is {_shown(value)}, not a mapping")
    return value


def _present(what: str, fields: Mapping[str, object], key: str) -> object:
    if key not in fields:
        raise BadRecord(f"{what} is missing")
    return fields[key]


def _shown(value: object) -> str:
    """Show a JSON value as it stands in a file, cut short."""
    text = orjson.dumps(value).decode()
    return text if len(text) <= 40 else f"{text[:40]}…"
