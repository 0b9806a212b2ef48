"""Rows of the tables of scores and of gold.score_error from what the workers return."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from medpipe import contracts
from medpipe.recipes import Recipe


def placed(scored: DataFrame, place: dict) -> DataFrame:
    """ops.scored (without run_id) from a scorer's rows.

    Args:
        place: column -> value of those the table is partitioned by.
    """
    types = contracts.load("ops.scored").struct
    return scored.withColumns({name: F.lit(value).cast(types[name].dataType) for name, value in place.items()})


def score_rows(scored: DataFrame, recipe: Recipe, model_sha256: str) -> DataFrame:
    """The recipe's scores_table (without run_id) from ops.scored: the rows with a score."""
    rows = scored.where("code is null").withColumn("model_sha256", F.lit(model_sha256))
    names = [name for name in contracts.load(recipe.scores_table).struct.names if name != "run_id"]
    return rows.withColumnsRenamed({"row_id": recipe.columns[0]}).select(names)


def error_rows(scored: DataFrame, model_sha256: str) -> DataFrame:
    """gold.score_error (without run_id) from ops.scored: the rows without one."""
    rows = scored.where("code is not null").withColumn("model_sha256", F.lit(model_sha256))
    return rows.select("as_of", "recipe", "row_id", "code", "model_sha256", "feature_version")
