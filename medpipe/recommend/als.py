"""Spark's implicit ALS, in the form of this room's models: what the exact one is measured against."""

from dataclasses import dataclass

import numpy as np
from pyspark.ml.functions import array_to_vector
from pyspark.ml.recommendation import ALS
from pyspark.ml.stat import Summarizer
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from medpipe.errors import DataError, UsageError
from medpipe.recommend.exact_als import ExactAls, ExactAlsSettings
from medpipe.recommend.numbering import numbered

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
    """

    rank: int = 64
    iterations: int = 10
    reg: float = 0.1
    alpha: float = 1.0
    feedback: str = "implicit"
    num_blocks: int = 1
    seed: int = 1


def spark_als(rows: DataFrame, num_treatments: int, num_features: int, settings: AlsSettings) -> ExactAls:
    """The treatments' factors as Spark fits them; patients are folded in exactly, with no prior from features.

    The same rows in any order or partitioning give the same bits.

    Args:
        rows: HISTORIES, patient_id unique; patients of whom no treatment is known teach it nothing.
    Raises:
        UsageError: NO_CHECKPOINT_DIR, EXPLICIT_FEEDBACK.
        DataError: NO_RATINGS; DUPLICATE_RATINGS (ALS would take each for a patient's word); BAD_RATINGS; TOO_MANY_KEYS.
    Cost: with one block one task does the sums, some 25 bytes of memory a rating.
    """
    require_implicit(settings.feedback)
    require_checkpoints(settings.iterations, rows.sparkSession.conf.get("spark.checkpoint.dir", None))
    known = rows.where(F.size("treatments") > 0).select("patient_id", "treatments", "weights")
    # Read by ALS and by the check before it.
    histories = numbered(known, "patient_id", "patient").persist()
    _require_usable(histories)
    pairs = histories.select(F.col("patient").cast("int"), F.inline(F.arrays_zip("treatments", "weights")))
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
        itemCol="treatments",
        ratingCol="weights",
    )
    model = als.fit(pairs.repartition(settings.num_blocks, "patient").sortWithinPartitions("patient", "treatments"))
    of_treatments = np.zeros((num_treatments, settings.rank))
    for row in model.itemFactors.collect():
        of_treatments[row.id] = row.features
    # Of whom nothing is known the mean of all is expected.
    mean = model.userFactors.select(Summarizer.mean(array_to_vector("features"))).first()[0].toArray()
    histories.unpersist()
    plain = ExactAlsSettings(settings.rank, settings.iterations, settings.reg, settings.alpha, kappa=0.0)
    return ExactAls(of_treatments, np.vstack([np.zeros((num_features, settings.rank)), mean]), plain)


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


def _require_usable(histories: DataFrame) -> None:
    """Refuses more patients than ALS can number, a treatment twice in one history, and a rating that is no confidence.

    Raises:
        DataError: NO_RATINGS, DUPLICATE_RATINGS, BAD_RATINGS, TOO_MANY_KEYS.
    """
    num_repeated = F.size("treatments") - F.size(F.array_distinct("treatments"))
    # Spark sorts NaN above every number.
    bad = F.filter("weights", lambda rating: rating.isNull() | (rating <= 0) | (rating >= float("inf")))
    sums = {"num_repeated": F.sum(num_repeated), "num_bad": F.sum(F.size(bad))}
    found = histories.agg(F.count("*").alias("num_patients"), *[s.alias(name) for name, s in sums.items()]).first()
    require_int(found.num_patients, "patients")
    if not found.num_patients:
        raise DataError("NO_RATINGS", "no treatment of any patient is known; expected at least one to learn from")
    if found.num_repeated:
        raise DataError(
            "DUPLICATE_RATINGS",
            f"{found.num_repeated} pairs of patient and treatment are rated again; aggregate them first",
        )
    if found.num_bad:
        raise DataError("BAD_RATINGS", f"{found.num_bad} ratings are no finite number above 0; leave them out first")
