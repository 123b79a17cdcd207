"""Spark on this machine, or wherever its own settings lead: a session for the length of one task."""

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bincount.engines.spark import Written, write_tables
from bincount.errors import BadInput, BincountError, install, one_line

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: Spark's own words are for those who run a cluster: errors alone are told here, and in one line.
LOGGING = """
rootLogger.level = off
rootLogger.appenderRef.stderr.ref = stderr
appender.stderr.type = Console
appender.stderr.name = stderr
appender.stderr.target = SYSTEM_ERR
appender.stderr.layout.type = PatternLayout
logger.gateway.name = org.apache.spark.api.python.PythonGatewayServer
logger.gateway.level = off
"""

CONFIG = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    # Else each file gets a hidden one with its checksum.
    "spark.hadoop.fs.file.impl": "org.apache.hadoop.fs.RawLocalFileSystem",
}


def write_with_spark(records: str, out: str) -> Written:
    """Make the tables of ``records`` (a folder, or an address that this Spark can read) in ``out``.

    Raises BadInput where Spark or Java is missing, and BincountError with what Spark says of a failure.
    """
    if not importlib.util.find_spec("pyspark"):
        raise BadInput(f"tables.engine=spark: pyspark is not installed: {install('spark')}")
    home = os.environ.get("JAVA_HOME")
    if not (Path(home, "bin", "java").exists() if home else shutil.which("java")):
        raise BadInput("tables.engine=spark: there is no Java: install version 17, or set JAVA_HOME")
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        with _session() as spark:
            return write_tables(spark, _path(records), _path(out))
    except (PySparkException, Py4JError) as error:
        told = str(getattr(error, "java_exception", "") or error)
        if 'for scheme "s3"' in told:
            raise BadInput(
                f"tables.engine=spark: {records}: this machine's Spark has no S3: copy the records to a "
                "folder, or take `python launch/submit.py tables`, whose Spark has"
            ) from None
        raise BincountError(f"Spark: {one_line(Exception(told))}") from None


@contextmanager
def _session() -> "Iterator[SparkSession]":
    from pyspark.sql import SparkSession

    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    with tempfile.TemporaryDirectory() as folder:
        logging = Path(folder, "log4j2.properties")
        logging.write_text(LOGGING)
        builder = SparkSession.builder.appName("bincount tables")
        for name, value in CONFIG.items():
            builder = builder.config(name, value)
        options = f"-Dlog4j2.configurationFile={logging.as_uri()}"
        spark = builder.config("spark.driver.extraJavaOptions", options).getOrCreate()
        try:
            yield spark
        finally:
            spark.stop()


def _path(address: str) -> str:
    return address if "://" in address else f"file://{Path(address).resolve()}"
