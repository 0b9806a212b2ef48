"""A Delta version nailed down to a list of Parquet files that may be read without Delta, or refused.

A reader of bare Parquet knows nothing of deletion vectors, renamed columns or files the table has removed: it would
return deleted rows, or rows twice, without a word. So each of these is asked for here, on the driver, before a file
is handed to a worker.
"""

import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from urllib.parse import unquote

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from delta.tables import DeltaTable
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType

from medpipe.errors import ContractError, DataError
from medpipe.stream.shards import Shard, ShardFile

# Features that leave the data files readable as they are (Delta PROTOCOL.md, reader requirements).
HARMLESS_FEATURES = frozenset(
    "appendOnly invariants checkConstraints generatedColumns changeDataFeed allowColumnDefaults timestampNtz "
    "v2Checkpoint vacuumProtocolCheck clustering domainMetadata".split()
)
PLAN = "shard_id int, url string, row_groups array<int>, num_rows long"
REWRITE = "rewrite the table as plain columns, without that feature"


@dataclass(frozen=True)
class Snapshot:
    """The files of one partition of one Delta version; num_rows is what Spark counts in it.

    Attributes:
        staged: code of why the files are a copy (see staging.py); "" where they are the table's own.
    """

    version: int
    files: tuple[ShardFile, ...]
    num_rows: int
    staged: str = ""


def pin(
    spark: SparkSession, path: str, partition: dict[str, str], columns: list[str], version: int | None = None
) -> Snapshot:
    """Resolves a version (None: the newest) and checks that its files, read bare, hold exactly its rows.

    Args:
        partition: partition column -> value, e.g. as_of -> 2026-01-31.
        columns: those that will be read.
    Raises:
        ContractError: TABLE_FEATURE, NOT_PARTITIONED_BY, PARTITION_COLUMN, NO_COLUMN, FILES_DIFFER, NULLS.
        DataError: FILE_MISSING, FILE_UNREADABLE, FILE_SIZE, ROW_COUNT: the files are not those of the log.
    Cost: reads every footer here, and every page of the columns by Spark.
    """
    table = DeltaTable.forPath(spark, path)
    version = table.history(1).select("version").first().version if version is None else version
    detail = table.detail().first()
    _require_plain(path, detail.asDict())
    _require_in_files(path, detail.partitionColumns, partition, columns)
    logged = logged_files(path, rows_of(spark, path, version, partition, columns), columns)
    return Snapshot(version, tuple(shard_files(path, logged, columns)), sum(logged.values()))


def rows_of(spark: SparkSession, path: str, version: int, partition: dict[str, str], columns: list[str]) -> DataFrame:
    """The rows that have those values at that version, all columns, as Spark reads them.

    Raises:
        ContractError: NO_COLUMN.
    """
    frame = spark.read.format("delta").option("versionAsOf", version).load(path)
    if missing := sorted({*columns, *partition} - set(frame.columns)):
        raise ContractError("NO_COLUMN", f"{path} lacks {', '.join(missing)}; rebuild the table from its contract")
    for column, value in partition.items():
        frame = frame.where(F.col(column) == F.lit(value).cast(frame.schema[column].dataType))
    return frame


def shard_frame(spark: SparkSession, shards: list[Shard]) -> DataFrame:
    """A plan as PLAN: one row, in a partition of its own, per shard, so that a shard is a task."""
    told = F.from_json(F.lit(json.dumps([asdict(shard) for shard in shards])), f"array<struct<{PLAN}>>")
    # repartition() spreads by hash or at random; slices of a range are exact. Those of a Python list are as well, but
    # cost a Python worker, 0.1 s, for each task.
    places = spark.range(0, len(shards), 1, max(len(shards), 1))
    return places.select(F.get(told, F.col("id")).alias("shard")).select("shard.*")


def logged_files(path: str, frame: DataFrame, columns: list[str]) -> dict[str, int]:
    """URL -> rows by Spark, which applies all that Delta knows, of every file behind the frame.

    Spark reads every page of the columns and compares its CRC: pyarrow 14 cannot, and a flipped bit in a dictionary of
    concepts is another concept to it, not an error. The hash is there to be computed, so that no column is left out;
    of a list its size, for which all of it is read: elements would double the cost.

    Raises:
        ContractError: NULLS in a column; of elements of a list only the reader of a batch can tell.
        DataError: FILE_MISSING, FILE_UNREADABLE, FILE_SIZE.
    """
    sizes = _sizes(frame.inputFiles())
    nulls = {column: F.count_if(F.col(column).isNull()).alias(f"nulls in {column}") for column in columns}
    types = {column: frame.schema[column].dataType for column in columns}
    values = [F.size(name) if isinstance(kind, ArrayType) else F.col(name) for name, kind in types.items()]
    read = F.bit_xor(F.xxhash64(*values)).alias("read")
    counted = frame.groupBy("_metadata.file_path", "_metadata.file_size").agg(
        F.count("*").alias("count"), read, *nulls.values()
    )
    try:
        rows = counted.collect()
    except (PySparkException, Py4JJavaError) as failure:
        raise unreadable(path, failure) from None
    _require_sizes(sizes, {_name(row.file_path): row.file_size for row in rows})
    _require_no_nulls(path, {column: sum(row[f"nulls in {column}"] for row in rows) for column in columns})
    counts = {_name(row.file_path): row["count"] for row in rows}
    if unlisted := set(counts) - {_name(url) for url in sizes}:
        raise DataError("ROW_COUNT", f"{path}: {len(unlisted)} files read by Spark are not in the file list; {REWRITE}")
    return {url: counts.get(_name(url), 0) for url in sizes}


