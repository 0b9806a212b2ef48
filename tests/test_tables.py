import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from delta.tables import DeltaTable
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from medpipe import contracts
from medpipe.errors import ConflictError, ContractError, DataError, UsageError
from medpipe.tables import Lake

DAY = date(2026, 1, 31)
RATING = "as_of date, patient_id string, treatment string, rating double, basis string, rated_at timestamp"
RATING += ", outcome double"


@pytest.fixture
def lake(spark, tmp_path):
    return Lake(spark, str(tmp_path / "lake"), str(tmp_path / "phi"), "Europe/Vienna").for_run("run1")


def ratings(spark, *rows, day=DAY):
    at = datetime(2025, 1, 1)
    return spark.createDataFrame(
        [(day, patient, "OMOP:1", rating, "orders", at, None) for patient, rating in rows], RATING
    )


def test_a_partition_is_replaced_and_the_others_stay(lake, spark):
    other = date(2026, 2, 1)
    lake.replace(ratings(spark, ("ann", 1.0)), "gold.rating", where={"as_of": DAY})
    lake.replace(ratings(spark, ("bob", 1.0), day=other), "gold.rating", where={"as_of": other})
    lake.for_run("run2").replace(ratings(spark, ("cat", 2.0)), "gold.rating", where={"as_of": DAY})
    rows = lake.for_run("").read("gold.rating").collect()
    assert sorted((r.as_of, r.patient_id, r.run_id) for r in rows) == [(DAY, "cat", "run2"), (other, "bob", "run1")]


def test_the_same_run_again_writes_nothing(lake, spark):
    first = lake.replace(ratings(spark, ("ann", 1.0)), "gold.rating", where={"as_of": DAY})
    again = lake.for_run("run1").replace(ratings(spark, ("ann", 1.0)), "gold.rating", where={"as_of": DAY})
    assert (first.num_rows, first.version) == (1, again.version) and again.num_rows == 1
    lake.append(spark.createDataFrame([("ab",)], "fingerprint string"), "phi.key")
    lake.for_run("run1").append(spark.createDataFrame([("ab",)], "fingerprint string"), "phi.key")
    assert lake.count("phi.key", {}) == 1


def test_what_a_run_wrote_is_not_what_the_run_before_it_did(lake, spark):
    lake.replace(ratings(spark, ("ann", 1.0)), "gold.rating", where={"as_of": DAY})
    nothing = ratings(spark, ("ann", 1.0), day=date(2026, 2, 1)).limit(0)
    assert lake.for_run("run2").replace(nothing, "gold.rating", where={"as_of": date(2026, 2, 1)}).num_rows == 0


def test_what_a_run_wrote_is_told_of_it_where_another_wrote_at_once(lake, spark, monkeypatch):
    lake.replace(ratings(spark, ("ann", 1.0)), "gold.rating", where={"as_of": DAY})
    other, commit = date(2026, 2, 1), Lake._commit

    def followed(this, name, write):
        commit(this, name, write)
        if this.run_id == "run2":
            bob = ratings(spark, ("bob", 1.0), ("cat", 1.0), day=other)
            lake.for_run("run3").replace(bob, "gold.rating", where={"as_of": other})

    monkeypatch.setattr(Lake, "_commit", followed)
    mine = lake.for_run("run2")
    written = mine.replace(ratings(spark, ("dan", 2.0)), "gold.rating", where={"as_of": DAY})
    assert (written.num_rows, written.version) == (1, 2)
    assert sorted(row.patient_id for row in mine.read("gold.rating").collect()) == ["dan"]


