"""A patient's events before the index as one row of arrays: gold.sequence."""

from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from medpipe import contracts

EVENT_KEY = ("source", "source_table", "event_id", "patient_id")
BIRTH = "BIRTH:"


@dataclass(frozen=True)
class SequenceSettings:
    """How much of a history a row holds.

    Attributes:
        max_events: the latest this many events, the birth not counted.
        lookback_days: events this long before the index; older ones are left out.
    """

    max_events: int = 256
    lookback_days: int = 3650


def before_index(versions: DataFrame, index_at: datetime) -> DataFrame:
    """Records as they stood at the index: happened before it and recorded before it, the last version of each then.

    A correction that came later does not reach back: the row shows what was known.
    """
    index = F.lit(index_at)
    known = contracts.latest(versions.where(F.col("recorded_at") < index), EVENT_KEY)
    return known.where((F.col("event_at") < index) & ~F.col("is_deleted"))


def sequences(
    cohort: DataFrame, patients: DataFrame, events: DataFrame, zone: str, settings: SequenceSettings
) -> DataFrame:
    """One row per patient of the cohort who is not left out.

    Args:
        cohort: gold.cohort of one as_of and role.
        patients: silver.patient as known at as_of, for birth and sex.
        events: of `before_index`.
        zone: the hospital's, for calendar days.
    Returns:
        gold.sequence without as_of and run_id. Events in time order, those of one moment by concept_hash and event_id;
        the birth first, its concept BIRTH:female, BIRTH:male or BIRTH:unknown.
    """
    index = cohort.where("exclusion is null").select("role", "patient_id", "index_at", "split", "label")
    days = F.datediff(local_day(F.col("index_at"), zone), local_day(F.col("event_at"), zone))
    element = F.struct(
        F.col("event_at"),
        F.xxhash64("concept").alias("concept"),
        F.col("event_id"),
        days.alias("days_before"),
        F.coalesce(F.col("value").cast("float"), F.lit(float("nan")).cast("float")).alias("amount"),
        F.col("recorded_at"),
    )
    recent = events.join(index.select("patient_id", "index_at"), on="patient_id", how="inner")
    recent = recent.where(days <= settings.lookback_days)
    history = recent.groupBy("patient_id").agg(F.sort_array(F.collect_list(element)).alias("all_events"))
    kept = F.slice("all_events", -F.least(F.size("all_events"), F.lit(settings.max_events)), settings.max_events)
    rows = index.join(patients.select("patient_id", "birth_date", "sex"), on="patient_id", how="inner")
    rows = rows.join(history.withColumn("events", kept), on="patient_id", how="left")
    rows = rows.withColumn("events", F.coalesce("events", F.array().cast(history.schema["all_events"].dataType)))
    born_at = F.to_utc_timestamp(F.col("birth_date").cast("timestamp"), zone)
    born_days = F.datediff(local_day(F.col("index_at"), zone), F.col("birth_date"))
    nan = F.lit(float("nan")).cast("float")
    return rows.select(
        "role",
        "patient_id",
        "index_at",
        F.greatest(F.array_max(F.col("events.event_at")), born_at).alias("max_event_at"),
        F.greatest(F.array_max(F.col("events.recorded_at")), born_at).alias("max_recorded_at"),
        "split",
        "label",
        F.concat(F.array(F.xxhash64(F.concat(F.lit(BIRTH), "sex"))), F.col("events.concept")).alias("concepts"),
        F.concat(F.array(born_days), F.col("events.days_before")).alias("days_before"),
        F.concat(F.array(nan), F.col("events.amount")).alias("amounts"),
    )


def local_day(at: Column, zone: str) -> Column:
    """The hospital's calendar date of a UTC timestamp."""
    return F.to_date(F.from_utc_timestamp(at, zone))
