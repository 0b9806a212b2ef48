"""Rows in = rows out + quarantined + exact copies, counted from committed tables."""

from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from medpipe.errors import DataError

FATES = ("accepted", "quarantined", "duplicate")


def union(frames: list[DataFrame]) -> DataFrame:
    """Rows of all frames, which have the same columns."""
    return reduce(DataFrame.unionByName, frames)


def fates(rows: DataFrame) -> dict[str, int]:
    """Rows of phi.fate by fate; every fate has a number."""
    counted = {row.fate: row["count"] for row in rows.groupBy("fate").count().collect()}
    return {fate: counted.get(fate, 0) for fate in FATES}


def reasons(rows: DataFrame) -> dict[str, int]:
    """Rows of phi.quarantine by reason; a row with two reasons counts for both."""
    counted = rows.select(F.explode("reasons").alias("code")).groupBy("code").count()
    return {row.code: row["count"] for row in counted.collect()}


def require(delivered: int, counts: dict[str, int], published: dict[str, int], quarantined: int) -> None:
    """Raises DataError UNBALANCED unless every delivered row is accounted for once.

    Args:
        delivered: rows in bronze.
        counts: as of `fates`.
        published: silver table -> rows.
        quarantined: rows in phi.quarantine.
    """
    accepted = sum(published.values())
    if delivered != sum(counts.values()) or counts["accepted"] != accepted or counts["quarantined"] != quarantined:
        raise DataError(
            "UNBALANCED",
            f"{delivered} rows delivered, fates recorded for {counts}, but {accepted} stand in silver and {quarantined} in "
            "quarantine; run the step again, and if it stays so the delivery's tables were changed from outside",
        )
