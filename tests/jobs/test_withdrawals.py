"""Records that the hospital takes back: named as deleted, or missed in a snapshot."""

from datetime import date

import pytest

from medpipe import job
from medpipe.errors import DataError
from medpipe.jobs import ingest_records, standardise_records
from tests.deliveries import KEY
from tests.jobs.conftest import open_at

MAPPING = """
[required]
people = ["mrn"]
visits = ["id", "mrn"]
notes = ["mrn", "on"]
[[rows]]
table = "people"
silver = "patient"
person = "mrn"
id = "mrn"
birth = "born"
[[rows]]
table = "visits"
silver = "encounter"
kind = "inpatient"
person = "mrn"
id = "id"
start = "on"
[[rows]]
table = "visits"
part = "weight"
silver = "event"
kind = "measurement"
when = "kg"
person = "mrn"
id = "id"
concept = "LOINC:29463-7"
start = "on"
value = "kg"
[[rows]]
table = "notes"
silver = "event"
kind = "observation"
person = "mrn"
concept = "X:1"
start = "on"
"""
PEOPLE = ["a,1950-02-03", "b,1950-02-03", "c,1950-02-03"]


@pytest.fixture
def opened(spark, tmp_path, monkeypatch):
    """The workplace of a lake by its name, under settings for the source."""
    monkeypatch.setenv("MEDPIPE_PSEUDONYM_KEY", KEY)
    for source in ("clinic", "annex"):
        (tmp_path / f"{source}.toml").write_text(MAPPING)

    def open_one(name, **threshold):
        limits = {"thresholds": {"clinic": {"max_bad_ratio": 0.5} | threshold}}
        return open_at(spark, tmp_path / name, "2026-02-01", mappings=str(tmp_path), **limits)

    return open_one


def deliver(folder, day, is_snapshot=False, source="clinic", **tables):
    """One CSV a table, its header first; `deleted_` before a name is the folder of deletions."""
    (folder / "deleted").mkdir(parents=True)
    told = f'source = "{source}"\ndelivered_at = 2026-01-{day}T22:00:00\nis_snapshot = {str(is_snapshot).lower()}\n'
    (folder / "delivery.toml").write_text(told)
    for name, lines in tables.items():
        (folder / f"{name.replace('_', '/')}.csv").write_text("\n".join(lines) + "\n")
    return folder


def load(work, *folders):
    for folder in folders:
        work.run(ingest_records.main, delivery=job.delivery_from(work, folder, is_history=False))
    work.run(standardise_records.main)


def held(work, as_of=None):
    """How many rows silver has of each table and part."""
    lake, found = work.lake.for_run(""), {}
    for name in ("silver.patient", "silver.encounter", "silver.event"):
        found |= {r.source_table: r["count"] for r in lake.read(name, as_of).groupBy("source_table").count().collect()}
    return found


def gaps(work, day):
    rows = work.lake.for_run("").read("ops.data_gap").where(f"delivery_id like '2026-01-{day}%'").collect()
    return {(row.source_table, row.gap): row.num_rows for row in rows if row.gap != "NO_UNIT"}


@pytest.fixture
def deliveries(tmp_path):
    visits = ["1,a,2020-01-01,70", "2,a,2020-02-01,71", "3,b,2020-01-01,", "4,b,2020-03-01,"]
    one = deliver(
        tmp_path / "one",
        27,
        people=["mrn,born", *PEOPLE],
        visits=["id,mrn,on,kg", *visits, "4,a,2020-03-01,"],
        notes=["mrn,on,text", "a,2020-01-01,x", "b,2020-01-01,y"],
    )
    two = deliver(
        tmp_path / "two",
        28,
        visits=["id,mrn,on,kg", "2,a,2020-02-01,72"],
        deleted_people=["mrn", "c"],
        # Of the visits called 4 only that of b; one that came again today, one never seen, one twice, one of no name.
        deleted_visits=["id,mrn", "1,", "4,b", "2,", "9,", "9,", ",a"],
        deleted_notes=["mrn,on,text", "a,2020-01-01,x"],
    )
    return one, two


def test_deleted_records_are_gone_with_their_parts_from_that_day_on_whatever_arrives_first(
    opened, deliveries, tmp_path
):
    work, (one, two) = opened("lake"), deliveries
    load(work, two)
    load(work, one)
    assert held(work, date(2026, 1, 28)) == {"people": 3, "visits": 5, "visits.weight": 2, "notes": 2}
    assert held(work) == {"people": 2, "visits": 3, "visits.weight": 1, "notes": 1}
    assert gaps(work, 28) == {("deleted/visits", "UNKNOWN_RECORD"): 1, ("deleted/visits", "STILL_DELIVERED"): 1}
    entry = work.ledger.entries[-1]
    assert (entry.rows_in, entry.rows_out, entry.rows_quarantined, entry.rows_duplicate) == (9, 7, 1, 1)
    (refused,) = work.lake.for_run("").read("phi.quarantine").collect()
    assert (refused.source_table, refused.reasons) == ("deleted/visits", ["BAD_ID"])
    # A later delivery tells a record again.
    load(work, deliver(tmp_path / "three", 29, visits=["id,mrn,on,kg", "1,a,2020-01-01,70"]))
    assert held(work)["visits"] == 4 and held(work)["visits.weight"] == 2


def test_what_a_snapshot_misses_is_gone_unless_it_is_too_much_to_be_true(opened, deliveries, tmp_path):
    # Another source tells of a patient of the same id; what it tells is its own.
    visits = ["id,mrn,on,kg", "9,a,2020-01-01,"]
    load(opened("lake"), deliver(tmp_path / "annex", 26, source="annex", people=["mrn,born", PEOPLE[0]], visits=visits))
    load(opened("lake"), deliveries[0])
    # Visit 3 has a date that is none, but is there. The note that does not say whose it is may be either of the two.
    visits = ["id,mrn,on,kg", "1,a,2020-01-01,", "3,b,2020-13-13,", "4,b,2020-03-01,", "4,a,2020-03-01,"]
    tables = {"people": ["mrn,born"], "visits": visits, "notes": ["mrn,on,text", ",2020-01-01,z"]}
    snapshot = deliver(tmp_path / "snapshot", 30, True, **tables)
    with pytest.raises(DataError, match="TOO_MANY_WITHDRAWN: clinic: .* people 3 of 3, visits 3 of 7; .* 20.0%"):
        load(opened("lake"), snapshot)
    assert held(opened("lake"))["people"] == 4
    load(work := opened("lake", max_withdrawn_ratio=1.0), snapshot)
    assert held(work) == {"people": 1, "visits": 5, "notes": 2}
    assert gaps(work, 30) == {("notes", "UNNAMED_ROW"): 1}
