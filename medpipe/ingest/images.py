"""A folder of images, with manifest.csv or without -> bronze.image. Nothing is decoded or judged here.

manifest.csv is UTF-8 with a header: path (inside the delivery, required), patient_id (as the hospital's other
deliveries spell it), modality (DICOM code), label (class, 0 to 999), mask (path; several, separated by ;, are united)
and burned_in (no: somebody has seen to it that no name is drawn into the pixels). Other columns are kept, not read.
"""

import csv
import posixpath
from pathlib import Path

import pandas as pd
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from medpipe.errors import ContractError, DataError
from medpipe.imaging.formats import ImageError, Limits
from medpipe.imaging.reading import num_images, place_of
from medpipe.ingest.manifest import DeliveredFile, Delivery

IMAGE_MANIFEST = "manifest.csv"
CORRUPT = "_medpipe_corrupt"


def folder_of(delivery: Delivery) -> Path:
    """Where the delivery lies."""
    first = delivery.files[0]
    return first.path.parents[len(Path(first.name).parts) - 1]


def inside(path: str | None) -> str | None:
    """A manifest's path without `.` and `..`; None for one that leads out of the delivery, and for none."""
    if not path or "\0" in path or "://" in path or path.startswith("/"):
        return None
    plain = posixpath.normpath(path)
    return None if plain.split("/")[0] == ".." else plain


def received(spark: SparkSession, delivery: Delivery, limits: Limits) -> DataFrame:
    """Columns of bronze.image.

    Raises:
        ContractError: MISSING_COLUMN, DUPLICATE_COLUMN.
        DataError: BAD_HEADER.
    """
    columns = "file string, num_bytes long, sha256 string"
    data = [file for file in delivery.files if file.name != IMAGE_MANIFEST]
    files = spark.createDataFrame([(file.name, file.num_bytes, file.sha256) for file in data], columns)
    manifest = next((file for file in delivery.files if file.name == IMAGE_MANIFEST), None)
    if manifest is None:
        rows = _alone(files).withColumn("is_listed", F.lit(True))
    else:
        named = _named(spark, manifest)
        masks = named.select(F.explode(F.split("fields.mask", ";")).alias("path")).select(_inside("path").alias("file"))
        others = files.join(named.select("file").union(masks), on="file", how="left_anti")
        rows = named.withColumn("is_listed", F.lit(True)).union(_alone(others).withColumn("is_listed", F.lit(False)))
    rows = rows.join(files, on="file", how="left")
    content = F.concat_ws("\n", F.to_json("fields"), "corrupt", "sha256")
    rows = rows.withColumn("record_hash", F.left(F.sha2(content, 256), F.lit(32)))
    copies = Window.partitionBy("record_hash").orderBy("is_listed")
    return rows.withColumns(
        {
            "occurrence": F.row_number().over(copies),
            "num_images": _num_images("file", folder_of(delivery), limits),
            "source": F.lit(delivery.source),
            "delivery_id": F.lit(delivery.delivery_id),
            "known_at": F.lit(delivery.known_at),
        }
    )


def _alone(files: DataFrame) -> DataFrame:
    """Files as if a manifest named their paths and no more: file, fields, corrupt."""
    return files.select(
        "file", F.create_map(F.lit("path"), "file").alias("fields"), F.lit(None).cast("string").alias("corrupt")
    )


def _named(spark: SparkSession, manifest: DeliveredFile) -> DataFrame:
    """Rows of manifest.csv: file, fields, corrupt."""
    header = _header(manifest)
    schema = ", ".join(f"`{name}` string" for name in header) + f", {CORRUPT} string"
    frame = (
        spark.read.schema(schema)
        .option("header", True)
        .option("quote", '"')
        .option("escape", '"')
        .option("mode", "PERMISSIVE")
        .option("columnNameOfCorruptRecord", CORRUPT)
        .csv("file://" + _as_pattern(str(manifest.path.resolve())))
    )
    pairs = [part for name in sorted(header) for part in (F.lit(name), F.col(f"`{name}`"))]
    present = F.map_filter(F.create_map(*pairs), lambda _, value: value.isNotNull() & (value != ""))
    fields = F.when(F.col(CORRUPT).isNull(), present).otherwise(F.create_map().cast("map<string,string>"))
    rows = frame.select(fields.alias("fields"), F.col(CORRUPT).alias("corrupt"))
    return rows.select(_inside("fields.path").alias("file"), "fields", "corrupt")


def _as_pattern(path: str) -> str:
    """Spark reads a path as a pattern."""
    return "".join(f"\\{letter}" if letter in "\\[]{}*?" else letter for letter in path)


def _header(manifest: DeliveredFile) -> list[str]:
    """Column names in lower case; path is there, each once."""
    try:
        with manifest.path.open(encoding="utf-8-sig", newline="") as text:
            header = [name.strip().lower() for name in next(csv.reader(text), [])]
    except UnicodeDecodeError:
        raise DataError("BAD_HEADER", f"{IMAGE_MANIFEST} does not begin as UTF-8 text; deliver UTF-8 CSV") from None
    if "path" not in header:
        # What was found is not said: without a header it would be a patient's row.
        raise ContractError("MISSING_COLUMN", f"{IMAGE_MANIFEST}: no column path in its first line; is that a header?")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise ContractError("DUPLICATE_COLUMN", f"{IMAGE_MANIFEST}: {', '.join(twice)} stands more than once in it")
    return header


def _inside(path: str) -> Column:
    """`inside` of a column."""

    @F.pandas_udf("string")
    def plain(paths: pd.Series) -> pd.Series:
        return paths.map(lambda path: inside(path.strip()), na_action="ignore")

    return plain(F.col(path))


def _num_images(file: str, folder: Path, limits: Limits) -> Column:
    """How many images each file of a column declares."""

    @F.pandas_udf("long")
    def counted(files: pd.Series) -> pd.Series:
        return files.map(lambda name: _declared(folder, name, limits))

    return counted(F.col(file))


def _declared(folder: Path, name: str | None, limits: Limits) -> int:
    try:
        return 1 if name is None else num_images(place_of(folder, name), limits)
    except ImageError:
        return 1
