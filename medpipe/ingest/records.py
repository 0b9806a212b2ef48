"""A delivery of a mapped format -> bronze.record, exactly as received: tables and FHIR resources alike."""

from collections.abc import Callable
from functools import reduce

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from medpipe.errors import DataError
from medpipe.ingest import fhir, tabular
from medpipe.ingest.manifest import DeliveredFile, Delivery
from medpipe.mappings.mapping import DELETED, Mapping

# Of text; Spark's rows of it are some ten times larger.
PARTITION_BYTES = 8 << 20
TEXT = (".csv", ".txt", ".ndjson", ".json")
DENSER = 8


def is_read(file: DeliveredFile, mapping: Mapping) -> bool:
    """Whether the file is one of the mapping's tables, or of FHIR resources or deletions."""
    return table_of(file, mapping) is not None or (fhir.is_bundles(file) and mapping.ids == "reference")


def table_of(file: DeliveredFile, mapping: Mapping) -> str | None:
    """The delivered table that a file holds; null also for a bundle, which holds many."""
    return fhir.resource_of(file, mapping) if fhir.is_resources(file) else tabular.table_of(file, mapping)


def records(spark: SparkSession, delivery: Delivery, mapping: Mapping) -> DataFrame:
    """Columns of bronze.record for every row of every file that is read.

    Raises:
        DataError: NOTHING_TO_READ, BAD_HEADER.
        ContractError: MISSING_COLUMN, DUPLICATE_COLUMN.
    """
    files = [file for file in delivery.files if is_read(file, mapping)]
    if not files:
        raise DataError(
            "NOTHING_TO_READ",
            f"no file of {delivery.delivery_id} is named like a table of {mapping.name}: "
            f"{sorted(table for table in mapping.required if not table.startswith(DELETED))}",
        )
    rows = reduce(DataFrame.unionByName, tabular.rows(spark, files, mapping) + fhir.rows(spark, files, mapping))
    text = F.concat_ws("\n", F.to_json("fields"), "corrupt")
    hashed = rows.withColumn("record_hash", F.left(F.sha2(text, 256), F.lit(32)))
    # The hash first: Spark sorts by the first bytes of the first column, and compares rows whole where these agree.
    content = ("record_hash", "source_table")
    parted = hashed.repartition(num_partitions(files), *content)
    copies = Window.partitionBy(*content).orderBy("file")
    counted = parted.withColumn("occurrence", F.row_number().over(copies))
    return counted.withColumns(columns_of(delivery)).drop("is_history", "is_snapshot")


def num_partitions(files: list[DeliveredFile]) -> int:
    """How many parts the rows are sorted and stored in: of a size that fits a task's memory however much is delivered.

    Two at least, for the cores of a small machine; files that are compressed hold several times their size.
    """
    num_bytes = sum(file.num_bytes * (1 if file.name.lower().endswith(TEXT) else DENSER) for file in files)
    return 2 + num_bytes // PARTITION_BYTES


def listed(spark: SparkSession, delivery: Delivery, table: Callable[[DeliveredFile], str | None]) -> DataFrame:
    """phi.delivery (without run_id): every file, with the table it is read as."""
    rows = [(file.name, table(file), file.num_bytes, file.sha256) for file in delivery.files]
    frame = spark.createDataFrame(rows, "file string, source_table string, num_bytes long, sha256 string")
    return frame.withColumns(columns_of(delivery))


def columns_of(delivery: Delivery) -> dict[str, Column]:
    """source, delivery_id, known_at, is_history and is_snapshot, the same for every row of a delivery."""
    names = ("source", "delivery_id", "known_at", "is_history", "is_snapshot")
    return {name: F.lit(getattr(delivery, name)) for name in names}
