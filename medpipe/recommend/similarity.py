"""Patients alike in their treatments: the plain formula, and the nearest of everybody in bounded memory."""

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from medpipe.recommend.nearest import NEAREST, Nearest
from medpipe.recommend.numbering import numbered


def cosine_similarity(ratings: DataFrame) -> DataFrame:
    """Cosine of every two patients who share a treatment: the definition, and the test oracle of nearest_patients.

    Args:
        ratings: as gold.rating; reads patient_id, treatment and rating (> 0).
    Returns:
        patient_id, other_patient_id, similarity in (0, 1]; both directions, nobody with themselves.
        The product runs over shared treatments, each norm over all of that patient's.
    Cost: sum over treatments of (patients on it) ** 2 rows.
    Source: Breese, Heckerman and Kadie, UAI 1998, section 2.1.2.
    """
    norm = F.sqrt(F.sum(F.col("rating") ** 2).over(Window.partitionBy("patient_id")))
    mine = ratings.select("patient_id", "treatment", (F.col("rating") / norm).alias("weight"))
    theirs = mine.withColumnsRenamed({"patient_id": "other_patient_id", "weight": "other_weight"})
    return (
        mine.join(theirs, on="treatment", how="inner")
        .where("patient_id <> other_patient_id")
        .groupBy("patient_id", "other_patient_id")
        .agg(F.sum(F.col("weight") * F.col("other_weight")).alias("similarity"))
    )


def nearest_patients(ratings: DataFrame, num_neighbours: int = 50, block_rows: int = 16_384) -> DataFrame:
    """The patients most alike to each patient.

    Patients are dealt into blocks of about block_rows by a hash; a task holds one block and all patients stream past
    it, so its memory does not grow with their number, but for their pseudonyms.

    Args:
        ratings: as gold.rating; reads patient_id, treatment (unique pairs) and rating (> 0).
    Returns:
        patient_id, rank (1 = nearest; ties of the rounded similarity by other_patient_id), other_patient_id,
        similarity (rounded to 1e-6, > 0). Fewer than num_neighbours rows where fewer patients share a treatment.
        Block size and partitioning do not show in the result.
    Cost: patients ** 2 * treatments multiplications; shuffles every rating once per block.
    """
    num_patients, num_treatments = ratings.select(F.count_distinct("patient_id"), F.count_distinct("treatment")).first()
    num_blocks = max(1, -(-num_patients // block_rows))
    vectors = _vectors(ratings)
    own_block = F.pmod(F.xxhash64("patient_id"), F.lit(num_blocks)).cast("int")
    mine = vectors.withColumns({"block": own_block, "is_other": F.lit(False)})
    blocks = F.explode(F.sequence(F.lit(0), F.lit(num_blocks - 1)))
    others = vectors.withColumns({"block": blocks, "is_other": F.lit(True)})
    # A block's own patients come first, then everybody in the order that decides ties.
    stream = mine.unionByName(others).repartitionByRange(num_blocks, "block")
    stream = stream.sortWithinPartitions("block", "is_other", "patient_id")
    return stream.mapInArrow(Nearest(num_treatments, num_neighbours), NEAREST)


def _vectors(ratings: DataFrame) -> DataFrame:
    """patient_id, columns (array<int>), weights (array<double>, length 1): one row per patient, columns rising."""
    columns = numbered(ratings.select("treatment").distinct(), "treatment", "column")
    rows = ratings.join(F.broadcast(columns), on="treatment", how="inner")
    item = F.struct(F.col("column").cast("int").alias("column"), "rating")
    vectors = rows.groupBy("patient_id").agg(F.array_sort(F.collect_list(item)).alias("items"))
    # A fold over the sorted array: sum() would add in the order in which rows arrive.
    square = F.aggregate("items", F.lit(0.0), lambda total, item: total + item["rating"] * item["rating"])
    vectors = vectors.withColumn("norm", F.sqrt(square))
    return vectors.select(
        "patient_id",
        F.col("items.column").alias("columns"),
        F.transform("items", lambda item: item["rating"] / F.col("norm")).alias("weights"),
    )
