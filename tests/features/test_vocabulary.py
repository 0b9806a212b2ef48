from datetime import date

import pytest
from pyspark.sql import functions as F

from medpipe import contracts
from medpipe.features.vocabulary import vocabulary

AS_OF = date(2026, 1, 31)
NAN = float("nan")
SEQUENCE = "role string, split string, patient_id string, names array<string>, amounts array<float>"


@pytest.fixture
def learn(spark):
    def make(rows, names=("a", "b", "c", "d"), max_tokens=10):
        sequences = spark.createDataFrame(rows, SEQUENCE)
        hashed = F.transform("names", lambda name: F.xxhash64(name))
        concepts = spark.createDataFrame([(name,) for name in names], "concept string")
        frame = vocabulary(sequences.withColumn("concepts", hashed), concepts, AS_OF, "risk_gru", max_tokens)
        return {row.concept: row for row in frame.collect()}, frame

    return make


def test_tokens_follow_the_number_of_patients_and_ties_the_name(learn):
    rows, _ = learn(
        [
            ("fit", "train", "p1", ["c", "c", "c", "b"], [NAN] * 4),
            ("fit", "train", "p2", ["a", "d", "b"], [NAN] * 3),
        ]
    )
    assert {name: (row.token, row.num_patients) for name, row in rows.items()} == {
        "b": (2, 2),
        "a": (3, 1),
        "c": (4, 1),
        "d": (5, 1),
    }


def test_only_the_train_split_of_the_fit_role_is_seen(learn):
    rows, _ = learn(
        [
            ("fit", "train", "p1", ["a"], [1.0]),
            ("fit", "tune", "p2", ["a", "b"], [100.0, 1.0]),
            ("fit", "test", "p3", ["a", "c"], [100.0, 1.0]),
            ("apply", "train", "p4", ["a", "d"], [100.0, 1.0]),
        ]
    )
    assert {name: (row.num_patients, row.amount_mean) for name, row in rows.items()} == {"a": (1, 1.0)}


def test_values_have_a_mean_and_a_spread_and_missing_ones_do_not_count(learn):
    rows, _ = learn(
        [("fit", "train", "p1", ["a", "a", "b", "c"], [1.0, NAN, NAN, 7.0]), ("fit", "train", "p2", ["a"], [3.0])]
    )
    assert (rows["a"].amount_mean, rows["a"].amount_std) == (2.0, pytest.approx(2**0.5))
    assert (rows["b"].amount_mean, rows["b"].amount_std) == (0.0, 1.0)
    assert (rows["c"].amount_mean, rows["c"].amount_std) == (7.0, 1.0)


def test_equal_values_have_a_spread_of_one(learn):
    rows, _ = learn([("fit", "train", "p1", ["a", "a"], [0.1, 0.1])])
    assert rows["a"].amount_std == 1.0


def test_the_rarest_concepts_are_left_out(learn):
    rows, _ = learn(
        [("fit", "train", "p1", ["a", "b", "c"], [NAN] * 3), ("fit", "train", "p2", ["c", "b"], [NAN] * 2)],
        max_tokens=2,
    )
    assert {name: row.token for name, row in rows.items()} == {"b": 2, "c": 3}


def test_a_concept_named_twice_counts_once_and_one_without_a_name_not_at_all(learn):
    rows, _ = learn([("fit", "train", "p1", ["a", "nameless"], [NAN] * 2)], names=("a", "a", "b"))
    assert {name: (row.token, row.num_patients) for name, row in rows.items()} == {"a": (2, 1)}


def test_the_rows_fit_the_contract(learn):
    _, frame = learn([("fit", "train", "p1", ["a"], [1.0])])
    row = contracts.conform(frame.withColumn("run_id", F.lit("r")), "gold.vocabulary").first()
    assert (row.as_of, row.recipe, row.token, row.concept) == (AS_OF, "risk_gru", 2, "a")
    assert row.concept_hash == frame.select(F.xxhash64(F.lit("a"))).first()[0]