def test_of_two_runs_that_replace_a_partition_at_once_the_later_is_told_to_run_again(lake, spark, tmp_path):
    lake.replace(ratings(spark, ("ann", 1.0)), "gold.rating", where={"as_of": DAY})
    begun, goes_on = tmp_path / "begun", tmp_path / "goes-on"

    def wait(frames):
        begun.touch()
        while not goes_on.exists():
            time.sleep(0.05)
        yield from frames

    # One task: the other slot is for the other run.
    slow = ratings(spark, ("bob", 2.0)).coalesce(1).mapInPandas(wait, RATING)
    with ThreadPoolExecutor(1) as pool:
        later = pool.submit(lake.for_run("run2").replace, slow, "gold.rating", where={"as_of": DAY})
        while not begun.exists():
            time.sleep(0.05)
        try:
            lake.for_run("run3").replace(ratings(spark, ("cat", 3.0)), "gold.rating", where={"as_of": DAY})
        finally:
            goes_on.touch()
        with pytest.raises(ConflictError, match="CONCURRENT_WRITE: gold.rating was changed by another run"):
            later.result()
    rows = lake.for_run("").read("gold.rating").collect()
    assert [(row.patient_id, row.run_id) for row in rows] == [("cat", "run3")]


def test_a_row_that_breaks_a_check_is_not_written_nor_its_value_said(lake, spark):
    with pytest.raises(DataError, match="CHECK_FAILED: gold.rating: rows break BAD_RATING") as refused:
        lake.replace(ratings(spark, ("ann", 0.125)), "gold.rating", where={"as_of": DAY})
    assert "0.125" not in str(refused.value) and "ann" not in str(refused.value)
    assert lake.count("gold.rating", {}) == 0


def test_a_frame_of_another_shape_is_refused_with_all_that_is_wrong(lake, spark):
    frame = spark.createDataFrame([(1, "x")], "patient_id int, colour string")
    with pytest.raises(ContractError, match="missing as_of.*unknown colour.*patient_id is int, expected string"):
        lake.replace(frame, "gold.rating", where={"as_of": DAY})


def test_a_table_is_replaced_by_its_partition_only(lake, spark):
    with pytest.raises(ContractError, match="NOT_A_PARTITION: gold.rating"):
        lake.replace(ratings(spark, ("ann", 1.0)), "gold.rating", where={"patient_id": "ann"})


def test_a_lake_without_a_run_only_reads(lake, spark):
    reader = Lake(spark, lake.root, lake.phi_root)
    assert reader.read("gold.rating").count() == 0
    with pytest.raises(UsageError, match="READ_ONLY"):
        reader.replace(ratings(spark, ("ann", 1.0)), "gold.rating", where={"as_of": DAY})


def test_a_run_sees_one_version_of_a_table(lake, spark):
    lake.replace(ratings(spark, ("ann", 1.0)), "gold.rating", where={"as_of": DAY})
    reader = lake.for_run("reader")
    assert reader.read("gold.rating").count() == 1
    lake.for_run("run2").replace(ratings(spark, ("ann", 1.0), ("bob", 1.0)), "gold.rating", where={"as_of": DAY})
    assert (reader.read("gold.rating").count(), lake.for_run("").read("gold.rating").count()) == (1, 2)


def concept(spark, concept_id, name, known_at, delivery_id, is_deleted=False):
    columns = "concept string, name string, domain string, vocabulary string, code string, recorded_at timestamp, "
    columns += "known_at timestamp, source string, source_table string, delivery_id string, is_deleted boolean"
    row = (concept_id, name, None, None, None, known_at, known_at, "omop", "concept", delivery_id, is_deleted)
    return spark.createDataFrame([row], columns)


def test_a_bitemporal_table_is_read_as_it_was_known_before_midnight_of_the_hospital(lake, spark):
    # 22:30 UTC of the 30th is 23:30 in Vienna: still before midnight of the 31st; 23:30 UTC is after it.
    for delivery, hour, name in (("d1", 22, "old"), ("d2", 23, "new")):
        at = datetime(2026, 1, 30, hour, 30, tzinfo=UTC)
        frame = concept(spark, "OMOP:1", name, at, delivery)
        lake.for_run(delivery).replace(frame, "silver.concept", where={"source": "omop", "delivery_id": delivery})
    reader = lake.for_run("")
    assert [r.name for r in reader.read("silver.concept", DAY).collect()] == ["old"]
    assert [r.name for r in reader.read("silver.concept", date(2026, 2, 1)).collect()] == ["new"]
    assert [r.name for r in reader.read("silver.concept").collect()] == ["new"]


