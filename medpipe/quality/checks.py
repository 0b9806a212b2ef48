"""Rows that keep their contract and rows that do not, with every reason."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from medpipe import contracts


def reasons(name: str, *more: Column) -> Column:
    """array<string>: codes of all that is wrong with a row of a silver table, sorted; empty for a good one.

    Reads `faults` beside the table's columns. A line that could not be split has FIELD_COUNT and no other reason, since
    nothing in it stands where it should.

    Args:
        more: further codes, null where they do not apply.
    """
    found = F.array_union(F.col("faults"), F.array_compact(F.array(*more))) if more else F.col("faults")
    broken_line = F.array_contains("faults", "FIELD_COUNT")
    every = F.array_sort(F.array_union(found, contracts.violations(name)))
    return F.when(broken_line, F.array(F.lit("FIELD_COUNT"))).otherwise(every)


def conflicting(rows: DataFrame, key: tuple[str, ...]) -> DataFrame:
    """Keys that stand for rows of different content within one delivery: which one holds cannot be known.

    Args:
        rows: exact copies already left out.
    Returns:
        key columns, unique. Null keys are no keys.
    """
    complete = rows.dropna(subset=list(key))
    return complete.groupBy(*key).count().where("count > 1").select(*key)