def shard_files(path: str, logged: dict[str, int], columns: list[str]) -> list[ShardFile]:
    """The files, as their footers describe them.

    Args:
        logged: as `logged_files` gives it.
    Raises:
        ContractError: FILES_DIFFER.
        DataError: ROW_COUNT where a file holds other rows than Spark reads from it.
    """
    with ThreadPoolExecutor(8) as pool:
        footers = dict(zip(logged, pool.map(_footer, logged), strict=True))
    schemas = {_types(path, footer, columns) for _, footer in footers.values()}
    if len(schemas) > 1:
        raise ContractError("FILES_DIFFER", f"{path}: files hold {' / '.join(sorted(schemas))}; {REWRITE}")
    for url, (_, footer) in footers.items():
        if footer.num_rows != logged[url]:
            raise DataError(
                "ROW_COUNT", f"{url} holds {footer.num_rows} rows, the table {logged[url]} of them; {REWRITE}"
            )
    return [
        ShardFile(url, num_bytes, tuple(footer.row_group(i).num_rows for i in range(footer.num_row_groups)))
        for url, (num_bytes, footer) in footers.items()
    ]


def unreadable(path: str, failure: Exception) -> DataError:
    """What Spark's failure to read the files means; its text may hold values, and is not repeated."""
    found = f"{path}: Spark cannot read the partition's files ({type(failure).__name__})"
    return DataError("FILE_UNREADABLE", f"{found}: restore it, or rebuild")


def _require_plain(path: str, detail: dict) -> None:
    features = set(detail.get("tableFeatures") or ())
    if strange := sorted(features - HARMLESS_FEATURES):
        found = f"{path} uses {', '.join(strange)}: its files alone are not its rows"
        raise ContractError("TABLE_FEATURE", f"{found}; {REWRITE}")


def _require_in_files(path: str, partition_by: list[str], partition: dict[str, str], columns: list[str]) -> None:
    if other := sorted(set(partition) - set(partition_by)):
        raise ContractError(
            "NOT_PARTITIONED_BY", f"{path} is partitioned by {', '.join(partition_by)}, not by {', '.join(other)}"
        )
    if inside := sorted(set(columns) & set(partition_by)):
        raise ContractError("PARTITION_COLUMN", f"{path}: {', '.join(inside)} stands in the path, not in the files")


def _sizes(urls: Iterable[str]) -> dict[str, int]:
    """URL -> bytes on the store."""

    def size(url: str) -> tuple[str, int]:
        files, name = fsspec.core.url_to_fs(unquote(url))
        try:
            return url, files.size(name)
        except FileNotFoundError:
            raise DataError(
                "FILE_MISSING", f"{url} is in the log and not on the store: restore it, or rebuild the partition"
            ) from None

    with ThreadPoolExecutor(8) as pool:
        return dict(pool.map(size, sorted(urls)))


def _footer(url: str) -> tuple[int, pq.FileMetaData]:
    """Bytes of a file, and what stands at its end."""
    files, name = fsspec.core.url_to_fs(unquote(url))
    with files.open(name, "rb") as file:
        footer = pq.read_metadata(file)
        return file.seek(0, os.SEEK_END), footer


def _types(path: str, footer: pq.FileMetaData, columns: list[str]) -> str:
    """Names and Arrow types of the columns, as text."""
    schema: pa.Schema = footer.schema.to_arrow_schema()
    missing = [column for column in columns if column not in schema.names]
    if missing:
        raise ContractError("FILES_DIFFER", f"{path}: a file lacks {', '.join(missing)}; {REWRITE}")
    return ", ".join(f"{column} {schema.field(column).type}" for column in columns)


def _require_no_nulls(path: str, nulls: dict[str, int]) -> None:
    if found := [f"{count} nulls in {column}" for column, count in nulls.items() if count]:
        raise ContractError("NULLS", f"{path}: {', '.join(found)}; rebuild without them")


def _require_sizes(sizes: dict[str, int], logged: dict[str, int]) -> None:
    for url, num_bytes in sizes.items():
        if num_bytes != logged.get(_name(url), num_bytes):
            raise DataError(
                "FILE_SIZE",
                f"{url} has {num_bytes} bytes, the log says {logged[_name(url)]}: restore it, or rebuild",
            )


def _name(url: str) -> str:
    """A file's URL in one spelling: file:/a, file:///a and %20 differ between Spark's functions."""
    files, name = fsspec.core.url_to_fs(unquote(url))
    return files.unstrip_protocol(name)
