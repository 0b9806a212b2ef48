"""Rows of gold.score from what the workers return."""

from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def score_rows(scores: DataFrame, as_of: date, recipe: str, model_sha256: str, feature_version: int) -> DataFrame:
    """gold.score (without run_id) from patient_id, score and device; one row each, nothing dropped."""
    return scores.select(
        F.lit(as_of).alias("as_of"),
        F.lit(recipe).alias("recipe"),
        "patient_id",
        "score",
        F.lit(model_sha256).alias("model_sha256"),
        F.lit(feature_version).cast("long").alias("feature_version"),
        "device",
    )
