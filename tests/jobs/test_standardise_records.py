import gzip
import json
import shutil
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F

from medpipe import job, keys, staging
from medpipe.errors import DataError, UsageError
from medpipe.jobs import ingest_records, standardise_records
from medpipe.privacy.sealing import NUM_KEY_BYTES, unseal
from medpipe.stream.reader import read
from medpipe.stream.shards import plan
from tests.deliveries import KEY, PERSON, deliver, first_night, second_night
from tests.faults import crashes
from tests.jobs.conftest import open_at

STRICT = {"omop": {"max_bad_ratio": 0.1}}


def load(work, folder):
    work.run(ingest_records.main, delivery=job.delivery_from(work, folder, is_history=False))
    return work.run(standardise_records.main)


def content(lake, name):
    """Rows of a table as text, in any order, without what only says where they lie."""
    return sorted(str(row) for row in lake.for_run("").read(name).drop("file").collect())


@pytest.fixture(scope="module")
def key():
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MEDPIPE_PSEUDONYM_KEY", KEY)
        yield


@pytest.fixture(scope="module")
def loaded(key, spark, tmp_path_factory):
    """A lake after the first night, for tests that only look at it or find nothing to do."""
    folder = tmp_path_factory.mktemp("first")
    load(open_at(spark, folder, "2026-01-31"), first_night(folder / "2026-01-30"))
    return folder


@pytest.fixture
def loaded_work(loaded, spark):
    return open_at(spark, loaded, "2026-01-31")


@pytest.fixture(scope="module")
def loaded_twice(loaded, spark, tmp_path_factory):
    """The same after the second night."""
    folder = copy(loaded, tmp_path_factory.mktemp("second"))
    load(open_at(spark, folder, "2026-02-01"), second_night(folder / "2026-01-31"))
    return folder


def copy(loaded, folder):
    for name in ("lake", "lake-phi"):
        shutil.copytree(loaded / name, folder / name)
    return folder


def test_every_delivered_row_is_accepted_quarantined_with_its_reasons_or_a_copy(loaded_work):
    lake = loaded_work.lake.for_run("")
    fates = {r.fate: r["count"] for r in lake.read("phi.fate").groupBy("fate").count().collect()}
    assert fates == {"accepted": 12, "quarantined": 15, "duplicate": 1}
    refused = lake.read("phi.quarantine").collect()
    secret = keys.load("env:MEDPIPE_PSEUDONYM_KEY").subkey("quarantine", NUM_KEY_BYTES)
    found = {}
    for row in refused:
        raw = json.loads(unseal(secret, row.raw))
        fields = raw["fields"]
        found.setdefault(tuple(row.reasons), []).append(
            fields.get(f"{row.source_table}_id", "") if fields else raw["corrupt"].split(",")[0]
        )
    assert {reasons: sorted(ids) for reasons, ids in found.items()} == {
        ("UNKNOWN_PATIENT",): ["103", "3"],
        ("BAD_DATE",): ["101"],
        ("END_BEFORE_START",): ["102"],
        ("BEFORE_BIRTH",): ["105"],
        ("AFTER_DELIVERY",): ["106"],
        ("BAD_ID",): ["x7"],
        ("FIELD_COUNT",): ["108"],
        ("KEY_CONFLICT",): ["109", "109"],
        ("OUT_OF_RANGE",): ["3"],
        ("BAD_NUMBER",): ["4"],
        ("NOT_FINITE",): ["5"],
        ("UNKNOWN_UNIT",): ["7", "8"],
    }


