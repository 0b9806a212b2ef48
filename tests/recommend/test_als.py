import numpy as np
import pytest
from pyspark.ml.recommendation import ALS
from pyspark.sql import functions as F

from medpipe.errors import DataError, UsageError
from medpipe.recommend.als import AlsSettings, require_checkpoints, require_implicit, require_int, spark_als
from medpipe.recommend.histories import HISTORIES, to_batch
from tests.recommend.drawn import NUM_FEATURES, NUM_TREATMENTS, drawn

PATIENTS = drawn(60, seed=5)
SETTINGS = AlsSettings(rank=3, iterations=10, reg=0.05)


@pytest.fixture(scope="module")
def rows(spark):
    return spark.createDataFrame(to_batch(PATIENTS).to_pandas(), HISTORIES).persist()


def fitted(rows, settings=SETTINGS):
    return spark_als(rows, NUM_TREATMENTS, NUM_FEATURES, settings)


@pytest.fixture(scope="module")
def model(rows):
    return fitted(rows)


def test_patients_folded_in_score_as_spark_itself_says_once_it_has_settled(rows, model):
    pairs = rows.select(
        F.expr("int(substr(patient_id, 2))").alias("u"), F.inline(F.arrays_zip("treatments", "weights"))
    )
    columns = {"userCol": "u", "itemCol": "treatments", "ratingCol": "weights"}
    als = ALS(
        rank=3, maxIter=10, regParam=0.05, implicitPrefs=True, seed=1, numUserBlocks=1, numItemBlocks=1, **columns
    )
    theirs = als.fit(pairs.repartition(1).sortWithinPartitions("u", "treatments"))
    of_patients = {row.id: np.array(row.features) for row in theirs.userFactors.collect()}
    assert len(of_patients) == (np.diff(PATIENTS.had.indptr) > 0).sum() < 60
    scores = model.scores(PATIENTS)
    for patient, factors in of_patients.items():
        assert scores[patient] == pytest.approx(model.of_treatments @ factors, abs=2e-3)


def test_of_whom_nothing_is_known_the_mean_of_all_is_expected(model):
    new = np.flatnonzero(np.diff(PATIENTS.had.indptr) == 0)
    scores = model.scores(PATIENTS)[new]
    assert len(new) and np.ptp(scores, axis=0).max() < 1e-12 and np.ptp(scores, axis=1).min() > 0.01


def test_the_same_ratings_in_another_order_and_partitioning_give_the_same_bits(rows, model):
    shuffled = rows.orderBy(F.desc("patient_id")).repartition(5)
    assert (fitted(shuffled).of_treatments == model.of_treatments).all()


def test_nobody_treated_is_refused(rows):
    with pytest.raises(DataError, match="NO_RATINGS"):
        fitted(rows.where(F.size("treatments") == 0))


def test_a_pair_rated_twice_is_refused(rows):
    twice = [F.concat(name, F.slice(name, 1, 1)).alias(name) for name in ("treatments", "weights")]
    one = rows.where("patient_id = 'p00001'").select("patient_id", *twice, "features")
    with pytest.raises(DataError, match="DUPLICATE_RATINGS: 1 pairs"):
        fitted(rows.where("patient_id != 'p00001'").union(one))


@pytest.mark.parametrize("rating", [float("nan"), float("inf"), 0.0, -1.0, None])
def test_a_rating_that_is_no_confidence_is_refused(spark, rows, rating):
    bad = spark.createDataFrame([("bad", [0], [rating], [])], HISTORIES)
    with pytest.raises(DataError, match="BAD_RATINGS: 1 ratings"):
        fitted(rows.union(bad))


def test_ratings_that_tell_nobody_apart_and_those_of_one_patient_give_finite_scores(rows):
    constant = rows.withColumn("weights", F.transform("weights", lambda _: F.lit(1.0).cast("float")))
    for taught in (constant, rows.where("patient_id = 'p00001'")):
        assert np.isfinite(fitted(taught, AlsSettings(rank=3, iterations=3)).scores(PATIENTS)).all()


def test_many_iterations_need_a_checkpoint_folder():
    require_checkpoints(10, None)
    with pytest.raises(UsageError, match="NO_CHECKPOINT_DIR: 11 ALS iterations need spark.checkpoint.dir"):
        require_checkpoints(11, None)


def test_more_keys_than_an_int_can_number_are_refused():
    require_int(2**31 - 1, "patients")
    with pytest.raises(DataError, match="TOO_MANY_KEYS: 2147483648 patients"):
        require_int(2**31, "patients")


def test_ranking_by_explicit_feedback_is_refused_with_the_reason():
    require_implicit("implicit")
    with pytest.raises(UsageError, match="EXPLICIT_FEEDBACK: feedback is explicit; .* only those given"):
        require_implicit("explicit")
