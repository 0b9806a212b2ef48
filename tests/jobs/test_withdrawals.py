"""Records that the hospital takes back: named as deleted, or missed in a snapshot."""

import json
from datetime import date

import pytest

from medpipe import job
from medpipe.errors import DataError
from medpipe.jobs import ingest_records, standardise_records
from tests.deliveries import KEY, deliver
from tests.jobs.conftest import open_at

LOINC = {"coding": [{"system": "http://loinc.org", "code": "85354-9"}]}
PRESSURE = [{"code": LOINC, "valueQuantity": {"value": value, "code": "mm[Hg]"}} for value in (120, 80)]


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("MEDPIPE_PSEUDONYM_KEY", KEY)


def resource(kind, name, **more):
    return {"resourceType": kind, "id": name} | more


def person(name):
    return resource("Patient", name, birthDate="1950-02-03", deceasedDateTime="2020-01-01")


def observation(name, **more):
    told = {"code": LOINC, "effectiveDateTime": "2019-01-01T10:00:00Z", "subject": {"reference": "Patient/p1"}}
    return resource("Observation", name, **told, **more)


def deletions(*urls):
    entries = [{"request": {"method": "DELETE", "url": url}} for url in urls]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def export(folder, delivered_at, **files):
    """A bulk export: file -> documents, one a line; `deleted_` before a name is the folder of deletions."""
    (folder / "deleted").mkdir(parents=True)
    (folder / "delivery.toml").write_text(f'source = "fhir"\ndelivered_at = {delivered_at}\n')
    for name, documents in files.items():
        lines = [document if isinstance(document, str) else json.dumps(document) for document in documents]
        (folder / f"{name.replace('_', '/')}.ndjson").write_text("\n".join(lines) + "\n")
    return folder


def load(work, *folders):
    for folder in folders:
        job.announce(work.run(ingest_records.main, delivery=job.delivery_from(work, folder, is_history=False)))
    job.announce(work.run(standardise_records.main))


def events(work, as_of=None):
    rows = work.lake.for_run("").read("silver.event", as_of)
    return sorted(row.source_table for row in rows.collect())


def gaps(work):
    rows = work.lake.for_run("").read("ops.data_gap").collect()
    return {(row.source_table, row.gap): row.num_rows for row in rows if row.delivery_id.startswith("2026-01-3")}


def content(work, name):
    rows = work.lake.for_run("").read(name).drop("file", "run_id").collect()
    return sorted(str(row) for row in rows)


def test_a_deleted_resource_is_gone_with_its_parts_from_its_day_on_in_any_order_of_arrival(spark, tmp_path):
    whole = observation("o1", component=PRESSURE)
    one = export(
        tmp_path / "one", "2026-01-28T22:00:00", Patient=[person("p1"), person("p2")], Observation=[whole, observation("o2")]
    )
    deleted = [deletions("Observation/o1", "https://a.b/fhir/Patient/p2"), deletions("Observation/o9", "Claim/c1")]
    two = export(
        tmp_path / "two",
        "2026-01-29T22:00:00",
        Observation=[observation("o2", issued="2026-01-29")],
        deleted_Bundle=[*deleted, deletions("Observation?code=x"), deletions("Observation/o2"), "{"],
    )
    three = export(tmp_path / "three", "2026-01-30T22:00:00", Observation=[observation("o2"), whole])
    told = {"thresholds": {"fhir": {"max_bad_ratio": 1.0}}}
    right, wrong = (open_at(spark, tmp_path / name, "2026-01-31", **told) for name in ("right", "wrong"))
    load(right, one, two)
    parts = ["observation.component0", "observation.component1"]
    assert events(right, date(2026, 1, 29)) == ["observation"] * 2 + parts + ["patient.death"] * 2
    assert events(right) == ["observation", "patient.death"]
    lake = right.lake.for_run("")
    assert lake.read("silver.patient", date(2026, 1, 29)).count() == 2 and lake.read("silver.patient").count() == 1
    found = {row.source_table: row.reasons for row in lake.read("phi.quarantine").collect()}
    assert found == {"deleted/observation": ["BAD_ID"], "deleted/bundle": ["BAD_JSON"]}
    rows = lake.read("ops.data_gap").where("source_table like 'deleted%'").collect()
    assert {(row.source_table, row.gap): row.num_rows for row in rows} == {
        ("deleted/observation", "UNKNOWN_RECORD"): 1,
        ("deleted/observation", "STILL_DELIVERED"): 1,
        ("deleted/claim", "NOT_READ"): 1,
    }
    entry = right.ledger.entries[-1]
    assert (entry.rows_in, entry.rows_out, entry.rows_quarantined) == (7, 5, 2)
    # A later delivery tells the record again; deletions that arrive after it are older, and lose.
    load(right, three)
    assert events(right) == ["observation"] * 2 + parts + ["patient.death"]
    load(wrong, three, two)
    load(wrong, one, two)
    for name in ("silver.patient", "silver.event", "phi.fate", "ops.data_gap"):
        assert content(right, name) == content(wrong, name), name
