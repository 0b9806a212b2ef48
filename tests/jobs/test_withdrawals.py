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


def open_lake(spark, folder, **threshold):
    """The workplace of the lake in a folder beside which the mappings lie, under limits of its source."""
    limits = {"thresholds": {"clinic": {"max_bad_ratio": 0.5} | threshold}}
    return open_at(spark, folder, "2026-02-01", mappings=str(folder.parent), **limits)


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


@pytest.fixture(scope="module")
def lake(spark, tmp_path_factory):
    """The folder of a lake to which the deletions came first, then what they delete, and another source."""
    root = tmp_path_factory.mktemp("withdrawals")
    for source in ("clinic", "annex"):
        (root / f"{source}.toml").write_text(MAPPING)
    visits = ["1,a,2020-01-01,70", "2,a,2020-02-01,71", "3,b,2020-01-01,", "4,b,2020-03-01,", "4,a,2020-03-01,"]
    one = deliver(
        root / "one",
        27,
        people=["mrn,born", *PEOPLE],
        visits=["id,mrn,on,kg", *visits],
        notes=["mrn,on,text", "a,2020-01-01,x", "b,2020-01-01,y"],
    )
    two = deliver(
        root / "two",
        28,
        visits=["id,mrn,on,kg", "2,a,2020-02-01,72"],
        deleted_people=["mrn", "c"],
        # Of the visits called 4 only that of b; one that came again today, one never seen, one twice, one of no name.
        deleted_visits=["id,mrn", "1,", "4,b", "2,", "9,", "9,", ",a"],
        deleted_notes=["mrn,on,text", "a,2020-01-01,x"],
    )
    # Another source tells of a patient and a visit of the same ids; what it tells is its own.
    again = ["id,mrn,on,kg", "1,a,2020-01-01,"]
    other = deliver(root / "annex", 26, source="annex", people=["mrn,born", PEOPLE[0]], visits=again)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MEDPIPE_PSEUDONYM_KEY", KEY)
        load(open_lake(spark, root / "lake"), two)
        load(open_lake(spark, root / "lake"), one, other)
        yield root / "lake"


def test_deleted_records_are_gone_with_their_parts_from_their_day_on_whatever_arrives_first(spark, lake):
    work = open_lake(spark, lake)
    assert held(work, date(2026, 1, 28)) == {"people": 4, "visits": 6, "visits.weight": 2, "notes": 2}
    assert held(work) == {"people": 3, "visits": 4, "visits.weight": 1, "notes": 1}
    assert gaps(work, 28) == {("deleted/visits", "UNKNOWN_RECORD"): 1, ("deleted/visits", "STILL_DELIVERED"): 1}
    entry = work.ledger.entries[-1]
    assert (entry.rows_in, entry.rows_out, entry.rows_quarantined, entry.rows_duplicate) == (9, 7, 1, 1)
    (refused,) = work.lake.for_run("").read("phi.quarantine").collect()
    assert (refused.source_table, refused.reasons) == ("deleted/visits", ["BAD_ID"])


def test_what_a_snapshot_misses_is_gone_unless_it_is_too_much_to_be_true(spark, lake):
    # Visit 1 is back, 3 has a date that is none, but is there. The note may be any, for it does not say whose it is.
    visits = ["id,mrn,on,kg", "1,a,2020-01-01,", "3,b,2020-13-13,"]
    tables = {"people": ["mrn,born"], "visits": visits, "notes": ["mrn,on,text", ",2020-01-01,z"]}
    snapshot = deliver(lake.parent / "snapshot", 30, is_snapshot=True, **tables)
    strict = open_lake(spark, lake, max_bad_ratio=1.0)
    with pytest.raises(DataError, match="TOO_MANY_WITHDRAWN: clinic: .* people 2 of 2, visits 3 of 4; .* 20.0%"):
        load(strict, snapshot)
    assert held(strict)["people"] == 3
    work = open_lake(spark, lake, max_bad_ratio=1.0, max_withdrawn_ratio=1.0)
    load(work, snapshot)
    assert held(work) == {"people": 1, "visits": 3, "notes": 1}
    assert gaps(work, 30) == {("notes", "UNNAMED_ROW"): 1}
