import json
import shutil

import pytest
from pyspark.sql import Row
from pyspark.sql import functions as F

from medpipe import catalog, job, show
from medpipe.errors import UsageError
from medpipe.jobs import check_quality, count_quality, ingest_records, standardise_records
from tests.deliveries import KEY, deliver
from tests.jobs.conftest import open_at

AS_OF = "2026-01-31"
# What ingestion lets pass, one fault a row; the last condition is refused.
PLANTED = dict(
    person=["1,8532,1950,3,14,MRN-0001", "2,8507,1960,,,MRN-0002"],
    observation_period=["1,1,2020-01-01,2026-01-30"],
    visit_occurrence=["10,1,9201,2025-05-01,2025-05-03"],
    condition_occurrence=[
        "100,1,201826,2025-05-01,,,10",
        "101,1,198803,2025-06-01,,,",
        "102,2,0,2025-06-01,,,",
        "103,2,201826,2025-12-01,,,",
        "104,1,201826,2025-08-01,,,10",
        "105,1,201826,2025-05-02,,,77",
        "106,99,201826,2025-05-02,,,",
    ],
    measurement=[
        "1,1,3004501,2025-05-01,20,8840,mg/dL,10",
        "2,1,3004501,2025-05-01,100,8840,mg/dL,10",
        "3,1,3004501,2025-05-01,99,0,,10",
        "4,1,3004501,2025-05-01,5.5,8753,mmol/L,10",
    ],
    death=["2,2025-07-01"],
    concept=[
        "201826,Type 2 diabetes mellitus,Condition,SNOMED,44054006",
        "198803,Benign prostatic hyperplasia,Condition,SNOMED,266569009",
        "3004501,Glucose,Observation,LOINC,2345-7",
    ],
)


