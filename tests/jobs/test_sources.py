"""Real sets of every format, read in place: each row accepted, quarantined with its reason, or a copy."""

import tarfile

import pytest
from pyspark.sql import functions as F

from medpipe import job
from medpipe.jobs import ingest_records, standardise_records
from tests.deliveries import KEY
from tests.jobs.conftest import open_at

# folder -> source, as_of, rows delivered (as its README counts them), accepted, quarantined, copies, reasons.
SETS = {
    "ehr_fhir_bulk": ("fhir", "2026-01-31", 5_772, 5_772, 0, 0, {}),
    "ehr_synthea_csv": ("synthea", "2026-01-31", 3_165, 3_165, 0, 0, {}),
    "ehr_mimic3_demo": ("mimic3", "2300-01-01", 12_894, 12_855, 39, 0, {"END_BEFORE_START": 39}),
}
# Of the vocabulary that a hospital would export: height, and what somebody who never smoked answers.
CONCEPTS = """concept_id,vocabulary_id,standard_concept,concept_code
3036277,LOINC,S,8302-2
4144272,SNOMED,S,266919005
"""
RELATIONS = "concept_id_1,concept_id_2,relationship_id,invalid_reason\n"


def taken(spark, tmp_path, monkeypatch, folder, source, as_of, **more):
    """The workplace after a set was ingested and standardised."""
    monkeypatch.setenv("MEDPIPE_PSEUDONYM_KEY", KEY)
    work = open_at(spark, tmp_path, as_of, thresholds={source: {"max_bad_ratio": 1.0}}, **more)
    work.run(ingest_records.main, delivery=job.delivery_from(work, folder, is_history=True, source=source))
    work.run(standardise_records.main)
    return work


def fates(work):
    """Rows delivered, accepted, quarantined and copies."""
    entry = work.ledger.entries[-1]
    return [entry.rows_in, entry.rows_out, entry.rows_quarantined, entry.rows_duplicate]


@pytest.mark.parametrize("folder", SETS)
def test_every_row_of_a_real_set_is_accounted_for(spark, shared_data, tmp_path, monkeypatch, folder):
    source, as_of, *counts, reasons = SETS[folder]
    work = taken(spark, tmp_path, monkeypatch, shared_data / folder, source, as_of)
    refused = work.lake.for_run("").read("phi.quarantine")
    codes = refused.select(F.explode("reasons").alias("code")).groupBy("code").count().collect()
    assert {row.code: row["count"] for row in codes} == reasons
    assert fates(work) == counts


def test_with_a_vocabulary_codes_become_standard_concepts_and_those_it_lacks_are_counted(
    spark, shared_data, tmp_path, monkeypatch
):
    own = tmp_path / "vocabulary"
    own.mkdir()
    (own / "CONCEPT.csv").write_text(CONCEPTS)
    (own / "CONCEPT_RELATIONSHIP.csv").write_text(RELATIONS)
    set_ = shared_data / "ehr_fhir_bundles"
    work = taken(spark, tmp_path, monkeypatch, set_, "fhir", "2026-01-31", vocabulary=str(own))
    assert fates(work) == [1_400, 1_400, 0, 0]
    lake = work.lake.for_run("")
    events = lake.read("silver.event")
    heights = events.where("source_concept = 'LOINC:8302-2'").select("concept", "unit").distinct().collect()
    assert [tuple(row) for row in heights] == [("OMOP:3036277", "cm")]
    assert events.where("answer = 'OMOP:4144272'").count() > 0
    gaps = lake.read("ops.data_gap").where("gap = 'UNKNOWN_CODE LOINC'").groupBy().sum("num_rows").first()[0]
    assert gaps == events.where("concept like 'LOINC:%'").count() > 0


def test_stays_of_physionet_are_told_by_their_files(spark, shared_data, tmp_path, monkeypatch):
    delivery, stays = tmp_path / "delivery", ("132539", "132540", "132541")
    outcomes = (shared_data / "icu_physionet2012" / "Outcomes-a.txt").read_text().splitlines()
    with tarfile.open(shared_data / "icu_physionet2012" / "set-a.tar.xz") as archive:
        archive.extractall(delivery, [archive.getmember(f"set-a/{stay}.txt") for stay in stays], filter="data")
    (delivery / "Outcomes-a.txt").write_text("\n".join(outcomes[:4]) + "\n")
    num_rows = sum(len(file.read_text().splitlines()) - 1 for file in delivery.rglob("1*.txt")) + 3
    work = taken(spark, tmp_path, monkeypatch, delivery, "physionet2012", "2026-01-31")
    assert fates(work) == [num_rows, num_rows, 0, 0]
    lake = work.lake.for_run("")
    assert lake.read("silver.patient").count() == lake.read("silver.encounter").count() == 3
    sexes = {row.sex: row["count"] for row in lake.read("silver.patient").groupBy("sex").count().collect()}
    assert sexes == {"female": 2, "male": 1}
    # Height and weight of the first stay are -1: not known.
    unknown = lake.read("silver.event").where("concept = 'PhysioNet2012:Height' and value is null")
    assert unknown.count() == 2
