"""Look up the patient behind a pseudonym. For holders of the key; every look-up is written to phi.audit first."""

import sys
from datetime import UTC, datetime

from pyspark.sql import functions as F

from medpipe import command, job, ledger
from medpipe.errors import UsageError
from medpipe.ingest.manifest import MOLECULES
from medpipe.mappings import mapping
from medpipe.privacy.pseudonyms import pseudonymiser
from medpipe.standardise.records import person_ids


def main(argv: list[str] | None = None) -> int:
    parser = command.arguments("reidentify_patient", __doc__)
    parser.add_argument("patient_id", help="the pseudonym, as in silver.patient")
    parser.add_argument("--purpose", required=True, help="why; stands in phi.audit")
    return job.main(
        "reidentify_patient", parser, argv, lambda work, args: reidentify(work, args.patient_id, args.purpose)
    )


def reidentify(work: job.Workplace, patient_id: str, purpose: str) -> None:
    """Prints the hospital's person id of a pseudonym.

    Cost: one pseudonym for every person delivered so far; nothing is kept that turns pseudonyms back.
    Raises:
        UsageError: UNKNOWN_PSEUDONYM; also OTHER_KEY and its kin, before anything is read.
    """
    key = work.key(None)
    hide = pseudonymiser(key.subkey("pseudonym"), work.settings.privacy.patient_namespace)
    bronze = work.lake.read("bronze.record").where(F.col("source") != MOLECULES)
    found = None
    for row in bronze.select("source").distinct().orderBy("source").collect():
        meant = mapping.load(row.source, work.settings.mappings)
        ids = person_ids(bronze.where(F.col("source") == row.source), meant)
        found = found or ids.where(hide(F.col("person_id")) == F.lit(patient_id)).first()
    audit(work, patient_id, purpose, found is not None)
    if found is None:
        raise UsageError("UNKNOWN_PSEUDONYM", "no delivered person has this pseudonym under this key")
    print(found.person_id)


def audit(work: job.Workplace, patient_id: str, purpose: str, was_found: bool) -> None:
    at = datetime.now(UTC)
    row = (at, job.actor(), patient_id, purpose, was_found)
    columns = "looked_up_at timestamp, actor string, patient_id string, purpose string, was_found boolean"
    lake = work.lake.for_run(ledger.digest([str(part) for part in row])[:16])
    lake.append(lake.spark.createDataFrame([row], columns), "phi.audit")


if __name__ == "__main__":
    sys.exit(main())
