"""How well ranked lists find treatments that came later."""

from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

# Standard normal, two-sided 95 %.
Z_95 = 1.959964


@dataclass(frozen=True)
class RankingSettings:
    """What is held out, and the length of list that is measured.

    Attributes:
        held_out: share of a patient's treatments, the last ones, at least one.
    """

    held_out: float = 0.2
    top_k: int = 10


def time_ordered_split(rated: DataFrame, settings: RankingSettings) -> tuple[DataFrame, DataFrame]:
    """Each patient's last treatments, held out, and the rest.

    Args:
        rated: as gold.rating; reads patient_id, treatment, rated_at. Ties in time go by treatment.
    Returns:
        (known, later), columns of rated. A patient with one treatment keeps it in known and is not measured. Ratings
        in known count all times a treatment was given, those after the split too: they are rated, not rated anew.
    """
    order = Window.partitionBy("patient_id").orderBy(F.col("rated_at").desc(), F.col("treatment").desc())
    count = F.count("*").over(Window.partitionBy("patient_id"))
    num_later = F.when(count > 1, F.greatest(F.lit(1), F.floor(count * settings.held_out))).otherwise(0)
    marked = rated.withColumn("is_later", F.row_number().over(order) <= num_later)
    return marked.where(~F.col("is_later")).drop("is_later"), marked.where("is_later").drop("is_later")


def per_patient(lists: DataFrame, later: DataFrame, settings: RankingSettings) -> DataFrame:
    """NDCG and recall of each patient who has something held out; no list counts 0.

    Args:
        lists: patient_id, rank (1 = first), treatment.
        later: patient_id, treatment; unique.
    Returns:
        patient_id, ndcg, recall. Binary relevance, gain 1 / log2(rank + 1), over that of the best list possible of
        top_k (Järvelin and Kekäläinen, TOIS 2002); recall over the number held out.
    """
    hits = lists.where(F.col("rank") <= settings.top_k).join(
        later.select("patient_id", "treatment"), on=["patient_id", "treatment"], how="inner"
    )
    found = hits.groupBy("patient_id").agg(F.sum(_gain(F.col("rank"))).alias("dcg"), F.count("*").alias("num_hits"))
    wanted = later.groupBy("patient_id").agg(F.count("*").cast("int").alias("num_wanted"))
    best = F.aggregate(
        F.sequence(F.lit(1), F.least("num_wanted", F.lit(settings.top_k))),
        F.lit(0.0),
        lambda total, rank: total + _gain(rank),
    )
    joined = wanted.join(found, on="patient_id", how="left").fillna(0, ["dcg", "num_hits"])
    return joined.select(
        "patient_id", (F.col("dcg") / best).alias("ndcg"), (F.col("num_hits") / F.col("num_wanted")).alias("recall")
    )


def comparison(measured: DataFrame, other: DataFrame, model: str, baseline: str, top_k: int) -> DataFrame:
    """How a model and a baseline do on the same patients, and their difference, pair by pair, all in one pass.

    Args:
        measured, other: of per_patient, the model's and the baseline's.
    Returns:
        model, metric, value, low, high, num_patients: means over patients with normal 95 % intervals; none for one.
    """
    theirs = other.withColumnsRenamed({"ndcg": "other_ndcg", "recall": "other_recall"})
    values = []
    for name in ("ndcg", "recall"):
        mine, other_one = F.col(name), F.col(f"other_{name}")
        values += [(model, f"{name}_at_{top_k}", mine), (baseline, f"{name}_at_{top_k}", other_one)]
        values += [(model, f"{name}_at_{top_k}_above_{baseline}", mine - other_one)]
    return _means(measured.join(theirs, on="patient_id", how="inner"), values)


def _means(rows: DataFrame, values: list[tuple[str, str, Column]]) -> DataFrame:
    named = [F.struct(F.lit(m).alias("model"), F.lit(n).alias("metric"), v.alias("of")) for m, n, v in values]
    counted = (
        rows.select(F.inline(F.array(*named)))
        .groupBy("model", "metric")
        .agg(F.avg("of").alias("mean"), F.stddev_samp("of").alias("spread"), F.count("*").alias("num_patients"))
    )
    margin = Z_95 * F.col("spread") / F.sqrt("num_patients")
    return counted.select(
        "model",
        "metric",
        # Means over partitions in any order agree to more digits than these.
        F.round("mean", 9).alias("value"),
        F.round(F.col("mean") - margin, 9).alias("low"),
        F.round(F.col("mean") + margin, 9).alias("high"),
        "num_patients",
    )


def _gain(rank: Column) -> Column:
    return 1 / F.log2(rank + 1)
