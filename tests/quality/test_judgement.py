"""Rows of people who cannot have lived so, and numbers that cannot be, each with its code."""

from datetime import UTC, datetime

import pytest
from pyspark.sql import functions as F

from medpipe.ingest.manifest import Delivery
from medpipe.jobs.standardise_records import typed
from medpipe.mappings import mapping
from medpipe.quality.judgement import judged
from medpipe.standardise.records import person_ids

DELIVERY = Delivery("mine", "2026-01-30-0", datetime(2026, 1, 30, 22, tzinfo=UTC), True, ())
MINE = """
[required]
people = []
deaths = []
visits = []
doses = []
values = []
[[rows]]
table = "people"
silver = "patient"
person = "who"
id = "who"
birth = "born"
age = "age"
start = "at"
[[rows]]
table = "deaths"
silver = "event"
kind = "death"
person = "who"
concept = "OMOP:4306655"
start = "at"
[[rows]]
table = "visits"
silver = "encounter"
person = "who"
id = "id"
start = "at"
[[rows]]
table = "doses"
silver = "event"
kind = "drug"
person = "who"
concept = "RxNorm:1"
start = "at"
value = "dose"
[[rows]]
table = "values"
silver = "event"
kind = "measurement"
person = "who"
vocabulary = "LOINC"
code = "code"
start = "at"
value = "value"
unit = "unit"
"""
GLUCOSE = {"who": "ann", "at": "2025-01-01", "code": "2345-7"}
ROWS = [
    ("people", {"who": "ann", "born": "1950-03-14"}, []),
    ("people", {"who": "unborn", "born": "2026-02-02"}, ["AFTER_DELIVERY"]),
    ("people", {"who": "early", "born": "1899-12-31"}, ["BAD_BIRTH_DATE"]),
    ("people", {"who": "old", "born": "1900-01-01"}, []),
    ("people", {"who": "aged", "age": "122", "at": "2025-01-01"}, []),
    ("people", {"who": "older", "age": "130", "at": "2025-01-01"}, ["IMPLAUSIBLE_AGE"]),
    ("people", {"who": "oldest", "age": "1300", "at": "2025-01-01"}, ["BAD_BIRTH_DATE"]),
    ("deaths", {"who": "ann", "at": "1950-03-12"}, ["BEFORE_BIRTH"]),
    ("deaths", {"who": "ann", "at": "1950-03-14"}, []),
    ("deaths", {"who": "old", "at": "2022-12-31"}, []),
    ("deaths", {"who": "old", "at": "2023-01-01"}, ["IMPLAUSIBLE_AGE"]),
    ("visits", {"who": "old", "id": "1", "at": "2025-05-01"}, ["IMPLAUSIBLE_AGE"]),
    ("visits", {"who": "older", "id": "2", "at": "2025-05-01"}, ["UNKNOWN_PATIENT"]),
    ("doses", {"who": "ann", "at": "2025-01-01", "dose": "-5"}, ["NEGATIVE_DOSE"]),
    ("doses", {"who": "ann", "at": "2025-01-01", "dose": "0"}, []),
    ("values", GLUCOSE | {"value": "-100", "unit": "mg/dL"}, ["OUT_OF_RANGE"]),
    ("values", GLUCOSE | {"value": "100", "unit": "mg/g"}, ["UNKNOWN_UNIT"]),
    ("values", GLUCOSE | {"value": "5.5", "unit": "mmol/L"}, []),
    ("values", GLUCOSE | {"value": "5000", "unit": "/min", "code": "8867-4"}, ["OUT_OF_RANGE"]),
]


@pytest.fixture(scope="module")
def found(spark):
    """The judged row of each of ROWS, by its place."""
    meant = mapping.parsed("mine", MINE)
    told = [(table, str(place), 1, fields, None, None) for place, (table, fields, _) in enumerate(ROWS)]
    columns = "source_table string, record_hash string, occurrence int, fields map<string,string>, "
    records = spark.createDataFrame(told, columns + "corrupt string, fault string")
    persons = person_ids(records, meant).withColumns(
        {"pseudonym": F.col("person_id"), "birth_date": F.lit(None).cast("date")}
    )
    rows = judged(typed(records, meant, DELIVERY, "UTC"), persons, 2).collect()
    return [row for _, row in sorted((int(row.record_hash), row) for row in rows)]


def test_what_cannot_be_is_refused_with_its_code_and_what_only_just_can_is_not(found):
    told = [(table, fields, list(row.reasons)) for row, (table, fields, _) in zip(found, ROWS, strict=True)]
    assert told == ROWS
    assert [row.fate for row in found] == ["quarantined" if codes else "accepted" for *_, codes in ROWS]
    assert (found[17].value, found[17].unit) == (pytest.approx(99.088), "mg/dL")
