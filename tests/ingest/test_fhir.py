import gzip
import json
from datetime import UTC, datetime

import pytest

from medpipe.ingest import records
from medpipe.ingest.fhir import resources_of
from medpipe.ingest.manifest import read_delivery
from medpipe.mappings import mapping

FHIR = mapping.load("fhir")
ANN = {
    "resourceType": "Patient",
    "id": "p1",
    "name": [{"given": ["Ann", "B"]}],
    "active": True,
    "multipleBirthInteger": 2,
}


def read(text, table="patient"):
    return list(resources_of(text if isinstance(text, bytes) else text.encode(), table))


def test_a_resource_becomes_fields_by_path_and_numbers_stay_as_they_are_written():
    (row,) = read(
        '{"resourceType": "Patient", "a": {"b": [{"c": 1.10}, {"c": 1e400}]}, "d": null, "e": "", "f": false}'
    )
    assert row["source_table"] == "patient"
    assert dict(row["fields"]) == {"resourceType": "Patient", "a.b.0.c": "1.10", "a.b.1.c": "1e400", "f": "false"}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"resourceType": "Patient", "id": ', "BAD_JSON"),
        ('{"resourceType": "Patient", "value": NaN}', "BAD_JSON"),
        ("[" * 200_000, "BAD_JSON"),
        ('{"a":' * 900 + "1" + "}" * 900, "NOT_A_RESOURCE"),
        ('{"resourceType": "Patient", "id": "a", "id": "b"}', "DUPLICATE_KEY"),
        ('["Patient"]', "NOT_A_RESOURCE"),
        ('"Patient"', "NOT_A_RESOURCE"),
        ('{"ResourceType": "Patient"}', "NOT_A_RESOURCE"),
        ('{"resourceType": "Observation"}', "NOT_A_RESOURCE"),
        ('{"resourceType": "Patient", "n": "Müller"}'.encode("latin-1"), "ENCODING"),
        ('{"resourceType": "Patient"}'.encode("utf-16"), "ENCODING"),
    ],
)
def test_a_line_that_is_no_resource_is_kept_whole_with_its_reason(text, fault):
    (row,) = read(text)
    assert (row["source_table"], row["fault"], row["fields"]) == ("patient", fault, [])
    assert row["corrupt"]


def test_a_resource_that_nests_too_deep_for_its_paths_is_refused():
    (row,) = read('{"resourceType": "Patient", "a":' + '{"a":' * 600 + "1" + "}" * 601)
    assert row["fault"] == "BAD_JSON"


def test_the_same_resource_in_another_order_of_keys_is_the_same_row():
    turned = dict(reversed(ANN.items()))
    assert read(json.dumps(turned)) == read(json.dumps(ANN))


def test_a_byte_order_mark_and_an_empty_line_are_nothing():
    assert dict(read(b"\xef\xbb\xbf" + json.dumps(ANN).encode())[0]["fields"])["id"] == "p1"
    assert read("  \r") == []


def test_a_bundle_is_its_resources_and_one_without_an_id_has_that_of_its_full_url():
    entries = [{"fullUrl": "urn:uuid:7", "resource": {"resourceType": "Claim"}}, {"resource": ANN}]
    found = read(json.dumps({"resourceType": "Bundle", "entry": entries}), None)
    assert [(row["source_table"], dict(row["fields"])["id"]) for row in found] == [
        ("claim", "urn:uuid:7"),
        ("patient", "p1"),
    ]
    (whole,) = read(json.dumps({"resourceType": "Bundle", "entry": [{"resource": ANN}, {"request": {}}]}), None)
    assert (whole["source_table"], whole["fault"]) == ("bundle", "NOT_A_RESOURCE")


def deletion(url):
    return {"request": {"method": "DELETE", "url": url}}


@pytest.mark.parametrize("table", [None, "deleted/"])
def test_a_delete_of_a_bundle_is_a_row_of_the_deletions_of_its_type_named_by_its_url(table):
    urls = ["Observation/o1", "https://a.b/fhir/Patient/abc", "Observation?code=x"]
    found = read(json.dumps({"resourceType": "Bundle", "entry": [deletion(url) for url in urls]}), table)
    assert [(row["source_table"], dict(row["fields"])["id"]) for row in found] == [
        ("deleted/observation", urls[0]),
        ("deleted/patient", urls[1]),
        ("deleted/observation", urls[2]),
    ]


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        (ANN, "NOT_A_DELETION"),
        ({"resourceType": "Bundle", "entry": [deletion("Patient/p1"), {"resource": ANN}]}, "NOT_A_DELETION"),
        ({"resourceType": "Bundle", "entry": [deletion("Patient/p1/_history/2")]}, "NOT_A_DELETION"),
        ({"resourceType": "Bundle", "entry": [deletion("Patient")]}, "NOT_A_DELETION"),
        ({"resourceType": "Bundle", "entry": [{"request": {"method": "PUT"}}]}, "NOT_A_RESOURCE"),
    ],
)
def test_what_stands_among_the_deletions_and_is_none_is_kept_whole_with_its_reason(document, fault):
    (row,) = read(json.dumps(document), "deleted/")
    assert (row["source_table"], row["fault"], row["fields"]) == ("deleted/bundle", fault, [])


def test_a_number_that_is_sent_as_text_is_the_same_number():
    assert read('{"resourceType": "Patient", "n": 7.20}') == read('{"resourceType": "Patient", "n": "7.20"}')


def test_lines_gzip_and_bundles_of_one_delivery_stand_in_bronze(spark, tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    other = ANN | {"id": "p2"}
    (folder / "Patient.000.ndjson.gz").write_bytes(
        gzip.compress(f"{json.dumps(ANN)}\n{json.dumps(ANN)}\n{{\n".encode())
    )
    (folder / "one.json").write_text(json.dumps({"resourceType": "Bundle", "entry": [{"resource": other}]}))
    (folder / "log.ndjson").write_text("{}\n")
    (folder / "deleted").mkdir()
    lines = [json.dumps({"resourceType": "Bundle", "entry": [deletion(url)]}) for url in ("Patient/p3", "Patient/p4")]
    (folder / "deleted" / "Patient.ndjson").write_text("\n".join(lines) + "\n")
    delivery = read_delivery(folder, datetime(2026, 1, 31, tzinfo=UTC), "UTC", False, "fhir")
    found = records.records(spark, delivery, FHIR).collect()
    assert sorted((r.file, r.fields.get("id"), r.occurrence, r.corrupt, r.fault) for r in found if r.fields) == [
        ("Patient.000.ndjson.gz", "p1", 1, None, None),
        ("Patient.000.ndjson.gz", "p1", 2, None, None),
        ("deleted/Patient.ndjson", "Patient/p3", 1, None, None),
        ("deleted/Patient.ndjson", "Patient/p4", 1, None, None),
        ("one.json", "p2", 1, None, None),
    ]
    assert [(r.source_table, r.corrupt, r.fault) for r in found if not r.fields] == [("patient", "{", "BAD_JSON")]
    assert [records.is_read(file, FHIR) for file in delivery.files] == [True, True, False, True]
