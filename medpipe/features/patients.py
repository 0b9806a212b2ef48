"""What a patient is, beside the treatments: sex, age band and conditions, as names that a model makes columns of."""

from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

AGE_BAND_YEARS = 10


def patient_features(patients: DataFrame, events: DataFrame, as_of: date) -> DataFrame:
    """Everything that is so of a patient.

    Args:
        patients: silver.patient as known at as_of; several sources may speak of one.
        events: silver.event as known at as_of; reads patient_id, kind and concept.
    Returns:
        patient_id, feature (unique pairs): SEX:female, AGE:60 (60 to 69 at as_of), and the concept of each condition.
        An unknown sex is no feature.
    """
    years = F.floor(F.months_between(F.lit(as_of), F.col("birth_date")) / 12)
    band = F.floor(years / AGE_BAND_YEARS) * AGE_BAND_YEARS
    sex = F.when(F.col("sex") != "unknown", F.concat(F.lit("SEX:"), "sex"))
    of_patients = patients.select(
        "patient_id", F.explode(F.array_compact(F.array(sex, F.concat(F.lit("AGE:"), band)))).alias("feature")
    )
    conditions = events.where("kind = 'condition'").select("patient_id", F.col("concept").alias("feature"))
    return of_patients.union(conditions).distinct()
