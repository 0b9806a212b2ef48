import dataclasses
import pickle
import shutil
from datetime import date
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
import torch
from delta.tables import DeltaTable
from pyspark.sql import functions as F

from medpipe import checkpoints, contracts
from medpipe.errors import DataError, MissingEnvironmentError, raised_by_worker
from medpipe.recipes import RISK_GRU, Trained, predict
from medpipe.score.outputs import error_rows, placed, score_rows
from medpipe.score.scorer import SCORED, Scorer
from medpipe.snapshots import pin, shard_frame
from medpipe.stream.batches import sequences_of
from medpipe.stream.shards import plan
from medpipe.stream.tokens import vocabulary_of

DAY = {"as_of": "2026-01-31", "role": "apply"}
COLUMNS = "patient_id string, concepts array<long>, days_before array<int>, amounts array<float>"
VOCABULARY = vocabulary_of(np.arange(20), np.arange(20) + 2, np.zeros(20), np.ones(20))
ROWS = pa.schema(
    [
        ("patient_id", pa.string()),
        ("concepts", pa.list_(pa.int64())),
        ("days_before", pa.list_(pa.int32())),
        ("amounts", pa.list_(pa.float32())),
    ]
)


def histories(count, seed=0):
    """Patients with 1 to 40 events; some concepts are unknown and most events have no value."""
    random = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        length = int(random.integers(1, 41))
        days = sorted(random.integers(0, 9000, length).tolist(), reverse=True)
        amounts = [float(v) if v > 0.5 else float("nan") for v in random.normal(size=length).round(3)]
        rows.append((f"p{i:05d}", random.integers(0, 25, length).tolist(), days, amounts))
    return rows


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    """A checkpoint with random weights: its folder and name."""
    torch.manual_seed(0)
    config = RISK_GRU.config(VOCABULARY, None)
    trained = Trained("risk_gru", config, RISK_GRU.build(config).state_dict(), VOCABULARY, RISK_GRU.form)
    store = str(tmp_path_factory.mktemp("models"))
    saved = checkpoints.save(store, trained, {}, {}, {})
    return trained, f"{store}/{saved.folder}", saved.sha256


@pytest.fixture
def scorer(registered):
    _, folder, sha256 = registered
    small = dataclasses.replace(RISK_GRU, batch_rows=100)
    return Scorer(small, sha256, partial(checkpoints.load, folder, sha256))


@pytest.fixture(scope="module")
def expected(registered):
    """patient_id -> score, all patients in one piece and without Spark."""
    trained, _, _ = registered
    model = RISK_GRU.build(trained.config)
    model.load_state_dict(trained.weights)
    batch = pa.RecordBatch.from_arrays(
        [pa.array(column, field.type) for column, field in zip(zip(*histories(900), strict=True), ROWS, strict=True)],
        schema=ROWS,
    )
    sequences = sequences_of(batch, VOCABULARY)
    scores = predict(RISK_GRU, trained.config, model, sequences, 256)
    return dict(zip(sequences.ids.tolist(), scores.tolist(), strict=True))


@pytest.fixture(scope="module")
def table(spark, tmp_path_factory):
    """900 patients in three files."""
    path = str(tmp_path_factory.mktemp("lake") / "sequence")
    rows = spark.createDataFrame(histories(900), COLUMNS)
    rows = rows.selectExpr("*", f"DATE'{DAY['as_of']}' as as_of", f"'{DAY['role']}' as role").repartition(3)
    rows.write.format("delta").partitionBy("as_of", "role").save(path)
    return path


def score(spark, path, scorer):
    shards = plan(pin(spark, path, DAY, list(RISK_GRU.columns)).files, 1000)
    return shard_frame(spark, shards).mapInArrow(scorer, SCORED)


def test_every_patient_is_scored_once_and_as_without_spark(spark, table, scorer, expected):
    rows = score(spark, table, scorer).collect()
    assert len(rows) == 900
    assert {row.row_id: row.score for row in rows} == pytest.approx(expected, abs=1e-6)
    assert {row.device for row in rows} == {"cpu"}


def test_the_same_plan_gives_the_same_bits(spark, table, scorer):
    first, again = ({row.row_id: row.score for row in score(spark, table, scorer).collect()} for _ in range(2))
    assert first == again


def test_a_scorer_travels_without_spark_and_without_weights(scorer):
    content = pickle.dumps(scorer)
    assert len(content) < 5000
    assert pickle.loads(content).load().config == scorer.load().config


def test_a_shard_with_other_rows_than_planned_fails(spark, table, scorer):
    shard = plan(pin(spark, table, DAY, list(RISK_GRU.columns)).files, 1000)[0]
    wrong = {"shard_id": 0, "url": shard.url, "row_groups": list(shard.row_groups), "num_rows": shard.num_rows + 1}
    with pytest.raises(
        DataError, match=f"SHARD_ROWS: file:.*: {shard.num_rows} rows read, {shard.num_rows + 1} planned"
    ):
        list(scorer(iter([pa.RecordBatch.from_pylist([wrong])])))


