import numpy as np
import pytest
from pyspark.sql import functions as F

from medpipe.recommend.similarity import cosine_similarity, nearest_patients


def drawn(num_patients, num_treatments, seed):
    """(patient_id, treatment, rating): few treatments each, small counts, so that many similarities tie."""
    draw = np.random.default_rng(seed)
    rows = []
    for patient in draw.permutation(num_patients):
        for treatment in draw.choice(num_treatments, draw.integers(1, 6), replace=False):
            rows.append((f"p{patient:04d}", f"t{treatment}", float(1 + np.log(draw.integers(1, 4)))))
    return rows


def frame(spark, rows, num_partitions=2):
    return spark.createDataFrame(rows, "patient_id string, treatment string, rating double").repartition(num_partitions)


def lists(found):
    rows = found.collect()
    return {(r.patient_id, r.rank): (r.other_patient_id, r.similarity) for r in rows}


def test_patients_are_similar_through_shared_treatments_only(table):
    ratings = table("""
        patient_id string | treatment string | rating double
        ann               | insulin          | 3
        ann               | statin           | 4
        bob               | insulin          | 2
        cat               | aspirin          | 5
    """)
    similar = cosine_similarity(ratings).where("patient_id < other_patient_id")
    assert [tuple(row) for row in similar.collect()] == [("ann", "bob", pytest.approx(0.6))]
    assert lists(nearest_patients(ratings)) == {("ann", 1): ("bob", 0.6), ("bob", 1): ("ann", 0.6)}


@pytest.mark.parametrize("num_neighbours", [3, 50])
def test_the_nearest_are_the_first_of_all_pairs(spark, num_neighbours):
    ratings = frame(spark, drawn(300, 12, seed=1))
    everybody = cosine_similarity(ratings).withColumn("similarity", F.round("similarity", 6)).collect()
    wanted = {}
    for row in sorted(everybody, key=lambda r: (r.patient_id, -r.similarity, r.other_patient_id)):
        rank = sum(1 for _ in wanted.get(row.patient_id, ())) + 1
        if rank <= num_neighbours:
            wanted.setdefault(row.patient_id, []).append((row.other_patient_id, row.similarity))
    expected = {(p, rank): pair for p, pairs in wanted.items() for rank, pair in enumerate(pairs, 1)}
    assert lists(nearest_patients(ratings, num_neighbours)) == expected


def test_ties_fall_by_pseudonym_whatever_the_blocks_and_partitions(spark, monkeypatch):
    rows = drawn(400, 5, seed=2)
    one = lists(nearest_patients(frame(spark, rows), 7))
    assert len(one) == 400 * 7
    assert lists(nearest_patients(frame(spark, rows[::-1], 5), 7, block_rows=37)) == one


def test_slices_of_any_size_give_the_same_neighbours():
    import pyarrow as pa

    from medpipe.recommend import nearest

    vectors = np.round(np.random.default_rng(3).random((120, 6)) * 3) + np.eye(6)[np.arange(120) % 6]
    vectors /= np.sqrt((vectors**2).sum(1, keepdims=True))
    filled = [np.flatnonzero(row) for row in vectors]
    own, ids = np.arange(120) % 3 == 0, [f"p{i:03d}" for i in range(120)]

    def part(chosen, is_other):
        columns = {
            "block": pa.array([4] * len(chosen), pa.int32()),
            "is_other": pa.array([is_other] * len(chosen)),
            "patient_id": pa.array([ids[i] for i in chosen]),
            "columns": pa.array([filled[i].tolist() for i in chosen], pa.list_(pa.int32())),
            "weights": pa.array([vectors[i, filled[i]].tolist() for i in chosen], pa.list_(pa.float64())),
        }
        return pa.RecordBatch.from_pydict(columns)

    def found(num_rows):
        everybody = part(range(120), True)
        stream = [part(np.flatnonzero(own), False)]
        stream += [everybody.slice(start, num_rows) for start in range(0, 120, num_rows)]
        return pa.Table.from_batches(nearest.Nearest(6, 5)(iter(stream))).to_pylist()

    assert len(found(120)) == 40 * 5
    assert found(120) == found(7) == found(1)


def test_a_patient_nobody_resembles_has_no_neighbours_and_no_patients_no_rows(spark):
    ratings = frame(spark, [("ann", "a", 1.0), ("bob", "b", 1.0)])
    assert nearest_patients(ratings).isEmpty()
    assert nearest_patients(ratings.limit(0)).isEmpty()
