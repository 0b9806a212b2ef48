"""A Delta version nailed down to a list of Parquet files that may be read without Delta, or refused.

A reader of bare Parquet knows nothing of deletion vectors, renamed columns or files the table has removed: it would
return deleted rows, or rows twice, without a word. So each of these is asked for here, on the driver, before a file
is handed to a worker.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
STAGE = "rewrite the table as plain columns, without that feature"


@dataclass(frozen=True)
class Snapshot:
    """The files of one partition of one Delta version; num_rows is what Spark counts in it."""

    version: int
    files: tuple[ShardFile, ...]
    num_rows: int


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
    frame = spark.read.format("delta").option("versionAsOf", version).load(path)
    _require_columns(path, frame, detail.partitionColumns, partition, columns)
    for column, value in partition.items():
        frame = frame.where(F.col(column) == F.lit(value).cast(frame.schema[column].dataType))
    sizes = _sizes(frame.inputFiles())
    logged = _logged(path, frame, columns)
    files = _footers(path, sizes, columns)
    _require_equal(path, sizes, logged, files)
    return Snapshot(version, tuple(files), sum(num_rows for _, num_rows in logged.values()))


def shard_frame(spark: SparkSession, shards: list[Shard]) -> DataFrame:
    """A plan as PLAN: one row, in a partition of its own, per shard, so that a shard is a task."""
    rows = [(shard.shard_id, shard.url, list(shard.row_groups), shard.num_rows) for shard in shards]
    if not rows:
        return spark.createDataFrame([], PLAN)
    # repartition() spreads by hash or at random; slices of a list are exact.
    return spark.createDataFrame(spark.sparkContext.parallelize(rows, len(rows)), PLAN)


def _require_plain(path: str, detail: dict) -> None:
    features = set(detail.get("tableFeatures") or ())
    if strange := sorted(features - HARMLESS_FEATURES):
        found = f"{path} uses {', '.join(strange)}: its files alone are not its rows"
        raise ContractError("TABLE_FEATURE", f"{found}; {STAGE}")


def _require_columns(
    path: str, frame: DataFrame, partition_by: list[str], partition: dict[str, str], columns: list[str]
) -> None:
    if other := sorted(set(partition) - set(partition_by)):
        raise ContractError(
            "NOT_PARTITIONED_BY", f"{path} is partitioned by {', '.join(partition_by)}, not by {', '.join(other)}"
        )
    if inside := sorted(set(columns) & set(partition_by)):
        raise ContractError("PARTITION_COLUMN", f"{path}: {', '.join(inside)} stands in the path, not in the files")
    if missing := sorted(set(columns) - set(frame.columns)):
        raise ContractError("NO_COLUMN", f"{path} lacks {', '.join(missing)}; rebuild the table from its contract")


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


def _logged(path: str, frame: DataFrame, columns: list[str]) -> dict[str, tuple[int, int]]:
    """Decoded URL -> (bytes by the log, rows by Spark, which applies all that Delta knows).

    Spark reads every page of the columns and compares its CRC: pyarrow 14 cannot, and a flipped bit in a dictionary of
    concepts is another concept to it, not an error. The hash is there to be computed, so that no column is left out;
    of a list its size, for which all of it is read: elements would double the cost.
    """
    types = {column: frame.schema[column].dataType for column in columns}
    values = [F.size(name) if isinstance(kind, ArrayType) else F.col(name) for name, kind in types.items()]
    read = F.bit_xor(F.xxhash64(*values)).alias("read")
    counted = frame.groupBy("_metadata.file_path", "_metadata.file_size").agg(F.count("*").alias("count"), read)
    try:
        rows = counted.collect()
    except (PySparkException, Py4JJavaError) as failure:
        raise DataError(
            "FILE_UNREADABLE",
            f"{path}: Spark cannot read the partition's files ({type(failure).__name__}): restore it, or rebuild",
        ) from None
    return {_name(row.file_path): (row.file_size, row["count"]) for row in rows}


def _footers(path: str, sizes: dict[str, int], columns: list[str]) -> list[ShardFile]:
    def footer(url: str) -> pq.FileMetaData:
        files, name = fsspec.core.url_to_fs(unquote(url))
        with files.open(name, "rb") as file:
            return pq.read_metadata(file)

    with ThreadPoolExecutor(8) as pool:
        footers = dict(zip(sizes, pool.map(footer, sizes), strict=True))
    schemas = {url: _types(path, found, columns) for url, found in footers.items()}
    if len(set(schemas.values())) > 1:
        raise ContractError("FILES_DIFFER", f"{path}: files hold {' / '.join(sorted(set(schemas.values())))}; {STAGE}")
    for found in footers.values():
        _require_no_nulls(path, found, columns)
    return [
        ShardFile(url, sizes[url], tuple(found.row_group(i).num_rows for i in range(found.num_row_groups)))
        for url, found in footers.items()
    ]


def _types(path: str, footer: pq.FileMetaData, columns: list[str]) -> str:
    """Names and Arrow types of the columns, as text."""
    schema: pa.Schema = footer.schema.to_arrow_schema()
    missing = [column for column in columns if column not in schema.names]
    if missing:
        raise ContractError("FILES_DIFFER", f"{path}: a file lacks {', '.join(missing)}; {STAGE}")
    return ", ".join(f"{column} {schema.field(column).type}" for column in columns)


def _require_no_nulls(path: str, footer: pq.FileMetaData, columns: list[str]) -> None:
    """By the files' statistics, where they have them; the reader of a batch asks again."""
    for group in range(footer.num_row_groups):
        for index in range(footer.num_columns):
            chunk = footer.row_group(group).column(index)
            statistics = chunk.statistics
            # An empty list counts as a null element: of lists only the reader can tell.
            is_list = footer.schema.column(index).max_repetition_level > 0
            is_needed = chunk.path_in_schema.split(".")[0] in columns and not is_list
            if is_needed and statistics is not None and statistics.has_null_count and statistics.null_count:
                raise ContractError(
                    "NULLS", f"{path}: {statistics.null_count} nulls in {chunk.path_in_schema}; rebuild without them"
                )


def _require_equal(
    path: str, sizes: dict[str, int], logged: dict[str, tuple[int, int]], files: list[ShardFile]
) -> None:
    for file in files:
        num_bytes, num_rows = logged.get(_name(file.url), (sizes[file.url], 0))
        if num_bytes != file.num_bytes:
            raise DataError(
                "FILE_SIZE", f"{file.url} has {file.num_bytes} bytes, the log says {num_bytes}: restore it, or rebuild"
            )
        if sum(file.row_group_rows) != num_rows:
            raise DataError(
                "ROW_COUNT", f"{file.url} holds {sum(file.row_group_rows)} rows, the table {num_rows} of them; {STAGE}"
            )
    if unlisted := set(logged) - {_name(file.url) for file in files}:
        raise DataError("ROW_COUNT", f"{path}: {len(unlisted)} files read by Spark are not in the file list; {STAGE}")


def _name(url: str) -> str:
    """A file's URL in one spelling: file:/a, file:///a and %20 differ between Spark's functions."""
    files, name = fsspec.core.url_to_fs(unquote(url))
    return files.unstrip_protocol(name)
