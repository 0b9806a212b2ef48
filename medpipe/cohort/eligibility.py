"""For whom a prediction is asked, at which moment, and what came of it: gold.cohort."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from medpipe.cohort.splits import split_of
from medpipe.errors import UsageError


@dataclass(frozen=True)
class CohortSettings:
    """The question the risk model answers.

    Attributes:
        outcome_concepts: concepts of silver.event any of which is the outcome, e.g. OMOP:316139 (heart failure).
        observation_days: days a patient must have been observed before the index.
        time_at_risk_days: days from the index in which the outcome counts.
        washout_days: a patient with the outcome this long before the index is not at risk of a first one; None: ever.
        max_unseen_days: a patient whose observation ended at most this long before the index still counts as observed;
            periods end with the last delivery, which is a day or more before the index.
        lag_days: days before as_of whose records may not have arrived or whose observation is not yet complete; to fit,
            the time at risk ends so long before as_of. Too small, it leaves only patients with the outcome: where every
            period ends before the time at risk does, all others are CENSORED.
    """

    outcome_concepts: tuple[str, ...] = ()
    observation_days: int = 365
    time_at_risk_days: int = 90
    washout_days: int | None = None
    max_unseen_days: int = 31
    lag_days: int = 0


@dataclass(frozen=True)
class Window:
    """The moments of a cohort, UTC, with the index as the hospital's calendar day."""

    index_date: date
    index_at: datetime
    at_risk_until: datetime


def index_date(as_of: date, role: str, settings: CohortSettings) -> date:
    """apply: as_of itself. fit: so long before that the whole time at risk ends lag_days before as_of, and is known."""
    return as_of if role == "apply" else as_of - timedelta(days=settings.time_at_risk_days + settings.lag_days)


def cohort(
    patients: DataFrame, periods: DataFrame, events: DataFrame, role: str, window: Window, settings: CohortSettings
) -> DataFrame:
    """Every patient, with label and split, or the reason why not.

    Args:
        patients, periods, events: silver.patient, silver.observation_period, silver.event as known at as_of.
    Returns:
        gold.cohort without as_of and run_id; one row per row of `patients`. Of several reasons the first in the order
        DECEASED, NOT_OBSERVED, SHORT_HISTORY, PRIOR_OUTCOME, CENSORED. Who dies in the time at risk without the outcome
        has label 0: it cannot come any more.
    Raises:
        UsageError: NO_OUTCOME.
    """
    if not settings.outcome_concepts:
        raise UsageError("NO_OUTCOME", 'cohort.outcome_concepts is empty; name the outcome, e.g. ["OMOP:316139"]')
    index, until = F.lit(window.index_at), F.lit(window.at_risk_until)
    observed = _observed(periods, window.index_date, settings)
    happened = _outcomes(events, index, until, settings)
    rows = (
        patients.select("patient_id", "birth_date")
        .join(observed, on="patient_id", how="left")
        .join(happened, on="patient_id", how="left")
    )
    last_day = F.lit(window.index_date + timedelta(days=settings.time_at_risk_days - 1))
    label = (
        F.when(F.col("outcome_at").isNotNull(), 1)
        .when((F.col("observed_until") >= last_day) | (F.col("died_at") < until), 0)
        .otherwise(-1)
    )
    exclusion = (
        F.when(F.col("died_at") < index, "DECEASED")
        .when(F.col("observed_from").isNull() | (F.col("birth_date") >= F.lit(window.index_date)), "NOT_OBSERVED")
        .when(
            F.col("observed_from") > F.lit(window.index_date - timedelta(days=settings.observation_days)),
            "SHORT_HISTORY",
        )
        .when(F.coalesce("has_prior", F.lit(False)), "PRIOR_OUTCOME")
    )
    if role == "fit":
        exclusion = F.coalesce(exclusion, F.when(label == -1, "CENSORED"))
    return rows.select(
        F.lit(role).alias("role"),
        "patient_id",
        index.alias("index_at"),
        until.alias("at_risk_until"),
        split_of(F.col("patient_id")).alias("split"),
        F.when(exclusion.isNull() & F.lit(role == "fit"), label).otherwise(-1).alias("label"),
        exclusion.alias("exclusion"),
    )


def _observed(periods: DataFrame, index: date, settings: CohortSettings) -> DataFrame:
    """patient_id (unique), observed_from, observed_until: of the spans that hold the index, the longest reach."""
    seen_until = F.date_add("end_date", settings.max_unseen_days + 1)
    holding = periods.where((F.col("start_date") <= F.lit(index)) & (seen_until >= F.lit(index)))
    return holding.groupBy("patient_id").agg(
        F.min("start_date").alias("observed_from"), F.max("end_date").alias("observed_until")
    )


def _outcomes(events: DataFrame, index: Column, until: Column, settings: CohortSettings) -> DataFrame:
    """patient_id (unique), outcome_at (first in the time at risk), has_prior, died_at."""
    is_outcome = F.col("concept").isin(*settings.outcome_concepts)
    is_death = F.col("kind") == "death"
    is_prior = is_outcome & (F.col("event_at") < index)
    if settings.washout_days is not None:
        is_prior = is_prior & (F.col("event_at") >= index - F.expr(f"interval {int(settings.washout_days)} days"))
    in_time = is_outcome & (F.col("event_at") >= index) & (F.col("event_at") < until)
    return (
        events.where(is_outcome | is_death)
        .groupBy("patient_id")
        .agg(
            F.min(F.when(in_time, F.col("event_at"))).alias("outcome_at"),
            F.max(is_prior).alias("has_prior"),
            F.min(F.when(is_death, F.col("event_at"))).alias("died_at"),
        )
    )
