"""A lake of two patients whose days, postcodes and pseudonyms are known, published in both modes."""

import io
from contextlib import redirect_stdout
from datetime import UTC, date, datetime

import pyarrow.parquet as pq
import pytest

from medpipe import contracts, keys
from medpipe.errors import UsageError
from medpipe.jobs.publish_tables import publish
from medpipe.privacy.disclosure import purpose, shift_days
from medpipe.privacy.pseudonyms import pseudonym
from tests.deliveries import KEY
from tests.jobs.conftest import open_at

KNOWN = datetime(2025, 11, 23, 21, tzinfo=UTC)
DAYS = [date(1931, 7, 8), date(1960, 8, 17), date(2024, 3, 14), date(2024, 5, 16), date(2025, 9, 26), KNOWN.date()]
OF_RECORD = {"source": "fhir", "source_table": "t", "delivery_id": "d-1", "is_deleted": False}
OF_RECORD |= {"known_at": KNOWN, "recorded_at": KNOWN}
NIGHT = {"as_of": date(2026, 1, 31), "recipe": "risk_gru", "model_sha256": "m", "feature_version": 1, "device": "cpu"}
ROWS = {
    "silver.patient": [
        {"patient_id": "ann", "birth_date": DAYS[0], "sex": "female", "state": "MA", "postcode": "02139"},
        {"patient_id": "bob", "birth_date": DAYS[1], "sex": "male", "state": "VA", "postcode": "20301"},
    ],
    "silver.encounter": [{"encounter_id": "v1", "patient_id": "ann", "kind": "inpatient"}],
    "silver.event": [
        {"event_id": "e1", "patient_id": "ann", "encounter_id": "v1", "event_at": datetime(2024, 3, 14, 12)},
        {"event_id": "e2", "patient_id": "ann", "event_at": datetime(2025, 9, 26, 12)},
    ],
    "gold.score": [NIGHT | {"patient_id": "bob", "score": 0.25}],
}
ROWS["silver.encounter"][0] |= {"started_at": datetime(2024, 3, 14, 9), "ended_at": datetime(2024, 5, 16, 9)}
ROWS["silver.event"] = [row | {"kind": "drug", "concept": "RxNorm:1"} for row in ROWS["silver.event"]]


def write(work, name, rows, **more):
    struct = contracts.load(name).struct
    full = [{field.name: (row | more).get(field.name) for field in struct if field.name != "run_id"} for row in rows]
    frame = work.lake.spark.createDataFrame(full, type(struct)(struct.fields[:-1]))
    where = {column: full[0][column] for column in contracts.load(name).partition_by}
    work.lake.for_run("r").replace(frame, name, where=where)


@pytest.fixture(scope="module")
def published(spark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MEDPIPE_PSEUDONYM_KEY", KEY)
        work = open_at(spark, folder, "2026-01-31")
        for name, rows in ROWS.items():
            write(work, name, rows, **(OF_RECORD if name.startswith("silver") else {}))
        told = io.StringIO()
        for mode, min_size in (("limited", 2), ("safe_harbor", 1)):
            chosen = {"mode": mode, "max_shift_days": 20, "min_group_size": min_size}
            with redirect_stdout(told):
                publish(open_at(spark, folder, "2026-01-31", privacy=chosen))
        yield folder, told.getvalue()


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("MEDPIPE_PSEUDONYM_KEY", KEY)
    return keys.load("env:MEDPIPE_PSEUDONYM_KEY")


def contents(folder):
    """Every published file but Delta's own, its rows as text."""
    return {
        file: str(pq.read_table(file).to_pylist())
        for file in folder.rglob("*.parquet")
        if "_delta_log" not in str(file)
    }


def test_safe_harbor_holds_no_date_and_neither_mode_a_true_one_or_a_pseudonym_of_the_lake(published):
    root = published[0] / "lake-published"
    of_modes = {mode: str(list(contents(root / mode).values())) for mode in ("safe_harbor", "limited")}
    assert "datetime.date" not in of_modes["safe_harbor"] and of_modes["limited"].count("datetime.date") == 4
    planted = [repr(day) for day in DAYS] + ["'ann'", "'bob'", "'v1'", "'e1'", "02139", "20301", "d-1", "1931"]
    assert all(value in of_modes["safe_harbor"] for value in ("'021'", "'000'", "'90+'", "1960"))
    for mode, text in of_modes.items():
        assert [value for value in planted if value in text] == [], mode
    logs = "".join(file.read_text() for file in root.rglob("_delta_log/*.json"))
    assert [day for day in DAYS if str(day) in logs] == [] and "ann" not in logs.replace("planned", "")


def test_the_tables_of_a_mode_join_and_keep_intervals_and_those_of_two_modes_do_not_join(published, spark, key):
    lake = open_at(spark, published[0], "2026-01-31").lake.for_run("")
    ids = {mode: pseudonym(key.subkey(purpose(mode)), "published", "ann") for mode in ("safe_harbor", "limited")}
    for mode, name in ids.items():
        events = lake.read(f"{mode}.event").collect()
        assert {row.patient_id for row in events} == {name} != {"ann"}
        assert lake.read(f"{mode}.encounter").first().encounter_id in {row.encounter_id for row in events}
        assert lake.read(f"{mode}.patient").where(f"patient_id = '{name}'").count() == 1
    assert len(set(ids.values())) == 2
    shift = shift_days(key.subkey("shift"), "ann", 20)
    visit, first, last = (
        lake.read("limited.encounter").first(),
        *sorted(r.event_on for r in lake.read("limited.event").collect()),
    )
    assert {(visit.started_on - DAYS[2]).days, (first - DAYS[2]).days, (last - DAYS[4]).days} == {shift}
    assert (visit.ended_on - visit.started_on) == DAYS[3] - DAYS[2]
    assert lake.read("safe_harbor.score").first().score == 0.25 and lake.read("limited.recommendation").count() == 0


def test_a_table_says_how_far_it_is_without_identity(published, spark):
    lake = open_at(spark, published[0], "2026-01-31").lake.for_run("")
    for mode, word in (("limited", "expert"), ("safe_harbor", "safe_harbor")):
        told = spark.sql(f"describe detail delta.`{lake.path(f'{mode}.event')}`").first().properties
        assert word in told["medpipe.disclosure"]
        assert {row.disclosure for row in lake.read(f"{mode}.event").collect()} == {told["medpipe.disclosure"]}


def test_the_same_as_of_again_is_skipped_and_another_of_the_year_is_refused(published, spark, key, capsys):
    work = open_at(spark, published[0], "2026-01-31", privacy={"max_shift_days": 20})
    before = work.lake.version("safe_harbor.event")
    publish(work)
    assert "already done" in capsys.readouterr().out and work.lake.for_run("").version("safe_harbor.event") == before
    with pytest.raises(UsageError, match="OTHER_AS_OF: 2026 is published as of 2026-01-31; .* Pass --as-of 2026-01-31"):
        publish(open_at(spark, published[0], "2026-02-01"))


def test_patients_of_small_groups_are_published_without_what_others_may_know_of_them(published, spark):
    folder, told = published
    assert "safe_harbor.patient: 2 groups alike" in told and "of theirs: 1: 2, 2 to 4: 0" in told
    assert "limited.patient: 0 groups alike" in told and "2 patients of groups smaller than 2" in told
    rows = open_at(spark, folder, "2026-01-31").lake.read("limited.patient").collect()
    assert [(r.sex, r.birth_year, r.age, r.state, r.zip3) for r in rows] == [("unknown", None, None, None, None)] * 2
