"""Treatments that patients alike had: Spark's implicit ALS, and its best lists in one pass over the patients."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyspark.ml.recommendation import ALS
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from medpipe.errors import DataError, UsageError
from medpipe.recommend.numbering import numbered
from medpipe.recommend.popularity import popular_left, popularity
from medpipe.recommend.ranker import LISTS, Ranker

# Spark's ALS takes keys as int.
MAX_KEYS = 2**31 - 1
# Each iteration lengthens the lineage; 15 passed without a checkpoint directory, 20 overflowed the JVM's stack.
MAX_ITERATIONS_WITHOUT_CHECKPOINT = 10


@dataclass(frozen=True)
class AlsSettings:
    """Implicit ALS as Hu, Koren and Volinsky, ICDM 2008: confidence 1 + alpha * rating.

    Attributes:
        reg: ridge penalty, which Spark multiplies by a patient's (or treatment's) number of ratings.
        feedback: implicit, that it was given; explicit, how well it went, is refused.
        num_blocks: 1 gives equal bits on every cluster. More fit in parallel, but sums then follow the order in which
            blocks arrive, and another number of blocks is another model: never derive it from the cluster's size.
        top_k: length of a patient's list.
    """

    rank: int = 24
    iterations: int = 10
    reg: float = 0.1
    alpha: float = 1.0
    feedback: str = "implicit"
    num_blocks: int = 1
    seed: int = 1
    top_k: int = 10


@dataclass(frozen=True)
class Factors:
    """A fitted model.

    Attributes:
        patients: patient_id, factors (array<float>, rank) and held (array<int>, places in `treatments`) of every
            patient of the ratings.
        treatments: the catalogue, sorted.
        of_treatments: float64 (M, rank), in that order.
    """

    patients: DataFrame
    treatments: list[str]
    of_treatments: np.ndarray


def recommend(ratings: DataFrame, patients: DataFrame, settings: AlsSettings) -> DataFrame:
    """The best treatments a patient does not have.

    Args:
        ratings: as gold.rating; reads patient_id, treatment (unique pairs) and rating (> 0).
        patients: patient_id, unique: whom to recommend to.
    Returns:
        patient_id, rank (1 = first), treatment, score (rounded to 1e-6; ties by treatment), path: als, or popularity
        for a patient of whom no treatment is known. Every patient has a list: fewer than top_k rows where fewer
        treatments are left, and none only where the patient has them all.
    Raises: what `fit` raises.
    """
    popular = popularity(ratings)
    if not popular:
        return _of_new(popular, patients, settings.top_k)
    factors = fit(ratings, settings, sorted(treatment for treatment, _ in popular))
    lists = best_left(factors, patients, settings.top_k).withColumn("path", F.lit("als"))
    new = patients.join(ratings, on="patient_id", how="left_anti")
    return lists.unionByName(_of_new(popular, new, settings.top_k))


def fit(ratings: DataFrame, settings: AlsSettings, treatments: list[str]) -> Factors:
    """Factors of all patients and treatments; the same rows in any order or partitioning give the same bits.

    Args:
        ratings: not empty; reads patient_id, treatment and rating.
        treatments: the catalogue of the ratings, sorted.
    Raises:
        UsageError: NO_CHECKPOINT_DIR, EXPLICIT_FEEDBACK.
        DataError: DUPLICATE_RATINGS (ALS would take each for a patient's word); BAD_RATINGS; TOO_MANY_KEYS.
    Cost: with one block one task does the sums, some 25 bytes of memory a rating.
    """
    require_implicit(settings.feedback)
    require_checkpoints(settings.iterations, ratings.sparkSession.conf.get("spark.checkpoint.dir", None))
    # Read by ALS, by the check before it and by the lists after it.
    histories = _histories(ratings, treatments).persist()
    _require_usable(histories)
    rows = histories.select(F.col("patient").cast("int").alias("patient"), F.inline("items"))
    rows = rows.repartition(settings.num_blocks, "patient").sortWithinPartitions("patient", "item")
    als = ALS(
        rank=settings.rank,
        maxIter=settings.iterations,
        regParam=settings.reg,
        alpha=settings.alpha,
        implicitPrefs=True,
        numUserBlocks=settings.num_blocks,
        numItemBlocks=settings.num_blocks,
        seed=settings.seed,
        userCol="patient",
        itemCol="item",
        ratingCol="rating",
    )
    model = als.fit(rows)
    of_patients = model.userFactors.select(
        F.col("id").cast("long").alias("patient"), F.col("features").alias("factors")
    )
    patients = histories.join(of_patients, on="patient", how="inner")
    items = sorted(model.itemFactors.collect(), key=lambda row: row.id)
    return Factors(
        patients=patients.select("patient_id", "factors", F.col("items.item").alias("held")),
        treatments=treatments,
        of_treatments=np.array([row.features for row in items], np.float64),
    )


def best_left(factors: Factors, patients: DataFrame, top_k: int) -> DataFrame:
    """The best treatments that a patient does not have, for those of the patients who have factors.

    Returns:
        patient_id, rank, treatment, score; one pass, and what a patient has is masked before the best are taken.
    """
    rows = factors.patients.join(patients.select("patient_id"), on="patient_id", how="left_semi")
    return rows.mapInArrow(Ranker(factors.treatments, factors.of_treatments, top_k), LISTS)


def require_checkpoints(iterations: int, folder: str | None) -> None:
    """Refuses a fit that would overflow the JVM's stack: `folder` is spark.checkpoint.dir.

    Raises:
        UsageError: NO_CHECKPOINT_DIR.
    """
    if iterations > MAX_ITERATIONS_WITHOUT_CHECKPOINT and not folder:
        raise UsageError(
            "NO_CHECKPOINT_DIR",
            f"{iterations} ALS iterations need spark.checkpoint.dir, a folder every worker reaches; set it, or ask for "
            f"at most {MAX_ITERATIONS_WITHOUT_CHECKPOINT} iterations",
        )


def require_implicit(feedback: str) -> None:
    """Refuses to rank by explicit feedback: how well given treatments went, and nothing of those not given.

    Source: Cremonesi, Koren and Turrin, RecSys 2010: who foretells ratings better does not thereby rank better.
    Raises:
        UsageError: EXPLICIT_FEEDBACK.
    """
    if feedback != "implicit":
        raise UsageError(
            "EXPLICIT_FEEDBACK",
            f"feedback is {feedback}; expected implicit: a model of how well treatments went knows only "
            "those given, and says nothing of the order of all others",
        )


def require_int(num_keys: int, what: str) -> None:
    """Refuses more keys than an int can number.

    Raises:
        DataError: TOO_MANY_KEYS.
    """
    if num_keys > MAX_KEYS:
        found = f"{num_keys} {what}; Spark's ALS takes at most {MAX_KEYS}"
        raise DataError("TOO_MANY_KEYS", f"{found}: recommend to parts of the population")


def _histories(ratings: DataFrame, treatments: list[str]) -> DataFrame:
    """One row a patient: patient_id, items (array of item, its place in `treatments`, and rating), patient (number)."""
    places = pa.table({"treatment": pa.array(treatments, pa.string()), "item": np.arange(len(treatments), dtype="i4")})
    placed = ratings.join(F.broadcast(ratings.sparkSession.createDataFrame(places)), on="treatment", how="inner")
    items = F.collect_list(F.struct("item", "rating")).alias("items")
    return numbered(placed.groupBy("patient_id").agg(items), "patient_id", "patient")


def _require_usable(histories: DataFrame) -> None:
    """Refuses more patients than ALS can number, a treatment twice in one history, and a rating that is no confidence.

    Raises:
        DataError: DUPLICATE_RATINGS, BAD_RATINGS, TOO_MANY_KEYS.
    """
    held = F.col("items.item")
    num_repeated = F.size(held) - F.size(F.array_distinct(held))
    # Spark sorts NaN above every number.
    bad = F.filter("items.rating", lambda rating: rating.isNull() | (rating <= 0) | (rating >= float("inf")))
    sums = {"num_repeated": F.sum(num_repeated), "num_bad": F.sum(F.size(bad))}
    found = histories.agg(F.count("*").alias("num_patients"), *[s.alias(name) for name, s in sums.items()]).first()
    require_int(found.num_patients, "patients")
    if found.num_repeated:
        raise DataError(
            "DUPLICATE_RATINGS",
            f"{found.num_repeated} pairs of patient and treatment are rated again; aggregate them first",
        )
    if found.num_bad:
        raise DataError("BAD_RATINGS", f"{found.num_bad} ratings are no finite number above 0; leave them out first")


def _of_new(popular: list[tuple[str, float]], patients: DataFrame, top_k: int) -> DataFrame:
    """Popularity's list for patients who have nothing yet."""
    return popular_left(popular, patients.withColumn("held", F.lit(None).cast("array<string>")), top_k)
