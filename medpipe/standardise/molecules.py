"""bronze.record of molecules -> structures and measurements, judged; repeats merged by structure."""

import json
from collections.abc import Iterator
from dataclasses import asdict, fields

import pandas as pd
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from medpipe.molecules.mapping import RELATIONS, FileMapping
from medpipe.molecules.standardise import Structure, guard, structures
from medpipe.standardise import values

NAME = ("source_table", "record_hash", "occurrence")
# RDKit takes four seconds for so many.
PARTITION_ROWS = 4096
MEASURED = (
    "array<struct<column:string,assay:string,kind:string,unit:string,relation:string,relation_column:string,"
    "tolerance:double>>"
)
TOLD = f"map<string,struct<smiles:string,id:string,measured:{MEASURED}>>"
STRUCTURE = (
    "molecule_id string, smiles string, scaffold string, num_heavy_atoms int, molecular_weight double, "
    "was_salt boolean, was_charged boolean, has_isotope boolean, code string"
)
TYPES = {"num_heavy_atoms": "Int32", "was_salt": "boolean", "was_charged": "boolean", "has_isotope": "boolean"}


def typed(records: DataFrame, mappings: dict[str, FileMapping], num_partitions: int) -> DataFrame:
    """Every record with its structure and its measurements, each with what is wrong with it.

    Args:
        records: bronze.record of one delivery.
        mappings: source_table -> what its columns mean, `smiles` told.
    Returns:
        NAME; name: the source's own, or null; the columns of Structure, null where there is none;
        results: array of struct assay, kind, unit, tolerance, value, relation: what the row measured;
        faults: array<string>, codes of `structures`, FIELD_COUNT, and of measurements BAD_NUMBER, NOT_FINITE,
        BAD_CLASS and BAD_RELATION.
    """
    told = {table: asdict(mapping) for table, mapping in mappings.items()}
    rows = records.withColumn("told", F.from_json(F.lit(json.dumps(told, sort_keys=True)), TOLD)[F.col("source_table")])
    rows = rows.select(
        *NAME,
        (F.col("corrupt").isNotNull()).alias("is_corrupt"),
        F.col("fields")[F.col("told.smiles")].alias("text"),
        F.col("fields")[F.col("told.id")].alias("name"),
        F.filter(F.transform("told.measured", _result), lambda result: result["text"].isNotNull()).alias("results"),
    )
    # One file is one partition until here.
    spread = rows.repartition(num_partitions, "record_hash")
    rows = spread.withColumn("structure", F.pandas_udf(_structure, STRUCTURE)("text"))
    wrong = F.flatten(F.transform("results", _wrong))
    codes = F.array_sort(F.array_distinct(F.array_compact(F.concat(F.array("structure.code"), wrong))))
    faults = F.when(F.col("is_corrupt"), F.array(F.lit("FIELD_COUNT"))).otherwise(codes)
    names = [field.name for field in fields(Structure)]
    return rows.select(
        *NAME, "name", *[F.col(f"structure.{name}") for name in names], "results", faults.alias("faults")
    )


def judged(rows: DataFrame) -> DataFrame:
    """`rows` of typed with `fate`, and is_read: whether the row's measurements count.

    An exact copy is a duplicate and is not read. Of several good rows with one structure the first by was_salt,
    was_charged, smiles, source_table and record_hash is accepted, the others are duplicates whose measurements count.
    """
    is_read = (F.col("occurrence") == 1) & (F.size("faults") == 0)
    # Bad rows would all meet in one partition.
    home = F.when(F.col("is_read"), F.col("molecule_id")).otherwise(F.concat(F.lit("-"), F.col("record_hash")))
    order = ("was_salt", "was_charged", "smiles", "source_table", "record_hash")
    rank = F.row_number().over(Window.partitionBy(home).orderBy(*order))
    is_repeat = (F.col("occurrence") > 1) | (F.col("is_read") & (F.col("rank") > 1))
    fate = F.when(is_repeat, "duplicate").when(F.col("is_read"), "accepted").otherwise("quarantined")
    return rows.withColumn("is_read", is_read).withColumn("rank", rank).withColumn("fate", fate).drop("rank")


