"""Rows in = rows out + quarantined + exact copies, counted from committed tables."""

from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from medpipe.errors import DataError
from medpipe.mappings.mapping import DELETED

FATES = ("accepted", "quarantined", "duplicate")


@dataclass(frozen=True)
class Counts:
    """Rows of a delivery, and of the parts of rows that give several, by fate; how many were refused for what; and how
    many of the accepted rows stand nowhere in silver themselves: deletions, and those that only stand beside others."""

    rows: dict[str, int]
    parts: dict[str, int]
    reasons: dict[str, int]
    num_apart: int = 0

    @property
    def of_run(self) -> dict[str, int]:
        """What the ledger tells of a step that judges a delivery."""
        return {
            "rows_in": sum(self.rows.values()),
            "rows_out": self.rows["accepted"],
            "rows_quarantined": self.rows["quarantined"],
            "rows_duplicate": self.rows["duplicate"],
        }


def counted(fates: DataFrame, refused: DataFrame, beside: str = "") -> Counts:
    """In one query; every fate has a number, a row with two reasons counts for both.

    Args:
        fates: of phi.fate. refused: of phi.quarantine.
        beside: the table whose rows only stand beside others; "" for none.
    """
    of = F.when(F.col("source_table").startswith(DELETED) | (F.col("source_table") == beside), "apart")
    kind = of.when(F.col("source_table").contains("."), "part").otherwise("row").alias("of")
    by_fate = fates.groupBy(kind, F.col("fate").alias("code")).count()
    codes = refused.select(F.explode("reasons").alias("code"))
    found = by_fate.unionByName(codes.groupBy(F.lit("reason").alias("of"), "code").count()).collect()
    numbers = {(row.of, row.code): row["count"] for row in found}
    own, parts, apart = ({fate: numbers.get((of, fate), 0) for fate in FATES} for of in ("row", "part", "apart"))
    rows = {fate: own[fate] + apart[fate] for fate in FATES}
    reasons = {code: number for (of, code), number in numbers.items() if of == "reason"}
    return Counts(rows, parts, reasons, apart["accepted"])


def require(
    delivered: int, counts: Counts, quarantined: int, published: dict[str, int], num_withdrawn: int = 0
) -> None:
    """Raises DataError UNBALANCED unless every delivered row is accounted for once.

    Args:
        delivered: rows in bronze.
        quarantined: rows in phi.quarantine.
        published: silver table -> rows.
        num_withdrawn: those of them that take back rows of earlier deliveries.
    """
    accepted = sum(published.values()) - num_withdrawn + counts.num_apart
    both = {fate: counts.rows[fate] + counts.parts[fate] for fate in FATES}
    if delivered != sum(counts.rows.values()) or (both["accepted"], both["quarantined"]) != (accepted, quarantined):
        told = f"{counts.rows} and for parts {counts.parts}" if any(counts.parts.values()) else counts.rows
        raise DataError(
            "UNBALANCED",
            f"{delivered} rows delivered, fates recorded for {told}, but {accepted} stand in silver and "
            f"{quarantined} in quarantine; run the step again, and if it stays so the delivery's tables "
            "were changed from outside",
        )
