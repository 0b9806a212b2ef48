"""How many patients are alike in what others may know of them (k-anonymity), and hiding it where they are too few.

Source: Sweeney, k-anonymity: a model for protecting privacy, IJUFKS 10(5), 2002.
"""

from dataclasses import dataclass

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

# What others may know of a patient, and what stands in its place where it is hidden.
QUASI_IDENTIFIERS = {"sex": "unknown", "birth_year": None, "age": None, "state": None, "zip3": None}
# Sizes of the report: name -> smallest and, but for the last, largest.
BANDS = {"1": (1, 1), "2 to 4": (2, 4), "5 to 10": (5, 10), "11 and more": (11, None)}


@dataclass(frozen=True)
class Groups:
    """smallest: size of the smallest group, 0 for none; num_patients: band -> patients in groups of such sizes."""

    num_groups: int
    smallest: int
    num_patients: dict[str, int]


def hidden(patients: DataFrame, min_size: int) -> DataFrame:
    """The patients, QUASI_IDENTIFIERS hidden of those who are alike with fewer than min_size, themselves included.

    Adds is_hidden. Those whose are hidden are a group that may be smaller: it tells nothing of them.
    """
    if min_size == 1:
        return patients.withColumn("is_hidden", F.lit(False))
    alike = F.count("*").over(Window.partitionBy(*QUASI_IDENTIFIERS))
    told = patients.withColumn("is_hidden", alike < min_size)
    instead = {
        column: F.when(F.col("is_hidden"), F.lit(text)).otherwise(F.col(column))
        for column, text in QUASI_IDENTIFIERS.items()
    }
    return told.withColumns(instead)


def groups(patients: DataFrame) -> Groups:
    """Counts the groups of patients who are alike in all QUASI_IDENTIFIERS; null is like null."""
    sizes = patients.groupBy(*QUASI_IDENTIFIERS).agg(F.count("*").alias("size"))
    is_in = {
        name: (F.col("size") >= low) & (F.col("size") <= high if high else F.lit(True))
        for name, (low, high) in BANDS.items()
    }
    numbers = [F.sum(F.when(band, F.col("size"))).alias(name) for name, band in is_in.items()]
    found = sizes.agg(F.count("*").alias("groups"), F.min("size").alias("smallest"), *numbers).first()
    return Groups(found["groups"], found["smallest"] or 0, {name: found[name] or 0 for name in BANDS})
