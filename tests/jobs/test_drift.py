"""A delivery whose columns changed: what is new stays in bronze and is told, what a row cannot do without stops it."""

import json

import pytest

from medpipe import job
from medpipe.errors import DataError
from medpipe.jobs import ingest_records, standardise_records
from tests.deliveries import KEY
from tests.jobs.conftest import open_at


def test_a_key_in_another_case_stops_the_delivery_and_the_drift_report_names_it(spark, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MEDPIPE_PSEUDONYM_KEY", KEY)
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "delivery.toml").write_text('source = "fhir"\ndelivered_at = 2026-01-30T22:00:00\n')
    patients = [{"resourceType": "Patient", "Id": f"Ann{n}", "birthDate": "1950-01-01"} for n in range(3)]
    (folder / "Patient.ndjson").write_text("\n".join(map(json.dumps, patients)) + "\n")
    strict = open_at(spark, tmp_path, "2026-01-31", thresholds={"fhir": {"max_unknown_columns": 0}})
    strict.run(ingest_records.main, delivery=job.delivery_from(strict, folder, is_history=False))
    assert "6 columns are not named by fhir or missing; phi.schema_drift lists them" in capsys.readouterr().out
    rows = strict.lake.for_run("").read("phi.schema_drift").where("num_rows = 3").collect()
    assert {("Id", "UNKNOWN_COLUMN"), ("id", "MISSING_COLUMN")} <= {(row.column_name, row.drift) for row in rows}
    with pytest.raises(DataError, match="SCHEMA_DRIFT: fhir: 1 columns are not named .* max_unknown_columns 0"):
        strict.run(standardise_records.main)
    work = open_at(spark, tmp_path, "2026-01-31")
    with pytest.raises(
        DataError, match=r"TOO_MANY_BAD_ROWS: fhir: 3 of 3 .*BAD_PATIENT_ID 3.*phi\.schema_drift"
    ) as told:
        work.run(standardise_records.main)
    assert "Ann" not in str(told.value)