def test_a_changed_model_is_not_used(registered, scorer):
    _, folder, _ = registered
    other = Scorer(RISK_GRU, "0" * 64, partial(checkpoints.load, folder, "0" * 64))
    with pytest.raises(MissingEnvironmentError, match="WEIGHTS_CHANGED"):
        list(other(iter([])))


def test_nobody_to_score_is_no_row(spark, table, scorer):
    assert shard_frame(spark, []).mapInArrow(scorer, SCORED).count() == 0


def test_a_pinned_plan_outlives_a_rewrite_of_the_table_and_stops_where_its_files_are_gone(
    spark, table, scorer, expected, tmp_path
):
    path = str(tmp_path / "sequence")
    shutil.copytree(table, path)
    shards = shard_frame(spark, plan(pin(spark, path, DAY, list(RISK_GRU.columns)).files, 1000))
    DeltaTable.forPath(spark, path).optimize().executeCompaction()
    rows = shards.mapInArrow(scorer, SCORED).collect()
    assert {row.row_id: row.score for row in rows} == pytest.approx(expected, abs=1e-6)
    again = score(spark, path, scorer).collect()
    assert {row.row_id: row.score for row in again} == pytest.approx(expected, abs=1e-6)
    spark.conf.set("spark.databricks.delta.retentionDurationCheck.enabled", "false")
    try:
        DeltaTable.forPath(spark, path).vacuum(0)
    finally:
        spark.conf.unset("spark.databricks.delta.retentionDurationCheck.enabled")
    with pytest.raises(Exception, match="UNREADABLE_FILE: file:.*: FileNotFoundError") as stopped:
        shards.mapInArrow(scorer, SCORED).collect()
    told = raised_by_worker(stopped.value)
    assert isinstance(told, DataError) and told.code == "UNREADABLE_FILE"


@pytest.fixture
def faulty(spark, tmp_path):
    """Patients of whom two cannot be encoded."""
    rows = histories(20)
    rows[3] = ("p00003", [1, 2], [5], [0.5, 0.5])
    rows[7] = ("p00007", [], [], [])
    frame = spark.createDataFrame(rows, COLUMNS)
    frame = frame.selectExpr("*", f"DATE'{DAY['as_of']}' as as_of", f"'{DAY['role']}' as role").coalesce(1)
    frame.write.format("delta").partitionBy("as_of", "role").save(str(tmp_path / "sequence"))
    return str(tmp_path / "sequence")


def test_a_patient_that_cannot_be_encoded_gets_a_code_and_the_others_their_scores(spark, faulty, scorer, expected):
    rows = {row.row_id: row for row in score(spark, faulty, scorer).collect()}
    assert {patient: row.code for patient, row in rows.items() if row.code} == {"p00003": "RAGGED", "p00007": "EMPTY"}
    assert all((row.score is None) == (row.code is not None) == (row.device is None) for row in rows.values())
    known = {patient: row.score for patient, row in rows.items() if row.code is None}
    assert known == pytest.approx({patient: expected[patient] for patient in known}, abs=1e-6) and len(known) == 18


def test_a_score_that_is_no_number_is_a_code(registered, spark, table, tmp_path):
    trained, _, _ = registered
    # Finite weights, or they would be refused: of two overflows in a sum, one up and one down, no number is left.
    broken = {name: torch.full_like(tensor, 3e38) for name, tensor in trained.weights.items()}
    for tensor in broken.values():
        if tensor.ndim > 1:
            tensor[:, ::2] *= -1
    saved = checkpoints.save(str(tmp_path), dataclasses.replace(trained, weights=broken), {}, {}, {})
    load = partial(checkpoints.load, f"{tmp_path}/{saved.folder}", saved.sha256)
    rows = score(spark, table, Scorer(RISK_GRU, saved.sha256, load)).collect()
    assert {(row.score, row.code) for row in rows} == {(None, "NOT_FINITE")}


def test_rows_fit_the_contract(spark):
    rows = [("p1", 0.25, None, None, None, "cpu"), ("p2", None, None, None, "EMPTY", None)]
    scored = spark.createDataFrame(rows, SCORED)
    place = {"as_of": date(2026, 1, 31), "recipe": "risk_gru", "part": 0, "feature_version": 7}
    stored = contracts.conform(placed(scored, place).withColumn("run_id", F.lit("r")), "ops.scored")
    scores, errors = (
        rows.withColumn("run_id", F.lit("r")) for rows in (score_rows(stored, RISK_GRU, "ab"), error_rows(stored, "ab"))
    )
    (row,) = contracts.conform(scores, "gold.score").collect()
    assert row[:7] == (date(2026, 1, 31), "risk_gru", "p1", 0.25, "ab", 7, "cpu")
    (row,) = contracts.conform(errors, "gold.score_error").collect()
    assert row[:6] == (date(2026, 1, 31), "risk_gru", "p2", "EMPTY", "ab", 7)
