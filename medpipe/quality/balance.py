"""Rows in = rows out + quarantined + exact copies, counted from committed tables."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from medpipe.errors import DataError

FATES = ("accepted", "quarantined", "duplicate")


def counted(fates: DataFrame, refused: DataFrame) -> tuple[dict[str, int], dict[str, int]]:
    """(rows by fate, rows by reason), in one query; every fate has a number, a row with two reasons counts for both.

    Args:
        fates: of phi.fate. refused: of phi.quarantine.
    """
    by_fate = fates.groupBy(F.lit("fate").alias("of"), F.col("fate").alias("code")).count()
    codes = refused.select(F.explode("reasons").alias("code"))
    rows = by_fate.unionByName(codes.groupBy(F.lit("reason").alias("of"), "code").count()).collect()
    numbers = {(row.of, row.code): row["count"] for row in rows}
    reasons = {code: number for (of, code), number in numbers.items() if of == "reason"}
    return {fate: numbers.get(("fate", fate), 0) for fate in FATES}, reasons


def require(delivered: int, counts: dict[str, int], quarantined: int, published: dict[str, int]) -> None:
    """Raises DataError UNBALANCED unless every delivered row is accounted for once.

    Args:
        delivered: rows in bronze.
        counts: rows by fate, of `counted`.
        quarantined: rows in phi.quarantine.
        published: silver table -> rows.
    """
    accepted = sum(published.values())
    if delivered != sum(counts.values()) or counts["accepted"] != accepted or counts["quarantined"] != quarantined:
        raise DataError(
            "UNBALANCED",
            f"{delivered} rows delivered, fates recorded for {counts}, but {accepted} stand in silver and "
            f"{quarantined} in quarantine; run the step again, and if it stays so the delivery's tables "
            "were changed from outside",
        )
