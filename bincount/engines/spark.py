"""The tables of records by PySpark 3.5: the same file runs on a laptop, as a Glue job and on EMR.

    spark-submit spark.py --records s3://mine/metadata --out s3://mine/bins

It needs nothing but PySpark, so that Glue takes it as it is: what it repeats of `bincount.data.records` and
`bincount.data.ids` is held against them by `tests/test_spark.py`. All work is done by Spark's own functions;
no Python runs on its workers. ``out`` gets ``tables/bins``, ``tables/items`` and, last of all,
``skipped.csv``; that one is written by the driver, who holds its rows.
"""

import argparse
import csv
import io
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

#: Counts are read as doubles, since 2.0 is one, and a text in quotes is refused by Spark itself.
ITEM = """struct<
    asin: string, name: string, normalizedName: string, quantity: double,
    height: struct<unit: string, value: double>, length: struct<unit: string, value: double>,
    width: struct<unit: string, value: double>, weight: struct<unit: string, value: double>>"""

#: A map, as Spark would make a column of each ASIN. The record stands in a field of its own, so that what
#: follows it in the file is not overlooked; ``broken`` gets the text of what does not fit.
RECORD = f"record struct<EXPECTED_QUANTITY: double, BIN_FCSKU_DATA: map<string, {ITEM}>>, broken string"

#: JSON as its standard has it.
STRICT = {
    "mode": "PERMISSIVE",
    "columnNameOfCorruptRecord": "broken",
    "allowSingleQuotes": "false",
    "allowNonNumericNumbers": "false",
}

#: A folder is named as it is, with brackets and asterisks; a folder k=1 in it is a folder, and no column.
AS_NAMED = {"__globPaths__": "false", "recursiveFileLookup": "true"}

MAX_COUNT = 2**31 - 1
ID_BYTES = 95
UNITS = {"height": "IN", "length": "IN", "width": "IN", "weight": "pounds"}

#: What Spark has to be told before it reads many small files and writes what others read.
SETTINGS = {
    # A record has 2 kB: so many fit into one task.
    "spark.sql.files.openCostInBytes": "65536",
    # A measure of the wrong type spoils its record, and is no hole.
    "spark.sql.json.enablePartialResults": "false",
    "spark.sql.caseSensitive": "true",
    "spark.sql.mapKeyDedupPolicy": "LAST_WIN",
}


class Refused(NamedTuple):
    """A record that is in no table: a row of `skipped.csv`."""

    id: str
    file: str
    reason: str


class Written(NamedTuple):
    """How many records there were, good and bad, and those that are in neither table."""

    records: int
    refused: "list[Refused]"


def write_tables(spark: "SparkSession", records: str, out: str) -> Written:
    """Read ``records`` (a folder of ID.json) and write ``out/tables``, where there are none yet."""
    hadoop = spark.sparkContext._jsc.hadoopConfiguration()
    hadoop.set("mapreduce.fileoutputcommitter.marksuccessfuljobs", "false")  # no file but tables
    for name, value in SETTINGS.items():
        spark.conf.set(name, value)
    files = spark.read.format("binaryFile").options(**AS_NAMED).load(records)
    jvm = spark._jvm
    assert jvm is not None
    path = jvm.org.apache.hadoop.fs.Path(records)
    top = path.getFileSystem(hadoop).makeQualified(path)
    # One text for one call: a call a name would take minutes. They are encoded, so none has a new line.
    listed = jvm.org.apache.hadoop.util.StringUtils.join("\n", files._jdf.inputFiles())
    names = names_in(listed.split("\n"), top.toUri().getPath())
    unread = unusable(names)
    read = parsed(spark, files, top.toString(), [each.file for each in unread]).cache()
    good = read.where("reason is null")
    bins(good).write.option("compression", "snappy").parquet(f"{out}/tables/bins")
    items(good).write.option("compression", "snappy").parquet(f"{out}/tables/items")
    left_out = read.where("reason is not null").select("id", "file", "reason").collect()
    if read.count() + len(unread) < len(names):
        there = {row.file for row in read.select("file").collect()} | {each.file for each in unread}
        unread += [Refused(id_of(name), name, "the file is empty") for name in names if name not in there]
    read.unpersist()
    refused = [*unread, *(Refused(*row) for row in left_out)]
    return Written(len(names), sorted(refused, key=lambda row: row.file))