def test_a_withdrawn_record_is_not_read_and_a_tie_in_time_goes_by_delivery(lake, spark):
    at = datetime(2026, 1, 30, tzinfo=UTC)
    for delivery, is_deleted in (("d1", False), ("d2", True)):
        frame = concept(spark, "OMOP:1", "x", at, delivery, is_deleted)
        lake.for_run(delivery).replace(frame, "silver.concept", where={"source": "omop", "delivery_id": delivery})
    assert lake.for_run("").read("silver.concept").count() == 0
    assert lake.for_run("").history("silver.concept").count() == 2


def test_statistics_of_what_may_identify_stay_out_of_the_log(lake, spark):
    at = datetime(2026, 1, 30, tzinfo=UTC)
    lake.replace(
        concept(spark, "OMOP:1", "canary-name", at, "d1"), "silver.concept", {"source": "omop", "delivery_id": "d1"}
    )
    log = "".join(p.read_text() for p in Path(lake.path("silver.concept")).glob("_delta_log/*.json"))
    assert "numRecords" in log and "canary-name" not in log


PATIENT = """
    patient_id string | birth_date date | sex string | recorded_at timestamp | known_at timestamp | source string | source_table string | delivery_id string | is_deleted boolean
    ann               | 1950-03-14      | female     | 2026-01-30T22:00      | 2026-01-30T22:00   | omop          | person              | d1                 | false
"""  # noqa: E501
OWN = {"source": "omop", "delivery_id": "d1"}


def older(*lacking):
    """contracts.load as it was before the columns came."""

    def load(name):
        now = load_now(name)
        struct = StructType([field for field in now.struct if field.name not in lacking])
        checks = tuple(check for check in now.checks if not check.sql.startswith(lacking))
        return replace(now, struct=struct, checks=checks)

    load_now = contracts.load
    return load


def test_a_table_gets_the_columns_its_contract_has_gained_when_it_is_next_written(lake, table, monkeypatch):
    rows = table(PATIENT)
    with monkeypatch.context() as before:
        before.setattr(contracts, "load", older("state", "postcode"))
        lake.replace(rows, "silver.patient", where=OWN)
    reader = lake.for_run("")
    (ann,) = reader.read("silver.patient").collect()
    assert (ann.patient_id, ann.state, ann.postcode) == ("ann", None, None)
    assert reader.version("silver.patient") == 1
    files = sorted(Path(lake.path("silver.patient")).rglob("*.parquet"))

    later = rows.withColumns({"state": F.lit("MA"), "postcode": F.lit("02139"), "delivery_id": F.lit("d2")})
    for run in ("run2", "run2", "run3"):
        written = lake.for_run(run).replace(later, "silver.patient", where=OWN | {"delivery_id": "d2"})
        # One version for the columns, one for each run.
        assert (written.num_rows, written.version) == (1, 3 if run == "run2" else 4)
    stored = lake.spark.read.format("delta").load(lake.path("silver.patient"))
    told = [(field.name, field.metadata["comment"]) for field in contracts.load("silver.patient").struct]
    assert [(field.name, field.metadata["comment"]) for field in stored.schema] == told
    found = lake.for_run("").history("silver.patient").orderBy("known_at", "delivery_id").collect()
    assert [(r.delivery_id, r.state, r.postcode) for r in found] == [("d1", None, None), ("d2", "MA", "02139")]
    assert set(files) <= set(Path(lake.path("silver.patient")).rglob("*.parquet"))


def test_a_table_that_lacks_a_column_which_may_not_be_null_is_neither_read_nor_written(lake, table, monkeypatch):
    rows = table(PATIENT)
    with monkeypatch.context() as before:
        before.setattr(contracts, "load", older("sex", "state", "postcode"))
        lake.replace(rows.drop("sex"), "silver.patient", where=OWN)
    now = rows.withColumns({name: F.lit(None).cast("string") for name in ("state", "postcode")})
    later = lake.for_run("run2")
    for act in (lambda: later.read("silver.patient"), lambda: later.replace(now, "silver.patient", where=OWN)):
        with pytest.raises(ContractError, match="OLD_TABLE: silver.patient .* lacks sex, .*into a new lake"):
            act()
    assert DeltaTable.forPath(lake.spark, lake.path("silver.patient")).history(1).first().version == 1
