"""How strongly a patient's record speaks for a treatment: gold.rating."""

from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

# The hospital's own "no matching concept" stands for many drugs at once.
UNMAPPED = "OMOP:0"


def ratings(events: DataFrame, as_of: date) -> DataFrame:
    """One row per patient and treatment: implicit feedback from drug records.

    Args:
        events: silver.event as known at as_of, the last version of each record, deleted ones left out.
    Returns:
        gold.rating without run_id. A drug given often speaks louder, but by its logarithm: chronic repeats would
        drown what was given once. rated_at is the first time.
    Source of the logarithm: Hu, Koren and Volinsky, ICDM 2008, section 4 (confidence in ln of the count).
    """
    given = events.where((F.col("kind") == "drug") & (F.col("concept") != UNMAPPED))
    return given.groupBy("patient_id", F.col("concept").alias("treatment")).agg(
        F.lit(as_of).alias("as_of"),
        (1 + F.log(F.count("*"))).alias("rating"),
        F.lit("orders").alias("basis"),
        F.min("event_at").alias("rated_at"),
    )