def names_in(addresses: "list[str]", folder: str) -> "list[str]":
    """The names of the JSON files among encoded ``addresses`` that lie in ``folder`` itself."""
    paths = [unquote(urlsplit(address).path).rpartition("/") for address in addresses]
    return [
        name for above, _, name in paths if above == folder.rstrip("/") and name.lower().endswith(".json")
    ]


def id_of(name: str) -> str:
    return name.rpartition(".")[0]


def unusable(names: "list[str]") -> "list[Refused]":
    """The files whose names give no id of their own."""
    same: dict[str, list[str]] = {}
    for name in sorted(names):
        same.setdefault(id_of(name), []).append(name)
    refused = []
    for id, files in same.items():
        problem = id_problem(id)
        if problem is None and len(files) > 1:
            problem = f"{len(files)} files have this id: {', '.join(files)}"
        if problem is not None:
            refused += [Refused(id, name, problem) for name in files]
    return refused


def id_problem(id: str) -> "str | None":
    """As `bincount.data.ids` has it."""
    if not id:
        return "the id is empty"
    if "." in id:
        return "the id has a dot, which ends a WebDataset key"
    if "/" in id or "\\" in id:
        return "the id has a slash"
    if " " in id or not id.isprintable():
        return "the id has whitespace or an unprintable character"
    if len(id.encode()) > ID_BYTES:
        return f"the id is longer than {ID_BYTES} bytes"
    return None


def parsed(spark: "SparkSession", files: "DataFrame", folder: str, without: "list[str]") -> "DataFrame":
    """A row a file that is not empty: id, file, count, its items as a map, and why it is refused, or null.

    ``without``: names of files that are refused already. Spark gives no row for a file of 0 bytes.
    """
    from pyspark.sql import functions as f

    file, text = f.substring_index("path", "/", -1), f.col("content").cast("string")
    in_folder = f.col("path") == f.concat(f.lit(f"{folder.rstrip('/')}/"), file)
    there = files.where(in_folder & f.lower("path").endswith(".json")).select(file.alias("file"), "content")
    if without:
        named = spark.createDataFrame([(name,) for name in without], "file string")
        there = there.join(f.broadcast(named), "file", "left_anti")
    read = there.select(
        f.regexp_extract("file", r"(?s)^(.*)\.[^.]*$", 1).alias("id"),
        "file",
        (f.regexp_replace(text, r"\s+", "") == "").alias("empty"),
        # What is no UTF-8 changes when it is decoded and encoded.
        (f.encode(f.decode("content", "UTF-8"), "UTF-8") != f.col("content")).alias("no_text"),
        f.from_json(f.concat(f.lit('{"record":'), text, f.lit("}")), RECORD, STRICT).alias("read"),
    )
    found = read.select(
        "id",
        "file",
        "empty",
        "no_text",
        f.col("read.broken").alias("broken"),
        f.col("read.record").isNull().alias("missing"),
        f.col("read.record.EXPECTED_QUANTITY").alias("count"),
        # Of an item that stands twice the last counts.
        f.map_from_entries(f.map_entries("read.record.BIN_FCSKU_DATA")).alias("items"),
    )
    return found.select("id", "file", "count", "items", _reason().alias("reason"))


def bins(good: "DataFrame") -> "DataFrame":
    """`tables/bins`, in the order of the files' names."""
    from pyspark.sql import functions as f

    total = f.aggregate(f.map_values("items"), f.lit(0.0), lambda sum, item: sum + item["quantity"])
    return good.orderBy("file").select(
        "id",
        f.col("count").cast("bigint").alias("expected_quantity"),
        f.size("items").cast("bigint").alias("distinct_items"),
        total.cast("bigint").alias("quantity_sum"),
        (total != f.col("count")).alias("quantity_differs"),
    )


def items(good: "DataFrame") -> "DataFrame":
    """`tables/items`, in the order of the files' names and of the items in each."""
    from pyspark.sql import functions as f

    each = good.select("id", "file", f.posexplode("items").alias("place", "key", "item"))
    measures = [
        f.col(f"item.{name}.value").alias(f"{name}_{'lb' if unit == 'pounds' else 'in'}")
        for name, unit in UNITS.items()
    ]
    return each.orderBy("file", "place").select(
        "id",
        _asin(f.col("key"), f.col("item")).alias("asin"),
        f.col("item.name").alias("name"),
        f.col("item.normalizedName").alias("normalized_name"),
        f.col("item.quantity").cast("bigint").alias("quantity"),
        *measures,
    )


