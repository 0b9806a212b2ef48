"""What is known of a patient beside treatments, as names of features; and the groups that figures are told apart by."""

from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

AGE_BAND_YEARS = 10
# Ages above 89 name people: 45 CFR 164.514(b)(2)(i)(C).
LAST_BAND_YEARS = 90


def patient_features(
    patients: DataFrame, encounters: DataFrame, events: DataFrame, as_of: date, min_patients: int = 5
) -> DataFrame:
    """Sex, age band at as_of, conditions ever recorded, kinds of encounter.

    Args:
        patients, encounters, events: silver as known at as_of, the last version of each record, deleted ones left out.
            Where two sources speak of a patient, what either says holds.
        min_patients: a feature of fewer is left out: it would teach nothing, and point at them.
    Returns:
        patient_id, feature (unique pairs): sex=, age= (lower end in years), condition=, encounter=.
    """
    conditions = events.where(F.col("kind") == "condition")
    said = (
        demographics(patients, as_of)
        .unionByName(_named(conditions, "condition", F.col("concept")))
        .unionByName(_named(encounters, "encounter", F.col("kind")))
        .distinct()
    )
    common = said.groupBy("feature").count().where(F.col("count") >= min_patients).select("feature")
    return said.join(common, on="feature", how="left_semi").select("patient_id", "feature")


def subgroups(patients: DataFrame, as_of: date) -> DataFrame:
    """patient_id, subgroup (unique pairs): all, sex=, age=, site= (the source that delivered the patient)."""
    everybody = patients.select("patient_id", F.lit("all").alias("subgroup"))
    sites = _named(patients, "site", F.col("source"))
    named = demographics(patients, as_of).unionByName(sites).withColumnRenamed("feature", "subgroup")
    return everybody.unionByName(named).distinct()


def demographics(patients: DataFrame, as_of: date) -> DataFrame:
    """patient_id, feature: sex= and age=; a patient of unknown sex is of neither. Who is 90 or older is alike."""
    years = F.floor(F.months_between(F.lit(as_of), "birth_date") / 12)
    band = (F.least(F.floor(years / AGE_BAND_YEARS) * AGE_BAND_YEARS, F.lit(LAST_BAND_YEARS))).cast("string")
    known = patients.where(F.col("sex") != "unknown")
    return _named(known, "sex", F.col("sex")).unionByName(_named(patients, "age", band))


def _named(rows: DataFrame, name: str, value: Column) -> DataFrame:
    return rows.where(value.isNotNull()).select("patient_id", F.concat(F.lit(f"{name}="), value).alias("feature"))
