import pytest

from medpipe.ingest.drift import drift
from medpipe.mappings import mapping

CLINIC = """
[required]
visits = ["id"]
[[rows]]
table = "visits"
silver = "event"
kind = "drug"
person = "mrn"
id = "id"
when = "state!=void"
start = "on"
end = "off"
offset_from = "2012-01-01"
"""


@pytest.fixture
def found(spark):
    def of(meant, *rows):
        frame = spark.createDataFrame(rows, "source_table string, fields map<string,string>, corrupt string")
        return {tuple(row) for row in drift(frame, meant).collect()}

    return of


def test_columns_that_are_new_and_columns_that_are_gone_are_told_with_their_rows(found):
    visit = {"id": "1", "mrn": "a", "state": "void"}
    rows = [("visits", visit, None), ("visits", visit | {"on": "x", "ward": "7"}, None), ("visits", {}, "a,b")]
    deletion = ("deleted/visits", {"id": "1", "why": "x"}, None)
    assert found(mapping.parsed("clinic", CLINIC), *rows, deletion) == {
        ("visits", "ward", 1, "UNKNOWN_COLUMN"),
        ("visits", "off", 2, "MISSING_COLUMN"),
    }


def test_places_in_lists_are_one_path_and_a_key_in_another_case_is_new_while_its_own_is_gone(found):
    fields = {"resourceType": "Condition", "Id": "1", "code.coding.0.code": "x", "subject.reference": "Patient/p"}
    more = {"code.coding.0.system": "y", "note.0.text": "a", "note.1.text": "b", "onsetDateTime": "2020"}
    more |= {"encounter.reference": "Encounter/e", "recordedDate": "2020"}
    rows = [("condition", fields | more, None), ("claim", {"id": "1"}, None)]
    assert found(mapping.load("fhir"), *rows) == {
        ("condition", "Id", 1, "UNKNOWN_COLUMN"),
        ("condition", "note.*.text", 1, "UNKNOWN_COLUMN"),
        ("condition", "id", 1, "MISSING_COLUMN"),
        ("condition", "abatementDateTime", 1, "MISSING_COLUMN"),
    }


def test_what_a_row_gets_from_another_table_is_neither_new_nor_gone(found):
    stay = {"row_id": "1", "subject_id": "1", "hadm_id": "2", "seq_num": "1", "icd9_code": "4019"}
    told = {row[1:] for row in found(mapping.load("mimic3"), ("diagnoses_icd", stay, None))}
    assert told == {("seq_num", 1, "UNKNOWN_COLUMN")}
