"""A table's partition as plain Parquet files: its own where they may be read without Delta, else a copy by Spark.

A copy lies apart from the table, so neither VACUUM nor OPTIMIZE reaches it. It is whole or does not count: Spark's
`_SUCCESS` is written last. A killed run that is run again finds it and reads the same files, in the same order.
"""

from math import ceil

import fsspec
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from medpipe.errors import ContractError, DataError
from medpipe.log import logger
from medpipe.snapshots import Snapshot, logged_files, pin, rows_of, shard_files, unreadable

# Refusals of `pin` for what Spark's reader knows how to read.
BY_SPARK = frozenset("TABLE_FEATURE NOT_PARTITIONED_BY PARTITION_COLUMN FILES_DIFFER ROW_COUNT".split())
ROWS_PER_FILE = 65_536


def readable(
    spark: SparkSession, path: str, folder: str, partition: dict[str, str], columns: list[str], version: int
) -> Snapshot:
    """`snapshots.pin`, or a copy of the rows where it refuses for a reason that Spark can deal with.

    Args:
        folder: of the copy, named by all it depends on: run, table, version and partition.
        columns: the first names a row; the copy has these and no others.
    Raises:
        ContractError: NO_COLUMN, NULLS.
        DataError: FILE_MISSING, FILE_UNREADABLE, FILE_SIZE; ROW_COUNT where the copy has been damaged.
    """
    try:
        return pin(spark, path, partition, columns, version)
    except (ContractError, DataError) as refusal:
        if refusal.code not in BY_SPARK:
            raise
        told = {"table": path, "code": refusal.code, "version": version, "detail": str(refusal)}
    rows = rows_of(spark, path, version, partition, columns)
    num_rows = sum(logged_files(path, rows, columns).values())
    reused = _is_whole(folder)
    if not reused:
        _write(path, rows.select(*columns), folder, ceil(num_rows / ROWS_PER_FILE))
    logger.info("staged files reused" if reused else "table staged", extra=told | {"rows": num_rows})
    copy = logged_files(folder, spark.read.schema(rows.select(*columns).schema).parquet(folder), columns)
    if sum(copy.values()) != num_rows:
        raise DataError("ROW_COUNT", f"{folder} holds {sum(copy.values())} rows, {path} {num_rows}; remove the folder")
    return Snapshot(version, tuple(shard_files(folder, copy, columns)), num_rows, told["code"])


def remove(folder: str) -> None:
    """Takes a folder of copies away; one that is not there is no failure."""
    files, name = fsspec.core.url_to_fs(folder)
    files.invalidate_cache()
    if files.exists(name):
        files.rm(name, recursive=True)


def _is_whole(folder: str) -> bool:
    files, name = fsspec.core.url_to_fs(folder)
    files.invalidate_cache()
    return files.exists(f"{name}/_SUCCESS")


def _write(path: str, rows: DataFrame, folder: str, num_files: int) -> None:
    """By hash of the id, then in its order: the same rows give the same files, which a range partitioning would not."""
    plain = rows.repartition(max(1, num_files), rows.columns[0]).sortWithinPartitions(*rows.columns)
    try:
        plain.write.mode("overwrite").parquet(folder)
    except (PySparkException, Py4JJavaError) as failure:
        raise unreadable(path, failure) from None
