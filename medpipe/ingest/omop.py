"""OMOP CDM 5.3 and 5.4 files -> bronze.record. CSV, gzip or Parquet; columns in any order and either case.

Source: OHDSI Common Data Model v5.3.1 and v5.4 specifications (ohdsi.github.io/CommonDataModel).
"""

import csv
import gzip
import re
from collections import defaultdict
from functools import reduce
from pathlib import Path

import pyarrow.parquet as pq
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql.types import DecimalType, FractionalType

from medpipe.errors import ContractError, DataError
from medpipe.ingest.manifest import DeliveredFile, Delivery

# Tables that are read, with the columns without which a row cannot be understood.
REQUIRED = {
    "person": ("person_id", "gender_concept_id", "year_of_birth"),
    "observation_period": (
        "observation_period_id",
        "person_id",
        "observation_period_start_date",
        "observation_period_end_date",
    ),
    "visit_occurrence": ("visit_occurrence_id", "person_id", "visit_concept_id", "visit_start_date"),
    "condition_occurrence": ("condition_occurrence_id", "person_id", "condition_concept_id", "condition_start_date"),
    "drug_exposure": ("drug_exposure_id", "person_id", "drug_concept_id", "drug_exposure_start_date"),
    "measurement": ("measurement_id", "person_id", "measurement_concept_id", "measurement_date"),
    "procedure_occurrence": ("procedure_occurrence_id", "person_id", "procedure_concept_id", "procedure_date"),
    "observation": ("observation_id", "person_id", "observation_concept_id", "observation_date"),
    "death": ("person_id", "death_date"),
    "concept": ("concept_id", "concept_name"),
}
SUFFIXES = (".csv", ".csv.gz", ".parquet")
CORRUPT = "_medpipe_corrupt"


def table_of(file: DeliveredFile) -> str | None:
    """The OMOP table a file belongs to: its folder's or its own name, e.g. measurement/part-0.csv, PERSON.csv.gz."""
    path = Path(file.name.lower())
    if not path.name.endswith(SUFFIXES):
        return None
    return next((name for name in (path.parent.name, path.name.split(".")[0]) if name in REQUIRED), None)


def records(spark: SparkSession, delivery: Delivery) -> DataFrame:
    """Columns of bronze.record for every row of every file that table_of knows.

    Raises:
        DataError: NOTHING_TO_READ, BAD_HEADER.
        ContractError: MISSING_COLUMN, DUPLICATE_COLUMN.
    """
    groups: dict[tuple, list[DeliveredFile]] = defaultdict(list)
    for file in delivery.files:
        table = table_of(file)
        if table is not None:
            groups[(table, file.name.lower().endswith(".parquet"), *_header(file, table))].append(file)
    if not groups:
        raise DataError(
            "NOTHING_TO_READ", f"no file of {delivery.delivery_id} is named like an OMOP table: {sorted(REQUIRED)}"
        )
    rows = reduce(DataFrame.unionByName, [_group(spark, files, *shape) for shape, files in sorted(groups.items())])
    copies = Window.partitionBy("source_table", "record_hash").orderBy("file")
    counted = rows.withColumn("occurrence", F.row_number().over(copies))
    return counted.withColumns(columns_of(delivery)).drop("is_history")


def columns_of(delivery: Delivery) -> dict[str, Column]:
    """source, delivery_id, known_at and is_history, the same for every row of a delivery."""
    told = {name: getattr(delivery, name) for name in ("source", "delivery_id", "known_at", "is_history")}
    return {name: F.lit(value) for name, value in told.items()}


def _group(
    spark: SparkSession,
    files: list[DeliveredFile],
    table: str,
    is_parquet: bool,
    separator: str,
    header: tuple[str, ...],
) -> DataFrame:
    """Rows of files that share table and header: source_table, file, fields, corrupt, record_hash."""
    places = [str(file.path.resolve()) for file in files]
    # Spark reads a path as a pattern and does not decode it.
    paths = ["file://" + re.sub(r"([\\\[\]{}*?])", r"\\\1", place) for place in places]
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
    names = F.create_map(
        *[F.lit(text) for file, place in zip(files, places, strict=True) for text in (place, file.name)]
    )
    encoded = F.replace(F.regexp_replace("_metadata.file_path", "^file:/+", "/"), F.lit("+"), F.lit("%2B"))
    # Sorted by name, so that the same row in another column order has the same hash.
    pairs = [part for column in sorted(header, key=str.lower) for part in (F.lit(column.lower()), _text(frame, column))]
    present = F.map_filter(F.create_map(*pairs), lambda _, value: value.isNotNull() & (value != ""))
    fields = F.when(F.col(CORRUPT).isNull(), present).otherwise(F.create_map().cast("map<string,string>"))
    named = frame.select(
        F.lit(table).alias("source_table"),
        names[F.url_decode(encoded)].alias("file"),
        fields.alias("fields"),
        F.col(CORRUPT).alias("corrupt"),
    )
    content = F.concat_ws("\n", F.to_json("fields"), "corrupt")
    return named.withColumn("record_hash", F.left(F.sha2(content, 256), F.lit(32)))


def _text(frame: DataFrame, column: str) -> Column:
    """A column as text; whole numbers in a floating type, as ids become beside a null, without point or exponent."""
    value = F.col(f"`{column}`")
    if isinstance(frame.schema[column].dataType, FractionalType) and not isinstance(
        frame.schema[column].dataType, DecimalType
    ):
        is_whole = (value == F.floor(value)) & (F.abs(value) < 1e15)
        return F.when(is_whole, value.cast("decimal(38,0)").cast("string")).otherwise(value.cast("string"))
    return value.cast("string")


def _header(file: DeliveredFile, table: str) -> tuple[str, tuple[str, ...]]:
    """Separator and column names of a file, as written; the required ones are there, each once."""
    if file.name.lower().endswith(".parquet"):
        separator, header = "", tuple(pq.ParquetFile(file.path).schema_arrow.names)
    else:
        line = _first_line(file)
        separator = "\t" if "\t" in line and "," not in line else ","
        header = tuple(name.strip() for name in next(csv.reader([line], delimiter=separator)))
    lower = [name.lower() for name in header]
    missing = sorted(set(REQUIRED[table]) - set(lower))
    if missing:
        # What was found is not said: without a header it would be a patient's row.
        raise ContractError(
            "MISSING_COLUMN",
            f"{file.name}: {len(missing)} of {len(REQUIRED[table])} columns needed are not in its first line, "
            f"{', '.join(missing)}; is that line a header?",
        )
    twice = sorted({name for name in lower if lower.count(name) > 1})
    if twice:
        raise ContractError("DUPLICATE_COLUMN", f"{file.name}: {', '.join(twice)} stands more than once in the header")
    return separator, header


def _first_line(file: DeliveredFile) -> str:
    opened = gzip.open if file.name.lower().endswith(".gz") else open
    try:
        with opened(file.path, "rt", encoding="utf-8-sig") as text:
            return text.readline()
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile):
        raise DataError(
            "BAD_HEADER", f"{file.name}: the first line is not UTF-8 text; deliver UTF-8 CSV, gzip or Parquet"
        ) from None
