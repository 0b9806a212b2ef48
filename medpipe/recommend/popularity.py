"""The baseline, and the answer for a patient of whom no treatment is known: what most others have."""

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F


def popularity(ratings: DataFrame) -> DataFrame:
    """Every treatment with the share of treated patients who have it.

    Args:
        ratings: as gold.rating; reads patient_id and treatment, one row per pair.
    Returns:
        place (1 = most patients; ties by treatment), treatment, share in (0, 1]. As small as the catalogue.
    """
    num_patients = ratings.agg(F.count_distinct("patient_id").alias("num_patients"))
    counts = ratings.groupBy("treatment").agg(F.count("*").alias("num_with"))
    place = F.row_number().over(Window.orderBy(F.desc("num_with"), "treatment"))
    shares = counts.crossJoin(F.broadcast(num_patients))
    return shares.select(place.alias("place"), "treatment", (F.col("num_with") / F.col("num_patients")).alias("share"))


def recommend_popular(ratings: DataFrame, patients: DataFrame, top_k: int) -> DataFrame:
    """The most popular treatments a patient does not have.

    Args:
        ratings: as gold.rating; reads patient_id and treatment, one row per pair.
        patients: patient_id, unique: whom to recommend to, treated or not.
    Returns:
        patient_id, rank (1 = first), treatment, score (the share), path = popularity. Fewer than top_k rows for a
        patient who has nearly everything, none for one who has all.
    """
    popular = popularity(ratings)
    places = F.sort_array(F.collect_list(F.struct("place", "treatment")))
    catalogue = popular.agg(F.transform(places, lambda item: item["treatment"]).alias("catalogue"))
    held = ratings.groupBy("patient_id").agg(F.collect_list("treatment").alias("held"))
    # array_except keeps the order of its first array.
    left = F.array_except("catalogue", F.coalesce("held", F.array().cast("array<string>")))
    lists = patients.select("patient_id").join(held, on="patient_id", how="left").crossJoin(F.broadcast(catalogue))
    rows = lists.select("patient_id", F.posexplode(F.slice(left, 1, top_k)).alias("position", "treatment"))
    shares = F.broadcast(popular.select("treatment", F.col("share").alias("score")))
    return rows.join(shares, on="treatment", how="inner").select(
        "patient_id", (F.col("position") + 1).alias("rank"), "treatment", "score", F.lit("popularity").alias("path")
    )