def _reason() -> "Column":
    """Why a row of :func:`parsed` is refused; the first of all reasons, and null where there is none."""
    from pyspark.sql import functions as f

    def whole(what: "Column", value: "Column") -> "Column":
        shown = f.concat(what, f.lit(" is "), _shown(value))
        return (
            f.when(value.isNull(), f.concat(what, f.lit(" is missing or null")))
            .when(value != f.floor(value), f.concat(shown, f.lit(", not a whole number")))
            .when(value < 0, f.concat(shown, f.lit(", not 0 or more")))
            .when(value > MAX_COUNT, f.concat(shown, f.lit(", too large for a count")))
        )

    def of_item(key: "Column", item: "Column") -> "Column":
        asin = _asin(key, item)
        reasons = [
            f.when(item.isNull(), f.concat(f.lit("item "), key, f.lit(" is null, not a mapping"))),
            whole(f.concat(f.lit("quantity of "), asin), item["quantity"]),
        ]
        for name, unit in UNITS.items():
            value, told = item[name]["value"], f.concat(f.lit(f"{name} of "), asin, f.lit(" is "))
            given = f.coalesce(f.concat(f.lit('"'), item[name]["unit"], f.lit('"')), f.lit("null"))
            reasons += [
                f.when(value < 0, f.concat(told, _shown(value), f.lit(", not 0 or more"))),
                f.when(value == float("inf"), f.concat(told, f.lit("too large for a number"))),
                f.when(
                    value.isNotNull() & ~item[name]["unit"].eqNullSafe(unit),
                    f.concat(told, f.lit("in "), given, f.lit(f', not in "{unit}"')),
                ),
            ]
        return f.coalesce(*reasons)

    items = f.col("items")
    problems = f.filter(
        f.transform(f.map_entries(items), lambda entry: of_item(entry["key"], entry["value"])),
        lambda reason: reason.isNotNull(),
    )
    return f.coalesce(
        f.when(f.col("empty"), "the file is empty"),
        f.when(f.col("no_text"), "invalid JSON: it is not UTF-8"),
        f.when(f.col("broken").isNotNull(), "invalid JSON, or a value of another type"),
        f.when(f.col("missing"), "the record is null, not a mapping"),
        whole(f.lit("EXPECTED_QUANTITY"), f.col("count")),
        f.when(items.isNull(), "BIN_FCSKU_DATA is missing or null"),
        f.element_at(f.slice(problems, 1, 1), 1),
    )


def _asin(key: "Column", item: "Column") -> "Column":
    """The item's ASIN, which its key tells where it has none itself."""
    from pyspark.sql import functions as f

    return f.when(item["asin"].isNull() | (item["asin"] == ""), key).otherwise(item["asin"])


def _shown(value: "Column") -> "Column":
    """A number as it stands in a file, or near enough: -1, 2.5."""
    from pyspark.sql import functions as f

    whole = (value == f.floor(value)) & (f.abs(value) < 1e15)
    return f.when(whole, value.cast("bigint").cast("string")).otherwise(value.cast("string"))


def skipped_csv(refused: "list[Refused]") -> bytes:
    """`skipped.csv`, as `bincount.data.skipped` writes it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Refused._fields)
    writer.writerows([cell.replace("\r", "\\r") for cell in row] for row in refused)
    return text.getvalue().encode("utf-8", errors="backslashreplace")


def main() -> None:
    """Run as a script. What Glue gives beside our own arguments is left alone."""
    from pyspark.sql import SparkSession

    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--records", required=True, help="folder or s3:// address of ID.json")
    parser.add_argument("--out", required=True, help="folder or s3:// address of the tables")
    given, _ = parser.parse_known_args()
    records, out = given.records.rstrip("/"), given.out.rstrip("/")
    spark = SparkSession.builder.appName("bincount tables").getOrCreate()
    number, refused = write_tables(spark, records, out)
    jvm = spark._jvm
    assert jvm is not None
    path = jvm.org.apache.hadoop.fs.Path(f"{out}/skipped.csv")
    file = path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration()).create(path, False)
    file.write(bytearray(skipped_csv(refused)))
    file.close()
    print(
        f"{out}/tables: of {number:,} records {len(refused):,} left out, each with its reason in skipped.csv"
    )


if __name__ == "__main__":
    main()