def assay_results(rows: DataFrame) -> DataFrame:
    """One row for a molecule and assay: what all rows that are read measured; columns of silver.assay_result.

    value is the median of the exact values; where all are bounds to one side, the tightest; a class is what most say.
    It is null where nothing can be said: two classes equally often, or bounds to both sides alone.
    is_conflicting: values further apart than the assay's tolerance, or exact values beside bounds, or bounds to both
    sides. min_value and max_value tell all that was measured.

    Args:
        rows: of judged.
    """
    each = rows.where("is_read").select("molecule_id", "source_table", F.explode("results").alias("result"))
    merged = each.groupBy("molecule_id", *[F.col(f"result.{name}") for name in ("assay", "kind", "unit", "tolerance")])
    merged = merged.agg(
        F.count("*").alias("num_measurements"),
        F.min("result.value").alias("min_value"),
        F.max("result.value").alias("max_value"),
        F.median("result.value").alias("median"),
        F.median(F.when(F.col("result.relation") == "=", F.col("result.value"))).alias("exact"),
        F.collect_set("result.relation").alias("relations"),
        F.min("source_table").alias("source_table"),
    )
    only = F.when(F.size("relations") == 1, F.col("relations")[0])
    has_exact = F.array_contains("relations", "=")
    tightest = F.when(only.startswith(">"), F.col("max_value")).when(only.startswith("<"), F.col("min_value"))
    value = F.when(has_exact, F.col("exact")).when(only == "~", F.col("median")).otherwise(tightest)
    is_apart = only.isin("=", "~") & (F.col("max_value") - F.col("min_value") > F.col("tolerance"))
    return merged.select(
        "molecule_id",
        "assay",
        "kind",
        F.when((F.col("kind") == "regression") | value.isin(0.0, 1.0), value).alias("value"),
        "unit",
        F.when(has_exact, "=").otherwise(only).alias("relation"),
        F.col("num_measurements").cast("int").alias("num_measurements"),
        "min_value",
        "max_value",
        (only.isNull() | is_apart).alias("is_conflicting"),
        "source_table",
    )


def _structure(batches: Iterator[pd.Series]) -> Iterator[pd.DataFrame]:
    names = [field.name for field in fields(Structure)]
    with guard() as child:
        for texts in batches:
            found = structures(texts.tolist(), child)
            rows = [asdict(one) if isinstance(one, Structure) else {"code": one} for one in found]
            yield pd.DataFrame(rows, columns=[*names, "code"]).astype(TYPES)


def _result(told: Column) -> Column:
    """What a row says in one column of measurements; text is null where it says nothing."""
    given = F.col("fields")[told["relation_column"]]
    text = F.col("fields")[told["column"]]
    # ChEMBL writes '=', with the quotes.
    own = F.trim(F.translate(given, "'", ""))
    return F.struct(
        *[told[name].alias(name) for name in ("assay", "kind", "unit", "tolerance")],
        text.alias("text"),
        values.number(text).alias("value"),
        F.when(told["relation_column"] == "", told["relation"]).otherwise(own).alias("relation"),
    )


def _wrong(result: Column) -> Column:
    """array<string>: codes of a measurement."""
    value = result["value"]
    is_finite = ~F.isnan(value) & (F.abs(value) < float("inf"))
    is_known = F.coalesce(result["relation"].isin(*RELATIONS), F.lit(False))
    return F.array(
        F.when(value.isNull(), "BAD_NUMBER").when(~is_finite, "NOT_FINITE"),
        F.when((result["kind"] == "class") & is_finite & ~value.isin(0.0, 1.0), "BAD_CLASS"),
        F.when(~is_known, "BAD_RELATION"),
    )