def test_times_are_utc_units_are_one_and_what_is_missing_is_reported(loaded_work):
    lake = loaded_work.lake.for_run("")
    events = lake.read("silver.event")
    diabetes = events.where("concept = 'OMOP:201826' and kind = 'condition'").select(F.col("event_at").cast("string"))
    assert [row[0] for row in diabetes.collect()] == ["2025-05-01 07:30:00"]
    sugar = events.where("concept = 'OMOP:3004501'").orderBy("event_at").select("value", "unit").collect()
    assert [(row.value, row.unit) for row in sugar] == [
        (100.0, "mg/dL"),
        (pytest.approx(99.088), "mg/dL"),
        (101.0, None),
    ]
    gaps = {(r.source_table, r.gap): r.num_rows for r in lake.read("ops.data_gap").collect()}
    assert gaps == {
        ("condition_occurrence", "UNKNOWN_VISIT"): 1,
        ("condition_occurrence", "UNMAPPED_CONCEPT"): 1,
        ("measurement", "NO_UNIT"): 1,
    }


def test_a_time_comes_back_from_a_staged_shard_as_it_stands_in_silver(loaded_work, tmp_path):
    lake = loaded_work.lake.for_run("")
    events = lake.read("silver.event").select("event_id", F.unix_micros("event_at").alias("at"))
    columns, version = ["event_id", "event_at", "source"], lake.version("silver.event")
    snapshot = staging.readable(
        lake.spark, lake.path("silver.event"), str(tmp_path / "staged"), {"source": "omop"}, columns, version
    )
    assert snapshot.staged == "PARTITION_COLUMN"
    found = pa.Table.from_batches(
        batch for shard in plan(snapshot.files, 100) for batch in read(shard.url, shard.row_groups, columns, 100)
    )
    micros = found["event_at"].cast(pa.timestamp("us")).cast(pa.int64()).to_pylist()
    assert sorted(zip(found["event_id"].to_pylist(), micros, strict=True)) == sorted(map(tuple, events.collect()))
    # 09:30 in Vienna.
    assert int(datetime(2025, 5, 1, 7, 30, tzinfo=UTC).timestamp() * 1_000_000) in micros


def test_the_same_drug_id_of_two_persons_is_two_records(loaded_work):
    drugs = loaded_work.lake.for_run("").read("silver.event").where("kind = 'drug'")
    assert drugs.count() == 2 and drugs.select("event_id").distinct().count() == 1


def test_no_identity_stands_outside_the_phi_root(loaded_work):
    def told(file):
        # Parquet compresses: a name need not stand in it byte by byte.
        return (
            str(pq.read_table(file).to_pylist()) if file.suffix == ".parquet" else file.read_bytes().decode("latin-1")
        )

    root = Path(loaded_work.lake.root)
    assert any("MRN-0001" in told(file) for file in Path(loaded_work.lake.phi_root).rglob("*.parquet"))
    for file in (path for path in root.rglob("*") if path.is_file()):
        assert not any(canary in told(file) for canary in ("MRN-000", KEY)), file


def test_a_correction_wins_from_its_day_on_and_an_older_as_of_does_not_see_it(loaded_twice, spark):
    lake = open_at(spark, loaded_twice, "2026-02-01").lake

    def first_value(as_of):
        rows = lake.read("silver.event", as_of).where("concept = 'OMOP:3004501'").orderBy("event_at")
        return rows.first().value

    assert first_value(date(2026, 2, 1)) == 123.0
    assert first_value(date(2026, 1, 31)) == 100.0


def test_deliveries_in_the_wrong_order_and_twice_give_the_same_content(loaded, loaded_twice, spark, tmp_path):
    right, wrong = (open_at(spark, folder, "2026-02-01") for folder in (loaded_twice, tmp_path))
    one, two = loaded / "2026-01-30", loaded_twice / "2026-01-31"
    for folder in (two, one, two):
        load(wrong, folder)
    for name in ("silver.patient", "silver.event", "silver.observation_period", "phi.fate", "phi.quarantine"):
        assert content(right.lake, name) == content(wrong.lake, name), name


def test_the_same_delivery_again_is_skipped_and_writes_no_version(loaded_work, loaded):
    lake = loaded_work.lake
    before = lake.for_run("").version("silver.event"), lake.for_run("").version("ops.run")
    again = load(loaded_work, loaded / "2026-01-30")
    assert [outcome.status for outcome in again] == ["skipped"]
    assert (lake.for_run("").version("silver.event"), lake.for_run("").version("ops.run")) == before


