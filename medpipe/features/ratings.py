"""How strongly a patient's record speaks for a treatment, and how it went where the hospital says so: gold.rating."""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from medpipe.features.sequences import local_day

# The hospital's own "no matching concept" stands for many drugs at once.
UNMAPPED = "OMOP:0"
DIGITS = 9


@dataclass(frozen=True)
class RatingSettings:
    """What a rating speaks from.

    Attributes:
        basis: orders, how many drug records; duration, how many days they cover.
        outcome: concept of the measurement or observation whose value says how a patient did, e.g. LOINC:71969-0; ""
            for none.
    """

    basis: Literal["orders", "duration"] = "orders"
    outcome: str = ""


def ratings(events: DataFrame, as_of: date, settings: RatingSettings, zone: str) -> DataFrame:
    """One row per patient and treatment: implicit feedback from drug records, and the outcome beside it.

    Args:
        events: silver.event as known at as_of, the last version of each record, deleted ones left out.
        zone: the hospital's, for calendar days.
    Returns:
        gold.rating without run_id. A drug given often, or for long, speaks louder, but by its logarithm: chronic
        repeats would drown what was given once. rated_at is the first time.
    Source of the logarithm: Hu, Koren and Volinsky, ICDM 2008, section 4 (confidence in ln of the count).
    """
    given = events.where((F.col("kind") == "drug") & (F.col("concept") != UNMAPPED))
    given = given.withColumnRenamed("concept", "treatment")
    counted = days_added(given, as_of, zone) if settings.basis == "duration" else given.withColumn("amount", F.lit(1))
    rated = counted.groupBy("patient_id", "treatment").agg(
        F.lit(as_of).alias("as_of"),
        (1 + F.log(F.sum("amount"))).alias("rating"),
        F.lit(settings.basis).alias("basis"),
        F.min("event_at").alias("rated_at"),
    )
    if not settings.outcome:
        return rated.withColumn("outcome", F.lit(None).cast("double"))
    told = outcomes(given, events.where(F.col("concept") == settings.outcome))
    return rated.join(told, on=["patient_id", "treatment"], how="left")


def days_added(given: DataFrame, as_of: date, zone: str) -> DataFrame:
    """Of each record the calendar days on the treatment that no record which began before it covers.

    Args:
        given: reads patient_id, treatment, event_at and ended_at. The first and the last day count, none from as_of on;
            without an end, or where it lies ahead of the start, the first alone.
    Returns:
        the columns of given and amount (int, >= 0); of the records of a patient and treatment it adds up to the days
        of all together, at least one.
    """
    first, end = (F.unix_date(local_day(F.col(name), zone)) for name in ("event_at", "ended_at"))
    yesterday = F.unix_date(F.lit(as_of - timedelta(days=1)))
    # `least` would take yesterday for an end that is not known.
    last = F.greatest(first, F.when(end.isNotNull(), F.least(end, yesterday)))
    dated = given.withColumns({"first": first, "last": last})
    earlier = Window.partitionBy("patient_id", "treatment").orderBy("first", "last")
    covered = F.max("last").over(earlier.rowsBetween(Window.unboundedPreceding, -1))
    added = F.col("last") - F.greatest(F.col("first") - 1, covered)
    return dated.withColumn("amount", F.greatest(added, F.lit(0))).drop("first", "last")


def outcomes(given: DataFrame, scale: DataFrame) -> DataFrame:
    """How patients did in the encounters in which they had a treatment, from its start there on.

    All treatments of an encounter share what is told in it: this is no effect of any of them.

    Args:
        given: reads patient_id, source, encounter_id, treatment, event_at.
        scale: silver.event of one concept; reads the same and value. Without a value or an encounter it tells nothing.
    Returns:
        patient_id, treatment (unique pairs), outcome: mean of the values.
    """
    visit = ["patient_id", "source", "encounter_id"]
    began = given.groupBy(*visit, "treatment").agg(F.min("event_at").alias("began_at"))
    told = scale.where("value is not null").select(*visit, "value", F.col("event_at").alias("told_at"))
    found = began.join(told, on=visit, how="inner").where("told_at >= began_at")
    # A mean depends on the order of its sum in the last bits.
    return found.groupBy("patient_id", "treatment").agg(F.round(F.avg("value"), DIGITS).alias("outcome"))
