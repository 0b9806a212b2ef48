"""Text keys as dense whole numbers, the same ones on every run."""

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

# Pseudonyms are hexadecimal: two characters spread their sorting over 256 groups.
PREFIX_LENGTH = 2


def numbered(keys: DataFrame, column: str, number: str) -> DataFrame:
    """Each key with its place in sorted order.

    Args:
        keys: has `column`, unique and not null.
    Returns:
        column and number (long), 0 for the smallest key, without gaps; partitioning and row order play no part.
    Cost: each group of keys that share their first two characters is sorted by one task.
    """
    prefix = F.substring(column, 1, PREFIX_LENGTH).alias("prefix")
    before = Window.orderBy("prefix").rowsBetween(Window.unboundedPreceding, -1)
    sizes = keys.groupBy(prefix).agg(F.count("*").alias("size"))
    starts = sizes.select("prefix", F.coalesce(F.sum("size").over(before), F.lit(0)).alias("start"))
    place = F.row_number().over(Window.partitionBy("prefix").orderBy(column))
    placed = keys.select(column, prefix).withColumn("place", place)
    found = placed.join(F.broadcast(starts), on="prefix", how="inner")
    return found.select(column, (F.col("start") + F.col("place") - 1).alias(number))