def test_too_many_bad_rows_publish_nothing(loaded, spark, tmp_path):
    work = open_at(spark, copy(loaded, tmp_path), "2026-01-31", thresholds=STRICT)
    version = work.lake.for_run("").version("silver.event")
    with pytest.raises(DataError, match="TOO_MANY_BAD_ROWS: omop: 15 of 27 rows quarantined .*KEY_CONFLICT 2"):
        work.run(standardise_records.main)
    assert work.lake.for_run("").version("silver.event") == version
    told = [(entry.status, entry.error_code) for entry in work.ledger.entries]
    assert told == [("done", None), ("done", None), ("started", None), ("failed", "TOO_MANY_BAD_ROWS")]


def test_after_a_killed_run_of_other_settings_the_first_ones_are_run_again(loaded, spark, tmp_path):
    """What the killed run left in the PHI zone is not taken for the first run's."""
    strict = open_at(spark, copy(loaded, tmp_path), "2026-01-31", thresholds=STRICT)

    def die(hook):
        if hook == "after phi.fate 1":
            raise KeyboardInterrupt

    with crashes.hooked(die), pytest.raises(KeyboardInterrupt):
        strict.run(standardise_records.main)
    again = open_at(spark, tmp_path, "2026-01-31")
    assert [outcome.status for outcome in again.run(standardise_records.main)] == ["done"]
    runs = {row.run_id for row in again.lake.for_run("").read("phi.fate").select("run_id").distinct().collect()}
    assert runs == {again.ledger.entries[-1].run_id}


def test_another_key_than_the_lakes_is_refused(loaded, spark, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDPIPE_PSEUDONYM_KEY", "cd" * 32)
    work = open_at(spark, loaded, "2026-02-01")
    with pytest.raises(UsageError, match="OTHER_KEY"):
        work.run(standardise_records.main)


def test_a_delivery_of_a_later_day_is_refused(spark, tmp_path):
    work = open_at(spark, tmp_path, "2026-01-30")
    with pytest.raises(UsageError, match="LATER_DELIVERY"):
        load(work, first_night(tmp_path / "2026-01-30"))


def test_the_ledger_tells_what_went_in_and_out(loaded_work):
    entry = loaded_work.ledger.entries[-1]
    counts = (entry.rows_in, entry.rows_out, entry.rows_quarantined, entry.rows_duplicate)
    assert counts == (28, 12, 15, 1)
    assert entry.key_fingerprint == keys.load("env:MEDPIPE_PSEUDONYM_KEY").fingerprint
    assert {output[0] for output in entry.outputs} >= {"silver.event", "phi.fate", "phi.quarantine"}


def test_a_gzip_file_that_ends_early_stores_nothing_and_is_named(key, spark, tmp_path):
    lines = "\n".join([PERSON, *[f"{n},8532,1950,1,1,MRN-{n}" for n in range(20_000)]])
    whole = gzip.compress(lines.encode())
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "person.csv.gz").write_bytes(whole[: len(whole) // 2])
    work = open_at(spark, tmp_path, "2026-01-31")
    with pytest.raises(DataError, match="TRUNCATED_FILE: person.csv.gz of .* nothing was stored") as refused:
        load(work, folder)
    assert "MRN" not in str(refused.value)
    assert work.lake.for_run("").read("bronze.record").count() == 0 and work.deliveries(None) == []


def test_a_file_that_holds_other_rows_than_its_list_says_is_no_delivery(key, spark, tmp_path):
    folder = deliver(tmp_path / "d", "2026-01-30T22:00:00", person=["1,8532,1950,3,14,MRN-0001"])
    with (folder / "delivery.toml").open("a") as file:
        file.write('[[files]]\nname = "person.csv"\nrows = 2\n')
    work = open_at(spark, tmp_path, "2026-01-31")
    with pytest.raises(DataError, match="MANIFEST_MISMATCH: person.csv has 1 rows, listed are 2"):
        load(work, folder)
    assert work.deliveries(None) == []
