import numpy as np
import pytest
from pyspark.sql import functions as F

from medpipe.errors import DataError, UsageError
from medpipe.recommend.als import AlsSettings, fit, recommend, require_checkpoints, require_implicit, require_int

TREATMENTS = list("abcdefgh")
SETTINGS = AlsSettings(rank=2, iterations=6, reg=0.01, top_k=6)


def drawn():
    """60 patients of two kinds: p00-p29 have two or three of a, b, c, d, the others of e, f, g, h."""
    draw = np.random.default_rng(5)
    rows = []
    for patient in range(60):
        kind = list("abcd" if patient < 30 else "efgh")
        chosen = draw.choice(kind, size=draw.integers(2, 4), replace=False)
        rows += [(f"p{patient:02}", str(treatment), float(draw.integers(1, 4))) for treatment in chosen]
    return rows


@pytest.fixture(scope="module")
def ratings(spark):
    return spark.createDataFrame(drawn(), "patient_id string, treatment string, rating double").persist()


@pytest.fixture(scope="module")
def patients(spark):
    return spark.createDataFrame([(f"p{n:02}",) for n in range(60)] + [("new",)], "patient_id string").persist()


@pytest.fixture(scope="module")
def lists(ratings, patients):
    return listed(recommend(ratings, patients, SETTINGS))


def listed(frame):
    return sorted((r.patient_id, r.rank, r.treatment, r.score, r.path) for r in frame.collect())


def test_patients_are_recommended_what_patients_alike_take(lists):
    first = [(patient, treatment) for patient, rank, treatment, _, path in lists if rank == 1 and path == "als"]
    assert len(first) == 60
    assert all((treatment in "abcd") == (patient < "p30") for patient, treatment in first)


def test_nobody_is_recommended_what_they_have_and_all_else_comes_in_falling_order(lists):
    had = {}
    for patient, treatment, _ in drawn():
        had.setdefault(patient, set()).add(treatment)
    for patient, held in had.items():
        rows = [row for row in lists if row[0] == patient]
        # Eight treatments: who has three has five left, fewer than the six asked for.
        assert [row[1] for row in rows] == list(range(1, min(6, 8 - len(held)) + 1))
        assert not held & {row[2] for row in rows}
        assert [(-row[3], row[2]) for row in rows] == sorted((-row[3], row[2]) for row in rows)


def test_a_score_is_the_product_of_the_factors(ratings, lists):
    factors = fit(ratings, SETTINGS, TREATMENTS)
    assert factors.treatments == TREATMENTS
    of_patient = {r.patient_id: np.array(r.factors) for r in factors.patients.collect()}
    products = [
        float(of_patient[row[0]] @ factors.of_treatments["abcdefgh".index(row[2])]) for row in lists if row[4] == "als"
    ]
    assert [row[3] for row in lists if row[4] == "als"] == pytest.approx(products, abs=6e-7)


def test_a_patient_without_treatments_gets_the_popular_ones(ratings, lists):
    counts = ratings.groupBy("treatment").count().collect()
    best = sorted((-row["count"] / 60, row.treatment) for row in counts)[:6]
    wanted = [("new", rank, treatment, -share, "popularity") for rank, (share, treatment) in enumerate(best, 1)]
    assert [row for row in lists if row[0] == "new"] == wanted


def test_the_same_ratings_in_another_order_and_partitioning_give_the_same_bits(ratings, patients, lists):
    shuffled = ratings.orderBy(F.desc("rating"), "treatment").repartition(5)
    assert listed(recommend(shuffled, patients.repartition(3), SETTINGS)) == lists


def test_nobody_treated_gives_no_lists_and_who_has_everything_none(spark, ratings, patients):
    assert recommend(ratings.where("false"), patients, SETTINGS).isEmpty()
    rows = [("ann", "a", 1.0), ("ann", "b", 1.0), ("bob", "a", 1.0)]
    few = spark.createDataFrame(rows, "patient_id string, treatment string, rating double")
    found = listed(recommend(few, few.select("patient_id").distinct(), SETTINGS))
    assert [row[:3] for row in found] == [("bob", 1, "b")]


def test_a_pair_rated_twice_is_refused(ratings):
    with pytest.raises(DataError, match="DUPLICATE_RATINGS: 1 pairs"):
        fit(ratings.union(ratings.limit(1)), SETTINGS, TREATMENTS)


@pytest.mark.parametrize("rating", [float("nan"), float("inf"), 0.0, -1.0, None])
def test_a_rating_that_is_no_confidence_is_refused(spark, ratings, rating):
    bad = spark.createDataFrame([("p00", "new", rating)], "patient_id string, treatment string, rating double")
    with pytest.raises(DataError, match="BAD_RATINGS: 1 ratings"):
        fit(ratings.union(bad), SETTINGS, [*TREATMENTS, "new"])


def test_ratings_that_tell_nobody_apart_and_those_of_one_patient_give_finite_lists(spark, ratings, patients):
    constant = recommend(ratings.withColumn("rating", F.lit(1.0)), patients, SETTINGS).collect()
    assert len({row.patient_id for row in constant}) == 61
    alone = recommend(ratings.where("patient_id = 'p00'"), patients, SETTINGS).collect()
    # What only p00 has is all there is: nothing is left for p00, and the others get it as new patients do.
    assert {row.path for row in alone} == {"popularity"} and "p00" not in {row.patient_id for row in alone}
    assert all(np.isfinite(row.score) for row in constant + alone)


def test_many_iterations_need_a_checkpoint_folder(spark, ratings):
    require_checkpoints(10, None)
    with pytest.raises(UsageError, match="NO_CHECKPOINT_DIR: 11 ALS iterations need spark.checkpoint.dir"):
        require_checkpoints(11, None)
    assert spark.conf.get("spark.checkpoint.dir")
    many = fit(ratings, AlsSettings(rank=2, iterations=30), TREATMENTS)
    assert many.of_treatments.shape == (8, 2)


def test_more_keys_than_an_int_can_number_are_refused():
    require_int(2**31 - 1, "patients")
    with pytest.raises(DataError, match="TOO_MANY_KEYS: 2147483648 patients"):
        require_int(2**31, "patients")


def test_ranking_by_explicit_feedback_is_refused_with_the_reason():
    require_implicit("implicit")
    with pytest.raises(UsageError, match="EXPLICIT_FEEDBACK: feedback is explicit; .* only those given"):
        require_implicit("explicit")
