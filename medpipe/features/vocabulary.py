"""The concepts a model knows, with the scale of their values: from the train split only."""

from datetime import date

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F


def vocabulary(sequences: DataFrame, concepts: DataFrame, as_of: date, recipe: str, max_tokens: int) -> DataFrame:
    """gold.vocabulary (without run_id): the max_tokens concepts that most train patients have.

    Args:
        sequences: as gold.sequence; only rows with role fit and split train are looked at, labelled or not.
        concepts: reads concept; the names behind the hashes, each at least once. A hash none of them gives gets no
            token, so the model sees it as unknown.
        as_of, recipe: as in the rows.
    Returns:
        token 2, 3 ... by falling num_patients, ties by concept. Mean and sample standard deviation are of the finite
        values, rounded to float so that the order of a sum does not show.
    Cost: one row per train patient and event before the aggregation.
    """
    train = sequences.where("role = 'fit' and split = 'train'")
    events = train.select("patient_id", F.explode(F.arrays_zip("concepts", "amounts")).alias("event")).select(
        "patient_id", F.col("event.concepts").alias("concept_hash"), F.col("event.amounts").alias("amount")
    )
    amount = F.when(~F.isnan("amount"), F.col("amount").cast("double"))
    counted = events.groupBy("concept_hash").agg(
        F.countDistinct("patient_id").alias("num_patients"),
        F.avg(amount).cast("float").cast("double").alias("mean"),
        F.stddev_samp(amount).cast("float").cast("double").alias("std"),
    )
    names = concepts.groupBy("concept").agg(F.xxhash64("concept").alias("concept_hash"))
    ranked = counted.join(names, on="concept_hash", how="inner")
    # One window over the concepts of a hospital, some 10,000 rows: no partition is needed.
    place = F.row_number().over(Window.orderBy(F.desc("num_patients"), "concept"))
    return (
        ranked.withColumn("token", place + 1)
        .where(F.col("token") <= max_tokens + 1)
        .select(
            F.lit(as_of).alias("as_of"),
            F.lit(recipe).alias("recipe"),
            "token",
            "concept",
            "concept_hash",
            "num_patients",
            F.coalesce("mean", F.lit(0.0)).alias("amount_mean"),
            F.when(F.col("std") > 0, F.col("std")).otherwise(1.0).alias("amount_std"),
        )
    )
