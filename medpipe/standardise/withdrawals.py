"""What a delivery takes back of earlier ones: records it names as deleted, and those that a snapshot no longer holds.

A withdrawal is a row of silver again, as it stood, with is_deleted. Concepts stay: old events still carry them.
"""

import json
from collections.abc import Callable
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from medpipe import contracts
from medpipe.mappings.mapping import DELETED, DELETION, Mapping

# Table of silver -> what names a record there, beside its source_table and patient.
RECORD = {
    "silver.patient": "patient_id",
    "silver.encounter": "encounter_id",
    "silver.observation_period": "period_id",
    "silver.event": "event_id",
}
_PART = "array<struct<silver: string, source_table: string>>"
_DELETED = ("deleted_table", "record_hash", "occurrence")


def hidden(hide: Callable[[Column], Column], silver: Column, source_table: Column, record: Column) -> Column:
    """The pseudonym of a record's id. Visits are one space, for events name them; other ids are their table's own."""
    space = F.when(silver == "silver.encounter", "encounter ").otherwise(F.concat(source_table, F.lit(" ")))
    return hide(F.concat(space, record))


def named(decided: DataFrame, mapping: Mapping, hide: Callable[[Column], Column]) -> DataFrame:
    """What accepted deletions name: a row for each of them and each part of the record it means.

    Args:
        decided: of `judged`. hide: makes pseudonyms of records' ids.
    Returns:
        deleted_table, record_hash, occurrence: of the deletion; silver, source_table, record: what it means;
        patient_id: whose (null: anybody's, for most deletions tell no patient).
    """
    tables = [table.removeprefix(DELETED) for table in mapping.required if table.startswith(DELETED)]
    parts = {
        DELETED + table: [{"silver": m.silver, "source_table": m.source_table} for m in mapping.withdrawn_by(table)]
        for table in sorted(tables)
    }
    known = F.from_json(F.lit(json.dumps(parts)), f"map<string, {_PART}>")
    deletions = decided.where((F.col("silver") == DELETION) & (F.col("fate") == "accepted"))
    rows = deletions.select(
        F.col("source_table").alias("deleted_table"),
        "record_hash",
        "occurrence",
        "patient_id",
        "event_id",
        F.inline(known[F.col("source_table")]),
    )
    record = hidden(hide, F.col("silver"), F.col("source_table"), F.col("event_id"))
    return rows.withColumn("record", _record(record)).drop("event_id")


def told(decided: DataFrame, tables: list[str], hide: Callable[[Column], Column]) -> DataFrame:
    """silver, source_table, record, patient_id of every record that the delivery holds, refused or not; unique."""
    rows = decided.where(F.col("silver").isin(tables))
    own = F.coalesce(*[F.when(F.col("silver") == name, F.col(RECORD[name])) for name in tables])
    record = hidden(hide, F.col("silver"), F.col("source_table"), own)
    rows = rows.select("silver", "source_table", _record(record).alias("record"), "patient_id")
    return rows.where("record is not null and patient_id is not null").distinct()


def unnamed(decided: DataFrame) -> DataFrame:
    """source_table, gap, num_rows of rows that do not say which record they are: it may be any that is missed."""
    own = {"silver.patient": F.col("person_id")} | {name: F.col(RECORD[name]) for name in list(RECORD)[1:]}
    record = F.coalesce(*[F.when(F.col("silver") == name, column) for name, column in own.items()])
    rows = decided.where(F.col("silver").isin(list(RECORD)) & (F.col("source_table") == F.col("delivered_table")))
    lost = rows.where(record.isNull() | F.col("person_id").isNull())
    counted = lost.groupBy("source_table").agg(F.count("*").alias("num_rows"))
    return counted.select("source_table", F.lit("UNNAMED_ROW").alias("gap"), "num_rows")


def known(histories: dict[str, DataFrame], named: DataFrame, told: DataFrame, complete: list[str]) -> DataFrame:
    """Records of earlier deliveries that the delivery names as deleted, or of whose table it is the whole.

    Args:
        histories: table of silver -> every version of the source's records in earlier deliveries.
        named: of `named`. told: of `told`. complete: source_tables that the delivery holds all of.
    Returns:
        The columns of the tables of silver, each row's last version but deleted ones; silver; record; is_told: whether
        the delivery itself holds the record, which is then not withdrawn.

    Cost: the versions of the tables in `complete` are all read, of others those that are named.
    """
    found = []
    for name, history in histories.items():
        rows = history.withColumns({"silver": F.lit(name), "record": F.col(RECORD[name])})
        is_whole = F.col("source_table").isin(complete)
        deleted = _joined(rows.where(~is_whole), named, "left_semi")
        last = contracts.latest(rows.where(is_whole).unionByName(deleted), contracts.load(name).key)
        found.append(last.where(~F.col("is_deleted")))
    every = reduce(lambda one, other: one.unionByName(other, allowMissingColumns=True), found)
    own = told.withColumn("is_told", F.lit(True))
    # Each table came in partitions of its own, and would be written in as many files.
    joined = every.repartition("record").join(own, on=["silver", "source_table", "record", "patient_id"], how="left")
    return joined.withColumn("is_told", F.coalesce("is_told", F.lit(False)))


def withdrawals(known: DataFrame, name: str, lineage: dict[str, Column]) -> DataFrame:
    """The rows of a table of silver that take back what the delivery does not hold; `lineage` is the delivery's."""
    columns = [column for column in contracts.load(name).struct.names if column != "run_id"]
    rows = known.where((F.col("silver") == name) & ~F.col("is_told"))
    return rows.withColumns(lineage | {"is_deleted": F.lit(True)}).select(columns)


def without_effect(named: DataFrame, known: DataFrame) -> DataFrame:
    """source_table, gap, num_rows of deletions that took nothing back.

    UNKNOWN_RECORD: no earlier delivery told such a record, or it is deleted already. STILL_DELIVERED: the delivery that
    deletes it also holds it.
    """
    joined = _joined(named, known, "left").groupBy(*_DELETED).agg(F.min("_is_told").alias("is_told"))
    gap = F.when(F.col("is_told").isNull(), "UNKNOWN_RECORD").when(F.col("is_told"), "STILL_DELIVERED")
    counted = joined.select(F.col("deleted_table").alias("source_table"), gap.alias("gap")).where("gap is not null")
    return counted.groupBy("source_table", "gap").agg(F.count("*").alias("num_rows"))


def _record(hidden: Column) -> Column:
    """A patient is named by the pseudonym that every table has for it."""
    return F.when(F.col("silver") == "silver.patient", F.col("patient_id")).otherwise(hidden)


def _joined(rows: DataFrame, others: DataFrame, how: str) -> DataFrame:
    """`rows` with what others have of the same record; a patient that one of the two does not tell is anybody."""
    renamed = others.select([F.col(column).alias(f"_{column}") for column in others.columns])
    same = [F.col(column) == F.col(f"_{column}") for column in ("silver", "source_table", "record")]
    is_theirs = F.col("patient_id").isNull() | F.col("_patient_id").isNull()
    same.append(is_theirs | (F.col("patient_id") == F.col("_patient_id")))
    return rows.join(renamed, on=reduce(Column.__and__, same), how=how)
