"""The baseline, and the answer for a patient of whom no treatment is known: what most others have."""

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

_CATALOGUE = pa.schema([("catalogue", pa.list_(pa.struct([("treatment", pa.string()), ("score", pa.float64())])))])


def popularity(ratings: DataFrame) -> list[tuple[str, float]]:
    """Every treatment with the share of treated patients who have it, most patients first, ties by treatment.

    Args:
        ratings: as gold.rating; reads patient_id and treatment (not null), one row per pair.
    Returns:
        (treatment, share in (0, 1]), as many as the catalogue has.
    """
    # The row without a treatment is the total: all patients, in the same pass.
    rows = ratings.rollup("treatment").agg(F.count_distinct("patient_id").alias("num_with")).collect()
    counts = {row.treatment: row.num_with for row in rows}
    num_patients = counts.pop(None, 0)
    return [
        (t, num_with / num_patients) for t, num_with in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    ]


def recommend_popular(ratings: DataFrame, patients: DataFrame, top_k: int) -> DataFrame:
    """The most popular treatments a patient does not have.

    Args:
        ratings: as gold.rating; reads patient_id and treatment, one row per pair.
        patients: patient_id, unique: whom to recommend to, treated or not.
    Returns:
        patient_id, rank (1 = first), treatment, score (the share), path = popularity. Fewer than top_k rows for a
        patient who has nearly everything, none for one who has all.
    """
    held = ratings.groupBy("patient_id").agg(F.collect_list("treatment").alias("held"))
    return popular_left(popularity(ratings), patients.join(held, on="patient_id", how="left"), top_k)


def popular_left(popular: list[tuple[str, float]], holders: DataFrame, top_k: int) -> DataFrame:
    """As `recommend_popular`, of what `popularity` gave.

    Args:
        holders: patient_id, unique, and held (array<string>, null for none).
    """
    rows = [[{"treatment": treatment, "score": share} for treatment, share in popular]]
    catalogue = holders.sparkSession.createDataFrame(pa.table([pa.array(rows, _CATALOGUE[0].type)], _CATALOGUE))
    held = F.coalesce("held", F.array().cast("array<string>"))
    # Each treatment held takes at most one of the first places.
    first = F.slice("catalogue", 1, F.size(held) + top_k)
    left = F.filter(first, lambda item: ~F.array_contains(held, item["treatment"]))
    lists = holders.crossJoin(F.broadcast(catalogue))
    return lists.select("patient_id", F.posexplode(F.slice(left, 1, top_k)).alias("position", "item")).select(
        "patient_id",
        (F.col("position") + 1).alias("rank"),
        "item.treatment",
        "item.score",
        F.lit("popularity").alias("path"),
    )
