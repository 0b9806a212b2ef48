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
        held_out_patients: share of patients of whom everything is held out.
        top_k: length of list.
    """

    held_out: float = 0.2
    held_out_patients: float = 0.1
    top_k: int = 10


def time_ordered_split(rated: DataFrame, settings: RankingSettings) -> tuple[DataFrame, DataFrame]:
    """Each patient's last treatments, held out, and the rest: what a recommender is for.

    Args:
        rated: as gold.rating; reads patient_id, treatment, rated_at. Ties in time go by treatment.
    Returns:
        (known, later), columns of rated. A patient with one treatment keeps it in known and is not measured. Ratings
        in known count all times a treatment was given, those after the split too: they are rated, not rated anew.
    """
    return _held_out(rated, [F.col("rated_at").desc(), F.col("treatment").desc()], settings)


def random_split(rated: DataFrame, settings: RankingSettings, seed: int) -> tuple[DataFrame, DataFrame]:
    """Any of each patient's treatments, as papers do it: easier than the future, as habits of the time are known.

    Args:
        rated: reads patient_id and treatment. The choice is a hash of both and the seed, not of row order.
    Returns:
        as time_ordered_split.
    """
    return _held_out(rated, [F.xxhash64(F.lit(seed), "patient_id", "treatment"), F.col("treatment")], settings)


def patient_split(rated: DataFrame, settings: RankingSettings, seed: int) -> tuple[DataFrame, DataFrame]:
    """Whole patients, by a hash of their id: how a model does for those of whom it knows no treatment.

    Returns:
        (known, later), columns of rated: everything of the patients who stay, and of those held out.
    """
    is_later = _is_new(settings, seed)
    return rated.where(~is_later), rated.where(is_later)


def both_splits(rated: DataFrame, settings: RankingSettings, seed: int = 1) -> tuple[DataFrame, DataFrame]:
    """Whole patients, and of all others the last treatments: one model that learns from the rest is measured on both.

    Args:
        rated: as gold.rating; reads patient_id, treatment and rated_at.
    Returns:
        (known, later), columns of rated; `split_of` says which patients are which.
    """
    others, new = patient_split(rated, settings, seed)
    known, later = time_ordered_split(others, settings)
    return known, later.unionByName(new)


def split_of(settings: RankingSettings, seed: int = 1) -> Column:
    """cold_start for a patient_id of whom `both_splits` holds out everything, else time_ordered."""
    return F.when(_is_new(settings, seed), "cold_start").otherwise("time_ordered")


def _is_new(settings: RankingSettings, seed: int) -> Column:
    share = F.pmod(F.xxhash64(F.lit(seed), "patient_id"), F.lit(10_000)) / 10_000
    return share < settings.held_out_patients


def _held_out(rated: DataFrame, order: list[Column], settings: RankingSettings) -> tuple[DataFrame, DataFrame]:
    """(known, later): of each patient of two or more treatments the first of the order are later."""
    count = F.count("*").over(Window.partitionBy("patient_id"))
    num_later = F.when(count > 1, F.greatest(F.lit(1), F.floor(count * settings.held_out))).otherwise(0)
    place = F.row_number().over(Window.partitionBy("patient_id").orderBy(*order))
    marked = rated.withColumn("is_later", place <= num_later)
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


def means(rows: DataFrame, values: dict[str, Column], keys: tuple[str, ...]) -> DataFrame:
    """Of each value, the mean over rows by keys, where it is not null.

    Returns:
        the keys, metric, value, low, high (normal 95 % interval; null for one row), num_patients.
    """
    named = [F.struct(F.lit(metric).alias("metric"), value.alias("of")) for metric, value in values.items()]
    counted = (
        rows.select(*keys, F.inline(F.array(*named)))
        .where("of is not null")
        .groupBy(*keys, "metric")
        .agg(F.avg("of").alias("mean"), F.stddev_samp("of").alias("spread"), F.count("*").alias("num_patients"))
    )
    margin = Z_95 * F.col("spread") / F.sqrt("num_patients")
    return counted.select(
        *keys,
        "metric",
        # Means over partitions in any order agree to more digits than these.
        F.round("mean", 9).alias("value"),
        F.round(F.col("mean") - margin, 9).alias("low"),
        F.round(F.col("mean") + margin, 9).alias("high"),
        "num_patients",
    )


def _gain(rank: Column) -> Column:
    return 1 / F.log2(rank + 1)
