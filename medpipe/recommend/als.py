"""Treatments that patients alike had: Spark's implicit ALS, and its best lists in one pass over the patients."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from pyspark.ml.recommendation import ALS
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from medpipe.errors import DataError, UsageError
from medpipe.recommend.numbering import numbered
from medpipe.recommend.popularity import recommend_popular
from medpipe.recommend.topk import MASKED, largest, pack, scores_of, steps_of, unpack

# Spark's ALS takes keys as int.
MAX_KEYS = 2**31 - 1
# Each iteration lengthens the lineage; 15 passed without a checkpoint directory, 20 overflowed the JVM's stack.
MAX_ITERATIONS_WITHOUT_CHECKPOINT = 10
SCORED_ROWS = 1024
LISTS = "patient_id string, rank int, treatment string, score double"
_ARROW = pa.schema(
    [("patient_id", pa.string()), ("rank", pa.int32()), ("treatment", pa.string()), ("score", pa.float64())]
)


@dataclass(frozen=True)
class AlsSettings:
    """Implicit ALS as Hu, Koren and Volinsky, ICDM 2008: confidence 1 + alpha * rating.

    Attributes:
        reg: ridge penalty, which Spark multiplies by a patient's (or treatment's) number of ratings.
        num_blocks: 1 gives equal bits on every cluster. More fit in parallel, but sums then follow the order in which
            blocks arrive, and another number of blocks is another model: never derive it from the cluster's size.
        top_k: length of a patient's list.
    """

    rank: int = 24
    iterations: int = 10
    reg: float = 0.1
    alpha: float = 1.0
    num_blocks: int = 1
    seed: int = 1
    top_k: int = 10


@dataclass(frozen=True)
class Factors:
    """A fitted model.

    Attributes:
        patients: patient_id and factors (array<float>, rank) of every patient of the ratings.
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
    new = patients.join(ratings, on="patient_id", how="left_anti")
    popular = recommend_popular(ratings, new, settings.top_k)
    if ratings.isEmpty():
        return popular
    lists = best_left(fit(ratings, settings), ratings, patients, settings.top_k)
    return lists.withColumn("path", F.lit("als")).unionByName(popular)


def fit(ratings: DataFrame, settings: AlsSettings) -> Factors:
    """Factors of all patients and treatments; the same rows in any order or partitioning give the same bits.

    Args:
        ratings: not empty; reads patient_id, treatment and rating.
    Raises:
        UsageError: NO_CHECKPOINT_DIR.
        DataError: DUPLICATE_RATINGS (ALS would take each for a patient's word); TOO_MANY_KEYS.
    Cost: with one block one task does the sums, some 25 bytes of memory a rating.
    """
    require_checkpoints(settings.iterations, ratings.sparkSession.conf.get("spark.checkpoint.dir", None))
    _require_unique(ratings)
    patients = numbered(ratings.select("patient_id").distinct(), "patient_id", "patient")
    treatments = numbered(ratings.select("treatment").distinct(), "treatment", "item")
    require_int(patients.count(), "patients")
    rows = ratings.join(patients, on="patient_id", how="inner").join(F.broadcast(treatments), "treatment", "inner")
    rows = rows.select(*[F.col(name).cast("int").alias(name) for name in ("patient", "item")], "rating")
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
    items = model.itemFactors.orderBy("id").collect()
    return Factors(
        patients=patients.join(of_patients, on="patient", how="inner").select("patient_id", "factors"),
        treatments=[row.treatment for row in treatments.orderBy("item").collect()],
        of_treatments=np.array([row.features for row in items], np.float64),
    )


def best_left(factors: Factors, ratings: DataFrame, patients: DataFrame, top_k: int) -> DataFrame:
    """The best treatments that a patient does not have, for those of the patients who have factors.

    Returns:
        patient_id, rank, treatment, score; one pass, and what a patient has is masked before the best are taken.
    """
    places = list(enumerate(factors.treatments))
    treatments = ratings.sparkSession.createDataFrame(places, "place int, treatment string")
    held = ratings.join(F.broadcast(treatments), on="treatment", how="inner")
    held = held.groupBy("patient_id").agg(F.collect_list("place").alias("held"))
    rows = patients.select("patient_id").join(held, on="patient_id", how="inner")
    rows = rows.join(factors.patients, on="patient_id", how="inner").select("patient_id", "factors", "held")
    return rows.mapInArrow(Ranker(factors.treatments, factors.of_treatments, top_k), LISTS)


@dataclass(frozen=True)
class Ranker:
    """For `mapInArrow`: patient_id, factors (array<float>), held (array<int>, places in `treatments`) -> LISTS."""

    treatments: list[str]
    of_treatments: np.ndarray
    top_k: int

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        torch.set_num_threads(1)  # Spark has given this task one core
        names = pa.array(self.treatments, pa.string())
        for batch in batches:
            for start in range(0, batch.num_rows, SCORED_ROWS):
                yield self._lists(batch.slice(start, SCORED_ROWS), names)

    def _lists(self, batch: pa.RecordBatch, names: pa.StringArray) -> pa.RecordBatch:
        held = batch.column("held")
        factors = batch.column("factors").flatten().to_numpy().reshape(batch.num_rows, -1).astype(np.float64)
        scores = (torch.from_numpy(factors) @ torch.from_numpy(self.of_treatments).T).numpy()  # (B, M)
        keys = pack(steps_of(scores), np.arange(len(names)))
        keys[np.repeat(np.arange(batch.num_rows), held.value_lengths().to_numpy()), held.flatten().to_numpy()] = MASKED
        best = largest(keys, self.top_k)  # (B, K)
        patients, places = np.nonzero(best != MASKED)
        steps, columns = unpack(best[patients, places])
        return pa.RecordBatch.from_arrays(
            [batch.column("patient_id").take(pa.array(patients)), pa.array(places + 1, pa.int32())]
            + [names.take(pa.array(columns)), pa.array(scores_of(steps))],
            schema=_ARROW,
        )


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


def require_int(num_keys: int, what: str) -> None:
    """Refuses more keys than an int can number.

    Raises:
        DataError: TOO_MANY_KEYS.
    """
    if num_keys > MAX_KEYS:
        found = f"{num_keys} {what}; Spark's ALS takes at most {MAX_KEYS}"
        raise DataError("TOO_MANY_KEYS", f"{found}: recommend to parts of the population")


def _require_unique(ratings: DataFrame) -> None:
    pairs = ratings.groupBy("patient_id", "treatment").count()
    num_repeated = pairs.where("count > 1").count()
    if num_repeated:
        raise DataError(
            "DUPLICATE_RATINGS", f"{num_repeated} pairs of patient and treatment are rated twice; aggregate them first"
        )
