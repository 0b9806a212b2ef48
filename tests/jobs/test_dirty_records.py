"""Whatever stands in a delivery's fields, each row has one fate, and no accepted one breaks a contract."""

from collections import Counter
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as F

from medpipe import contracts
from medpipe.ingest.manifest import Delivery
from medpipe.jobs.standardise_records import SILVER, typed
from medpipe.mappings import mapping
from medpipe.quality.judgement import NAME, judged
from medpipe.standardise.records import person_ids

BRONZE = "source_table string, record_hash string, occurrence int, fields map<string,string>, "
BRONZE += "corrupt string, fault string"
DELIVERY = Delivery("synthea", "2026-01-30-0", datetime(2026, 1, 30, tzinfo=UTC), True, ())
IDS = ["a", "b", " a ", "007", "", "\0", "Ä\n", "' or '1'='1", "x" * 300]
DATES = ["1950-02-03", "2020-01-01T10:00:00Z", "2024-02-30", "0001-01-01", "9999-12-31", "01/02/2024", "2019-01-01"]
DATES += ["2027-01-01", "2020-13-01T00:00:00+99:00", "20", "-5", "\ufffd"]
NUMBERS = ["1", "-1", "1e400", "NaN", "Infinity", "1,5", "many", "0x10", "", "9" * 400, "1e-400"]
FIELDS = {
    "patients": {"id": IDS, "birthdate": DATES, "gender": ["F", "M", "?"], "deathdate": DATES},
    "encounters": {"id": IDS, "patient": IDS, "start": DATES, "stop": DATES, "encounterclass": ["inpatient", "moon"]},
    "conditions": {"patient": IDS, "encounter": IDS, "start": DATES, "stop": DATES, "code": ["44054006", "", "?"]},
    "observations": {
        "patient": IDS,
        "date": DATES,
        "code": ["2339-0", ""],
        "value": NUMBERS,
        "units": ["mg/dL", "teaspoons"],
        "type": ["numeric", "text"],
    },
}


@st.composite
def rows(draw):
    """One row of a delivery: a table, and for some of its columns a text; or a line that was not split."""
    table = draw(st.sampled_from(sorted(FIELDS)))
    if draw(st.integers(0, 9)) == 0:
        return table, {}, "a,b", "FIELD_COUNT"
    columns = {name: draw(st.sampled_from([*texts, ""])) for name, texts in FIELDS[table].items()}
    return table, {name: text for name, text in columns.items() if text}, None, None


@pytest.fixture(scope="module")
def meant():
    return mapping.load("synthea")


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(delivered=st.lists(rows(), min_size=20, max_size=60))
def test_every_row_has_one_fate_and_no_accepted_one_breaks_a_contract(spark, meant, delivered):
    copies = Counter()
    told = []
    for table, fields, corrupt, fault in delivered:
        content = str((table, sorted(fields.items()), corrupt))
        copies[content] += 1
        told.append((table, content, copies[content], fields, corrupt, fault))
    records = spark.createDataFrame(told, BRONZE)
    persons = person_ids(records, meant).withColumns(
        {"pseudonym": F.sha2("person_id", 256), "birth_date": F.lit(None).cast("date")}
    )
    decided = judged(typed(records, meant, DELIVERY, "Europe/Vienna"), persons, 2).withColumn("run_id", F.lit("r"))
    broken = [F.when(F.col("silver") == name, F.size(contracts.violations(name))) for name in SILVER]
    found = decided.select(*NAME, "fate", "reasons", F.coalesce(*broken).alias("n"))
    found = found.collect()
    own = Counter((r.source_table, r.record_hash, r.occurrence) for r in found if "." not in r.source_table)
    assert own == Counter((table, content, number) for table, content, number, *_ in told)
    assert len({(r.source_table, r.record_hash, r.occurrence) for r in found}) == len(found)
    for row in found:
        if row.fate == "accepted":
            assert (row.n, list(row.reasons)) == (0, [])
        elif row.fate == "quarantined":
            assert row.reasons
        else:
            assert row.occurrence > 1
