"""Records: what is read, what is refused and why, and the tables made of them."""

from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bincount.data.records import (
    BINS_SCHEMA,
    ITEMS_SCHEMA,
    BadRecord,
    Item,
    Record,
    parse_record,
    record_tables,
)

ITEM = {
    "asin": "B000C33MI2",
    "height": {"unit": "IN", "value": 2.75},
    "length": {"unit": "IN", "value": 4},
    "name": "Oil filter",
    "normalizedName": "Oil filter",
    "quantity": 4,
    "weight": {"unit": "pounds", "value": 0.5},
    "width": {"unit": "IN", "value": 3.0},
}


def record(count: object = 4, **changes: object) -> bytes:
    return orjson.dumps({"BIN_FCSKU_DATA": {"B000C33MI2": ITEM | changes}, "EXPECTED_QUANTITY": count})


def test_reads_a_record() -> None:
    found = parse_record("00001", record())
    item = Item("B000C33MI2", "Oil filter", "Oil filter", 4, height=2.75, length=4.0, width=3.0, weight=0.5)
    assert found == Record("00001", 4, (item,))
    assert (found.distinct_items, found.quantity_sum, found.quantity_differs) == (1, 4, False)


def test_holes_are_none() -> None:
    holes = ("name", "normalizedName", "height", "length", "width", "weight")
    nulls = parse_record("1", record(**dict.fromkeys(holes)))
    assert nulls.items == (Item("B000C33MI2", None, None, 4, None, None, None, None),)
    missing = orjson.dumps({"BIN_FCSKU_DATA": {"B000C33MI2": {"quantity": 4}}, "EXPECTED_QUANTITY": 4})
    assert parse_record("1", missing) == nulls
    no_value = parse_record("1", record(weight={"unit": "pounds", "value": None}))
    assert no_value.items[0].weight is None


def test_an_empty_bin_is_a_record() -> None:
    empty = parse_record("00013", b'{"BIN_FCSKU_DATA": {}, "EXPECTED_QUANTITY": 0}')
    assert empty == Record("00013", 0, ())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (b"{", "invalid JSON: unexpected end of data"),
        (b"[1]", "the record is [1], not a mapping"),
        (b'{"BIN_FCSKU_DATA": {}}', "EXPECTED_QUANTITY is missing"),
        (b'{"EXPECTED_QUANTITY": 1}', "BIN_FCSKU_DATA is missing"),
        (b'{"EXPECTED_QUANTITY": 1, "BIN_FCSKU_DATA": null}', "BIN_FCSKU_DATA is null, not a mapping"),
        (b'{"EXPECTED_QUANTITY": 1, "BIN_FCSKU_DATA": {"B": 2}}', "item B is 2, not a mapping"),
        (b'{"EXPECTED_QUANTITY": 1, "BIN_FCSKU_DATA": {"B": {}}}', "quantity of B is missing"),
        (record(-1), "EXPECTED_QUANTITY is -1, not 0 or more"),
        (record(2.5), "EXPECTED_QUANTITY is 2.5, not a whole number"),
        (record("2"), 'EXPECTED_QUANTITY is "2", not a whole number'),
        (record(True), "EXPECTED_QUANTITY is true, not a whole number"),
        (record(None), "EXPECTED_QUANTITY is null, not a whole number"),
        (record(10**12), "EXPECTED_QUANTITY is 1000000000000, too large for a count"),
        (record(quantity=-3), "quantity of B000C33MI2 is -3, not 0 or more"),
        (record(quantity=None), "quantity of B000C33MI2 is null, not a whole number"),
        (record(name=7), "name of B000C33MI2 is 7, not a text"),
        (record(height=7), "height of B000C33MI2 is 7, not a mapping"),
        (record(width={"unit": "CM", "value": 7}), 'width of B000C33MI2 is in "CM", not in "IN"'),
        (record(weight={"value": 7}), 'weight of B000C33MI2 is in null, not in "pounds"'),
        (record(weight={"unit": "pounds", "value": "7"}), 'weight of B000C33MI2 is "7", not a number'),
        (record(weight={"unit": "pounds", "value": -7}), "weight of B000C33MI2 is -7, not 0 or more"),
        (record(["x" * 99]), f'EXPECTED_QUANTITY is ["{"x" * 38}…, not a whole number'),
    ],
)
def test_says_why_a_record_cannot_be_used(text: bytes, reason: str) -> None:
    with pytest.raises(BadRecord) as caught:
        parse_record("1", text)
    assert str(caught.value) == reason


