"""Real sets of every format, read in place: each row accepted, quarantined with its reason, or a copy."""

import pytest
from pyspark.sql import functions as F

from medpipe import job
from medpipe.jobs import ingest_records, standardise_records
from tests.deliveries import KEY
from tests.jobs.conftest import open_at

# folder -> source, as_of, rows delivered (as its README counts them), accepted, quarantined, copies, reasons.
SETS = {
    "ehr_fhir_bulk": ("fhir", "2026-01-31", 5_772, 5_772, 0, 0, {}),
    "ehr_fhir_bundles": ("fhir", "2026-01-31", 1_400, 1_400, 0, 0, {}),
    "ehr_synthea_csv": ("synthea", "2026-01-31", 3_165, 3_165, 0, 0, {}),
    "ehr_mimic3_demo": ("mimic3", "2300-01-01", 12_894, 12_855, 39, 0, {"END_BEFORE_START": 39}),
}


@pytest.mark.parametrize("folder", SETS)
def test_every_row_of_a_real_set_is_accounted_for(spark, shared_data, tmp_path, monkeypatch, folder):
    source, as_of, *counts, reasons = SETS[folder]
    monkeypatch.setenv("MEDPIPE_PSEUDONYM_KEY", KEY)
    work = open_at(spark, tmp_path, as_of, thresholds={source: {"max_bad_ratio": 1.0}})
    delivery = job.delivery_from(work, shared_data / folder, is_history=True, source=source)
    work.run(ingest_records.main, delivery=delivery)
    work.run(standardise_records.main)
    entry, lake = work.ledger.entries[-1], work.lake.for_run("")
    codes = lake.read("phi.quarantine").select(F.explode("reasons").alias("code")).groupBy("code").count().collect()
    assert {row.code: row["count"] for row in codes} == reasons
    assert [entry.rows_in, entry.rows_out, entry.rows_quarantined, entry.rows_duplicate] == counts
