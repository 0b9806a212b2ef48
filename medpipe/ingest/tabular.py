"""Files of tables -> bronze.record: CSV, gzip or Parquet; columns in any order and either case."""

import csv
import gzip
import re
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DecimalType, FractionalType

from medpipe.errors import ContractError, DataError
from medpipe.ingest.manifest import DeliveredFile
from medpipe.mappings.mapping import DELETED, Mapping

SUFFIXES = (".csv", ".csv.gz", ".txt", ".txt.gz", ".parquet")
CORRUPT = "_medpipe_corrupt"
# What a mapping calls the name of the file itself, without folder and endings.
FILE = "_file"


def table_of(file: DeliveredFile, mapping: Mapping) -> str | None:
    """The table a file belongs to: its folder's or its own name, e.g. measurement/part-0.csv, deleted/PERSON.csv.gz."""
    path = Path(file.name.lower())
    if not path.name.endswith(SUFFIXES):
        return None
    table = next((name for name in (path.parent.name, path.name.split(".")[0]) if name in mapping.required), None)
    if table and file.is_deletions:
        return DELETED + table if DELETED + table in mapping.required else None
    return table


def rows(spark: SparkSession, files: list[DeliveredFile], mapping: Mapping) -> list[DataFrame]:
    """source_table, file, fields, corrupt and fault of every row, a frame for each shape of header.

    Raises:
        DataError: BAD_HEADER.
        ContractError: MISSING_COLUMN, DUPLICATE_COLUMN.
    """
    groups: dict[tuple, list[DeliveredFile]] = defaultdict(list)
    for file in files:
        table = table_of(file, mapping)
        if table is not None:
            is_parquet = file.name.lower().endswith(".parquet")
            groups[(table, is_parquet, *_header(file, table, mapping))].append(file)
    return [_group(spark, files, *shape) for shape, files in sorted(groups.items())]


def _group(
    spark: SparkSession,
    files: list[DeliveredFile],
    table: str,
    is_parquet: bool,
    separator: str,
    header: tuple[str, ...],
    needs_name: bool,
) -> DataFrame:
    """Rows of files that share table and header."""
    paths = paths_of(files)
    if is_parquet:
        frame = spark.read.parquet(*paths).withColumn(CORRUPT, F.lit(None).cast("string"))
    else:
        schema = ", ".join(f"`{column}` string" for column in header) + f", {CORRUPT} string"
        frame = (
            spark.read.schema(schema)
            .option("header", True)
            .option("sep", separator)
            .option("quote", '"')
            .option("escape", '"')
            .option("mode", "PERMISSIVE")
            .option("columnNameOfCorruptRecord", CORRUPT)
            .csv(paths)
        )
    # Sorted by name, so that the same row in another column order has the same hash.
    pairs = [part for column in sorted(header, key=str.lower) for part in (F.lit(column.lower()), _text(frame, column))]
    present = F.map_filter(F.create_map(*pairs), lambda _, value: value.isNotNull() & (value != ""))
    fields = F.when(F.col(CORRUPT).isNull(), present).otherwise(F.create_map().cast("map<string,string>"))
    stem = F.regexp_extract("file", r"([^/.]+)[^/]*$", 1)
    return frame.select("*", name_of(files).alias("file")).select(
        F.lit(table).alias("source_table"),
        "file",
        F.map_concat(fields, F.create_map(F.lit(FILE), stem)).alias("fields") if needs_name else fields.alias("fields"),
        F.col(CORRUPT).alias("corrupt"),
        F.when(F.col(CORRUPT).isNotNull(), "FIELD_COUNT").alias("fault"),
    )


def paths_of(files: list[DeliveredFile]) -> list[str]:
    """The files as Spark wants them named: it reads a path as a pattern and does not decode it."""
    folder = _folder(files)
    return ["file://" + re.sub(r"([\\\[\]{}*?])", r"\\\1", f"{folder}/{file.name}") for file in files]


def name_of(files: list[DeliveredFile]) -> Column:
    """The delivered name of the file a row of Spark's comes from: its path below the delivery's folder."""
    encoded = F.replace(F.regexp_replace("_metadata.file_path", "^file:/+", "/"), F.lit("+"), F.lit("%2B"))
    # By length: in a map of every name Spark would look from its first entry on, row by row.
    return F.substr(F.url_decode(encoded), F.lit(len(_folder(files)) + 2))


def _folder(files: list[DeliveredFile]) -> str:
    """Where the delivery lies."""
    return str(files[0].path.parents[files[0].name.count("/")].resolve()).rstrip("/")


def _text(frame: DataFrame, column: str) -> Column:
    """A column as text; whole numbers in a floating type, as ids become beside a null, without point or exponent."""
    value = F.col(f"`{column}`")
    if isinstance(frame.schema[column].dataType, FractionalType) and not isinstance(
        frame.schema[column].dataType, DecimalType
    ):
        is_whole = (value == F.floor(value)) & (F.abs(value) < 1e15)
        return F.when(is_whole, value.cast("decimal(38,0)").cast("string")).otherwise(value.cast("string"))
    return value.cast("string")


def _header(file: DeliveredFile, table: str, mapping: Mapping) -> tuple[str, tuple[str, ...], bool]:
    """Separator and column names of a file, as written, and whether its name is a column too.

    The required ones are there, each once.
    """
    if file.name.lower().endswith(".parquet"):
        separator, header = "", tuple(pq.ParquetFile(file.path).schema_arrow.names)
    else:
        line = _first_line(file)
        separator = "\t" if "\t" in line and "," not in line else ","
        header = tuple(name.strip() for name in next(csv.reader([line], delimiter=separator)))
    lower = [name.lower() for name in header]
    required = set(mapping.required[table])
    missing = sorted(required - {*lower, FILE})
    if missing:
        # What was found is not said: without a header it would be a patient's row.
        raise ContractError(
            "MISSING_COLUMN",
            f"{file.name}: {len(missing)} of {len(required - {FILE})} columns needed are not in its first line, "
            f"{', '.join(missing)}; is that line a header?",
        )
    twice = sorted({name for name in lower if lower.count(name) > 1})
    if twice:
        raise ContractError("DUPLICATE_COLUMN", f"{file.name}: {', '.join(twice)} stands more than once in the header")
    return separator, header, FILE in required


def _first_line(file: DeliveredFile) -> str:
    opened = gzip.open if file.name.lower().endswith(".gz") else open
    try:
        # Of the first line alone: the others are judged one by one, and Python decodes ahead.
        with opened(file.path, "rt", encoding="utf-8-sig", errors="surrogateescape") as text:
            line = text.readline()
        line.encode()
        return line
    except (UnicodeEncodeError, EOFError, gzip.BadGzipFile):
        raise DataError(
            "BAD_HEADER", f"{file.name}: the first line is not UTF-8 text; deliver UTF-8 CSV, gzip or Parquet"
        ) from None
