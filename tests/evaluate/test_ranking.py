from math import log2

import pytest
from pyspark.sql import functions as F

from medpipe.evaluate import ranking

SETTINGS = ranking.RankingSettings()


def test_the_last_fifth_of_a_patients_treatments_is_held_out_and_never_the_only_one(spark):
    rows = [("ann", f"t{day}", f"2025-01-{day:02}") for day in range(1, 11)]
    rows += [("bob", "t1", "2025-01-01"), ("cat", "t1", "2025-01-01"), ("cat", "t2", "2025-01-01")]
    rated = spark.createDataFrame(rows, "patient_id string, treatment string, rated_at string")
    known, later = ranking.time_ordered_split(rated, SETTINGS)
    assert sorted((r.patient_id, r.treatment) for r in later.collect()) == [
        ("ann", "t10"),
        ("ann", "t9"),
        ("cat", "t2"),
    ]
    assert known.count() + later.count() == 13


def test_a_random_split_follows_the_seed_and_a_split_of_patients_keeps_each_whole(spark):
    rows = [(f"p{patient}", f"t{treatment}") for patient in range(40) for treatment in range(5)]
    rated = spark.createDataFrame(rows, "patient_id string, treatment string")

    def later_of(split, seed, num_partitions=1):
        known, later = split(rated.repartition(num_partitions), SETTINGS, seed)
        found = {tuple(row) for row in later.collect()}
        assert found | {tuple(row) for row in known.collect()} == set(rows)
        assert len(found) + known.count() == len(rows)
        return found

    one = later_of(ranking.random_split, 1)
    assert len(one) == 40 and len({patient for patient, _ in one}) == 40
    assert one == later_of(ranking.random_split, 1, 3) != later_of(ranking.random_split, 2)
    whole = later_of(ranking.patient_split, 1)
    patients = {patient for patient, _ in whole}
    assert 0 < len(patients) < 10 and len(whole) == 5 * len(patients)


def test_both_splits_hold_out_whole_patients_and_the_last_treatments_of_all_others(spark):
    rows = [(f"p{patient}", f"t{treatment}", treatment) for patient in range(40) for treatment in range(5)]
    rated = spark.createDataFrame(rows, "patient_id string, treatment string, rated_at int")
    known, later = ranking.both_splits(rated, SETTINGS)
    known, later = known.collect(), later.withColumn("split", ranking.split_of(SETTINGS)).collect()
    assert {tuple(row) for row in known} | {tuple(row)[:3] for row in later} == set(rows)
    new = {row.patient_id for row in ranking.patient_split(rated, SETTINGS, 1)[1].collect()}
    assert {row.patient_id for row in later if row.split == "cold_start"} == new
    others = [(row.patient_id, row.treatment) for row in later if row.split == "time_ordered"]
    assert sorted(others) == sorted((f"p{n}", "t4") for n in range(40) if f"p{n}" not in new)
    assert len(known) + len(later) == len(rows)


def test_ndcg_and_recall_follow_their_formulas_and_no_list_counts_nothing(table):
    lists = table("""
        patient_id string | rank int | treatment string
        ann               | 1        | x
        ann               | 2        | a
        ann               | 3        | b
        bob               | 1        | a
        bob               | 11       | b
    """)
    later = table("""
        patient_id string | treatment string
        ann               | a
        ann               | b
        bob               | b
        cat               | a
    """)
    found = {r.patient_id: (r.ndcg, r.recall) for r in ranking.per_patient(lists, later, SETTINGS).collect()}
    ann = (1 / log2(3) + 1 / log2(4)) / (1 + 1 / log2(3))
    assert found == {"ann": (pytest.approx(ann), 1.0), "bob": (0.0, 0.0), "cat": (0.0, 0.0)}


def test_means_have_normal_intervals_and_one_patient_none(spark):
    rows = spark.createDataFrame([("x", 0.2), ("x", 0.6), ("y", 0.2), ("z", None)], "model string, ndcg double")
    found = {row.model: row for row in ranking.means(rows, {"ndcg": F.col("ndcg")}, ("model",)).collect()}
    spread = (2 * 0.2**2) ** 0.5 / 2**0.5
    assert (found["x"].value, found["x"].low, found["x"].high) == pytest.approx(
        (0.4, 0.4 - 1.959964 * spread, 0.4 + 1.959964 * spread)
    )
    assert found["x"].num_patients == 2 and found["x"].metric == "ndcg"
    assert (found["y"].low, found["y"].high, found["y"].num_patients) == (None, None, 1)
    assert set(found) == {"x", "y"}, "nothing is not a value"


def test_a_list_in_ideal_order_is_worth_one_however_much_is_held_out(spark):
    treatments = [f"t{n:02}" for n in range(12)]
    later = spark.createDataFrame([("ann", t) for t in treatments], "patient_id string, treatment string")
    lists = spark.createDataFrame(
        [("ann", n + 1, t) for n, t in enumerate(treatments)], "patient_id string, rank int, treatment string"
    )
    found = ranking.per_patient(lists, later, SETTINGS).first()
    assert (found.ndcg, found.recall) == (pytest.approx(1.0), pytest.approx(10 / 12))
