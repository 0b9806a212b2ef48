"""What a row of one delivered table tells of the rows of others that share a key with it: `beside` of a mapping."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from medpipe.mappings.mapping import Mapping


def beside(records: DataFrame, mapping: Mapping) -> DataFrame:
    """The records, those of `mapping.takers` given the columns of the row beside them; what they have themselves stays.

    Of several rows of that table with one key the first by content counts.

    Cost: the takers are read and shuffled once more; other records are left alone.
    """
    takers = mapping.takers()
    if not takers:
        return records
    key, told = mapping.beside["key"], mapping.beside["columns"]
    pairs = [part for name, column in sorted(told.items()) for part in (F.lit(name), F.col("fields")[column])]
    taken = F.map_filter(F.create_map(*pairs), lambda _, text: text.isNotNull())
    others = _others(records, mapping).groupBy(F.col("fields")[key].alias("_key"))
    others = others.agg(F.min_by(taken, "record_hash").alias("_taken"))
    is_taker = F.col("source_table").isin(takers)
    joined = records.where(is_taker).join(others, on=F.col("fields")[key] == F.col("_key"), how="left")
    absent = F.map_filter("_taken", lambda name, _: ~F.array_contains(F.map_keys("fields"), name))
    joined = joined.withColumn("fields", F.coalesce(F.map_concat("fields", absent), "fields")).drop("_key", "_taken")
    return joined if takers == sorted(mapping.required) else joined.unionByName(records.where(~is_taker))


def _others(records: DataFrame, mapping: Mapping) -> DataFrame:
    """The rows that stand beside others."""
    told = (F.col("source_table") == mapping.beside["table"]) & F.col("corrupt").isNull()
    column, _, text = mapping.beside.get("when", "").partition("=")
    return records.where(told & (F.col("fields")[column] == text)) if column else records.where(told)