@pytest.fixture(scope="module")
def planted(spark, tmp_path_factory):
    """A lake with the planted faults, checked once."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MEDPIPE_PSEUDONYM_KEY", KEY)
        folder = tmp_path_factory.mktemp("planted")
        work = open_at(spark, folder, AS_OF)
        delivery = deliver(folder / "2026-01-30", "2026-01-30T22:00:00", is_history=True, **PLANTED)
        work.run(ingest_records.main, delivery=job.delivery_from(work, delivery, is_history=False))
        work.run(standardise_records.main)
        check_quality.check(work)
        yield folder


def checks(spark, folder):
    lake = open_at(spark, folder, AS_OF).lake
    return lake.read("gold.data_quality").collect()


def test_each_planted_fault_is_found_once_and_nothing_else(planted, spark):
    found = {
        (row.rule, row["column"], row.kind or row.concept): (row.num_rows, row.num_failed)
        for row in checks(spark, planted)
        if row.num_failed and row.category != "Completeness"
    }
    assert found == {
        ("plausibleGender", "concept", "OMOP:198803"): (1, 1),
        ("plausibleBeforeDeath", "event_at", "condition"): (2, 1),
        ("withinVisitDates", "event_at", "condition"): (2, 1),
        ("isForeignKey", "encounter_id", "condition"): (3, 1),
        ("plausibleValueLow", "value", "OMOP:3004501"): (3, 1),
        ("plausibleUnitConceptIds", "unit", "OMOP:3004501"): (4, 1),
        ("fkDomain", "concept", "measurement"): (4, 4),
    }


def test_what_is_missing_is_counted_per_patient_and_per_row(planted, spark):
    found = {
        (row.rule, row.table, row["column"], row.kind): (row.num_rows, row.num_failed, row.status)
        for row in checks(spark, planted)
    }
    assert found["standardConceptRecordCompleteness", "silver.event", "concept", "condition"] == (6, 1, "fail")
    assert found["measureValueCompleteness", "silver.event", "encounter_id", "condition"] == (6, 3, "pass")
    assert found["measurePersonCompleteness", "silver.observation_period", "patient_id", None] == (2, 1, "fail")
    assert found["measurePersonCompleteness", "silver.event", "patient_id", "procedure"] == (2, 2, "fail")
    assert found["withinVisitDates", "silver.event", "event_at", "procedure"] == (0, 0, "not_applicable")


def test_new_thresholds_are_judged_without_reading_silver(planted, spark, tmp_path):
    for name in ("lake", "lake-phi"):
        shutil.copytree(planted / name, tmp_path / name)
    shutil.rmtree(tmp_path / "lake" / "silver")
    quality = {"thresholds": [{"rule": "plausibleGender", "percent": 100}]}
    work = open_at(spark, tmp_path, AS_OF, quality=quality)
    assert [work.run(step)[0].status for step in (count_quality.main, check_quality.judge)] == ["skipped", "done"]
    before, after = ({row.check_id: row for row in checks(spark, folder)} for folder in (planted, tmp_path))
    changed = {
        name: (before[name].status, row.status) for name, row in after.items() if row.status != before[name].status
    }
    assert changed == {"plausibleGender silver.event.concept OMOP:198803": ("fail", "pass")}


def test_the_same_check_again_is_skipped(planted, spark):
    work = open_at(spark, planted, AS_OF)
    assert [work.run(step)[0].status for step in (count_quality.main, check_quality.judge)] == ["skipped"] * 2


def test_a_threshold_for_an_unknown_rule_stops_the_judgement(planted, spark, tmp_path):
    for name in ("lake", "lake-phi"):
        shutil.copytree(planted / name, tmp_path / name)
    work = open_at(spark, tmp_path, AS_OF, quality={"thresholds": [{"rule": "plausibleSex", "percent": 1}]})
    with pytest.raises(UsageError, match="UNKNOWN_RULE: .* no check has rule plausibleSex"):
        work.run(check_quality.judge)


def test_an_engineer_asks_for_the_failing_checks_by_name(planted, spark):
    query = "select table, column, num_failed from gold.current_quality where status = 'fail' and rule = 'fkDomain'"
    catalog.register(open_at(spark, planted, AS_OF).lake, show.named_in(query))
    assert [tuple(row) for row in spark.sql(query).collect()] == [("silver.event", "concept", 4)]


def test_the_result_names_failing_checks_first_and_is_short(capsys):
    def row(status, share, column):
        names = dict(rule="isForeignKey", table="silver.event", column=column, kind="drug", concept=None, unit=None)
        numbers = dict(num_rows=1000, num_failed=int(share * 10), share=share, threshold=5.0)
        return Row(check_id=column, status=status, **names, **numbers)

    passing = [row("pass", 4.0, f"b{number}") for number in range(30)]
    check_quality.told([*passing, row("pass", 0.0, "clean"), row("fail", 6.5, "a1"), row("fail", 50.0, "a2")])
    first, header, *lines = capsys.readouterr().out.splitlines()
    assert first == "  33 checks: 2 fail, 31 pass, 0 not_applicable"
    assert header.split() == list(check_quality.COLUMNS)
    assert lines[0].split() == ["fail", "isForeignKey", "silver.event.a2", "drug", "1,000", "500", "50.00", "5"]
    assert [line.split()[2] for line in lines[1:3]] == ["silver.event.a1", "silver.event.b0"]
    assert len(lines) == check_quality.NUM_LINES


def test_of_the_planted_dirt_of_a_simulated_hospital_nothing_is_left_in_silver(after_second_night, spark, tmp_path):
    """Refused rows and failing rows of silver together are the planted ones; other units are all converted."""
    hospital = after_second_night.copy_to(tmp_path)
    work = hospital.workplace(spark, hospital.as_ofs[-1])
    check_quality.check(work)
    planted = json.loads((hospital.hospital / "truth" / "dirt.json").read_text()).values()
    total = {kind: sum(kinds.get(kind, 0) for kinds in planted) for kind in {k for kinds in planted for k in kinds}}
    lake = work.lake.for_run("")
    codes = lake.read("phi.quarantine").select(F.explode("reasons").alias("code")).groupBy("code").count().collect()
    refused = {row.code: row["count"] for row in codes}
    found = [
        (row.rule, row["column"], row.num_rows, row.num_failed) for row in lake.read("gold.data_quality").collect()
    ]

    def failed(rule, *columns):
        return sum(number for name, column, _, number in found if name == rule and column in columns)

    dates = ("started_at", "start_date", "event_at")
    assert refused["UNKNOWN_PATIENT"] + failed("isForeignKey", "patient_id") == total["orphan"] > 0
    assert refused["BEFORE_BIRTH"] + failed("plausibleAfterBirth", *dates) == total["before_birth"] > 0
    assert refused["BAD_DATE"] + failed("isRequired", *dates) == total["bad_date"] > 0
    assert refused["OUT_OF_RANGE"] + failed("plausibleValueHigh", "value") == total["out_of_range"] > 0
    assert total["exact_duplicate"] > 0 and failed("isPrimaryKey", "event_id", "encounter_id", "period_id") == 0
    measured = lake.read("silver.event", hospital.as_ofs[-1]).where("kind = 'measurement'").count()
    asked = sum(rows for rule, _, rows, _ in found if rule == "plausibleUnitConceptIds")
    assert total["unit_mix"] > 0 and (asked, failed("plausibleUnitConceptIds", "unit")) == (measured, 0)