def test_invalid_json_is_told_apart_from_a_wrong_record() -> None:
    with pytest.raises(BadRecord, match=r"^invalid JSON: "):
        parse_record("1", b"\xff{}")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(0, 9)
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(), part, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(ITEM)), JSON, JSON)
def test_any_json_gives_a_record_or_one_line(key: str, value: object, count: object) -> None:
    problem, found = None, None
    try:
        found = parse_record("1", record(count, **{key: value}))
    except BadRecord as error:
        problem = str(error)
    assert problem is None or problem.isprintable()
    assert found is None or record_tables([found])[0].num_rows == 1


@given(st.binary())
def test_any_bytes_give_a_record_or_a_reason(text: bytes) -> None:
    with pytest.raises(BadRecord):
        parse_record("1", text)


def test_tables_keep_order_and_nulls_and_flag_other_sums() -> None:
    records = [
        parse_record("2", record(5, weight=None)),
        Record("00001", 0, ()),
        parse_record("1", record(4, name=None)),
    ]
    bins, items = record_tables(iter(records))
    assert bins.schema == BINS_SCHEMA
    assert items.schema == ITEMS_SCHEMA
    assert bins.to_pydict() == {
        "id": ["2", "00001", "1"],
        "expected_quantity": [5, 0, 4],
        "distinct_items": [1, 0, 1],
        "quantity_sum": [4, 0, 4],
        "quantity_differs": [True, False, False],
    }
    assert items["id"].to_pylist() == ["2", "1"]
    assert items["name"].to_pylist() == ["Oil filter", None]
    assert items["weight_lb"].to_pylist() == [None, 0.5]
    assert [items[name][0].as_py() for name in ("height_in", "length_in", "width_in")] == [2.75, 4.0, 3.0]


def test_no_records_give_empty_tables() -> None:
    bins, items = record_tables([])
    assert (bins.schema, bins.num_rows) == (BINS_SCHEMA, 0)
    assert (items.schema, items.num_rows) == (ITEMS_SCHEMA, 0)


@pytest.fixture(scope="module")
def real(abid_records: Path) -> tuple[pa.Table, pa.Table]:
    paths = sorted(abid_records.glob("*.json"))
    return record_tables(parse_record(path.stem, path.read_bytes()) for path in paths)


@pytest.mark.abid
def test_real_bins(real: tuple[pa.Table, pa.Table]) -> None:
    bins, _ = real
    assert bins.num_rows == 10_677
    assert pc.max(bins["expected_quantity"]).as_py() == 88
    assert pc.sum(pc.equal(bins["distinct_items"], 0)).as_py() == 158
    flagged = bins.filter(bins["quantity_differs"])
    columns = ("id", "expected_quantity", "quantity_sum")
    assert list(zip(*(flagged[name].to_pylist() for name in columns), strict=True)) == [
        ("01405", 5, 4),
        ("01406", 6, 5),
        ("02081", 2, 1),
        ("02082", 4, 3),
        ("09032", 3, 1),
        ("09033", 4, 2),
    ]


@pytest.mark.abid
def test_real_items(real: tuple[pa.Table, pa.Table]) -> None:
    _, items = real
    assert items.num_rows == 28_144
    assert {name: items[name].null_count for name in items.column_names} == {
        "id": 0,
        "asin": 0,
        "name": 4,
        "normalized_name": 44,
        "quantity": 0,
        "height_in": 46,
        "length_in": 46,
        "width_in": 46,
        "weight_lb": 606,
    }
    sides = [items[name] for name in ("height_in", "width_in", "length_in")]
    assert pc.min(items["quantity"]).as_py() == 1
    assert pc.all(pc.less_equal(sides[0], sides[1])).as_py()
    assert pc.all(pc.less_equal(sides[1], sides[2])).as_py()
