"""Take a patient out of every table, bronze to gold, and keep later deliveries from bringing them back.

For key holders. Older versions of the tables hold the rows for seven days more, or until --vacuum. What a model learnt
of the patient stays in its weights.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from medpipe import command, contracts, job, ledger
from medpipe.ingest import drift
from medpipe.ingest.manifest import IMAGES, MOLECULES
from medpipe.mappings import mapping
from medpipe.privacy.disclosure import MODES, NAMESPACE, purpose
from medpipe.privacy.pseudonyms import DICOM_PATIENT, pseudonym, pseudonymiser
from medpipe.standardise import values
from medpipe.standardise.forgotten import of_patients
from medpipe.standardise.image_rows import canonical_id
from medpipe.tables import Lake, Written

# Every column that holds a patient's pseudonym.
PATIENT_COLUMNS = ("patient_id", "other_patient_id", "row_id")
# Every column that holds an image's.
IMAGE_COLUMNS = ("image_id", "row_id")
# Who looked up whom, and who must not come back, outlast the patient.
KEPT = ("phi.audit", "phi.suppression")
# What names a delivered row in the tables that hold it.
RECORD = ("source", "delivery_id", "source_table", "record_hash", "occurrence")
OF_RECORDS = ("bronze.record", "phi.fate", "phi.quarantine")


def main(argv: list[str] | None = None) -> int:
    parser = command.arguments("erase_patient", __doc__)
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--patient-id", help="the pseudonym, as in silver.patient")
    who.add_argument("--person-file", help="a file with the hospital's own id of the patient and nothing else")
    parser.add_argument("--purpose", required=True, help="why; stands in phi.suppression")
    parser.add_argument("--vacuum", action="store_true", help="remove the files of older versions as well")
    return job.main("erase_patient", parser, argv, started)


def started(work: job.Workplace, args: argparse.Namespace) -> None:
    if args.patient_id is not None:
        erase(work, [args.patient_id], args.purpose, args.vacuum)
        return
    with open(args.person_file, encoding="utf-8") as file:
        person_id = file.read()
    # Names of columns are kept in lower case.
    erase(work, pseudonyms_of(work, person_id), args.purpose, args.vacuum, pseudonyms_of(work, person_id.lower()))


def pseudonyms_of(work: job.Workplace, person_id: str) -> list[str]:
    """Of the hospital's own id, as formats with whole numbers spell it (007 is 7) and as those with texts do.

    It counts as the PatientID of DICOM objects too: rather an image too many goes than too few.
    """
    secret, text = work.key(None).subkey("pseudonym"), person_id.strip()
    spellings = sorted({text, canonical_id(text) or text})
    spaces = (work.settings.privacy.patient_namespace, DICOM_PATIENT)
    return [pseudonym(secret, space, spelling) for space in spaces for spelling in spellings]


def erase(
    work: job.Workplace,
    patient_ids: list[str],
    purpose: str,
    is_vacuumed: bool = False,
    column_ids: Sequence[str] = (),
) -> None:
    """Takes the patient out and prints of how many tables how many rows; again it finds none and is as good.

    Args:
        patient_ids: pseudonyms, all of one patient.
        column_ids: further ones, of the id as names of columns spell it.

    Cost: one pseudonym for every person delivered so far, and each table that holds the patient is read.
    """
    at = datetime.now(UTC)
    lake = work.lake.for_run(ledger.digest([str(at), *patient_ids])[:16])
    # First, so that no delivery of the meantime brings the patient back.
    columns = "patient_id string, suppressed_at timestamp, actor string, purpose string"
    rows = [(patient_id, at, job.actor(), purpose) for patient_id in patient_ids]
    lake.append(lake.spark.createDataFrame(rows, columns), "phi.suppression")
    patient = lake.spark.createDataFrame([(patient_id,) for patient_id in patient_ids], "patient_id string")
    images = lake.read("silver.image").join(patient, on="patient_id", how="left_semi").select("image_id").persist()
    records = delivered(work, lake, patient).unionByName(pictured(work, lake, patient, images)).persist()
    whose = published(work, lake, patient_ids)
    done = [lake.erase(name, records) for name in OF_RECORDS if lake.exists(name)]
    if lake.exists("bronze.image"):
        done.append(lake.erase("bronze.image", records.drop("source_table")))
    if lake.exists("phi.schema_drift"):
        done.append(lake.erase("phi.schema_drift", columns_named(work, lake, [*patient_ids, *column_ids])))
    for name in contracts.names():
        contract = contracts.load(name)
        if name in KEPT or contract.view is not None or not lake.exists(name):
            continue
        ids = whose.get(name.split(".")[0], patient)
        for column in sorted(set(PATIENT_COLUMNS) & set(contract.struct.names)):
            done.append(lake.erase(name, ids.withColumnsRenamed({"patient_id": column})))
        for column in sorted(set(IMAGE_COLUMNS) & set(contract.struct.names)):
            done.append(lake.erase(name, images.withColumnsRenamed({"image_id": column})))
    lake.remove_copies()
    if is_vacuumed:
        for name in sorted({written.table for written in done}):
            lake.vacuum_now(name)
    prove(lake, at, done, is_vacuumed)


def delivered(work: job.Workplace, lake: Lake, patient: DataFrame) -> DataFrame:
    """RECORD of every delivered row of `forgotten.of_patients`, its parts' fates included."""
    hide = pseudonymiser(work.key(None).subkey("pseudonym"), work.settings.privacy.patient_namespace)
    bronze = lake.read("bronze.record").where(F.col("source") != MOLECULES)
    found = [lake.read("phi.fate").limit(0).select(*RECORD)]
    for row in bronze.select("source").distinct().collect():
        meant = mapping.load(row.source, work.settings.mappings)
        names = F.from_json(F.lit(json.dumps(meant.source_tables(), sort_keys=True)), "map<string, array<string>>")
        records = bronze.where(F.col("source") == row.source)
        rows = of_patients(records, meant, hide, patient)
        found.append(rows.withColumn("source_table", F.explode(names[F.col("source_table")])).select(*RECORD))
    return reduce(DataFrame.unionByName, found).distinct()


def columns_named(work: job.Workplace, lake: Lake, patient_ids: list[str]) -> DataFrame:
    """The names of unknown columns in phi.schema_drift that are the patient's id or have it for a part."""
    hide = pseudonymiser(work.key(None).subkey("pseudonym"), work.settings.privacy.patient_namespace)
    patient = lake.spark.createDataFrame([(patient_id,) for patient_id in patient_ids], "patient_id string")
    return drift.named_after(lake.read("phi.schema_drift"), lambda part: hide(values.any_id(part)), patient)


def pictured(work: job.Workplace, lake: Lake, patient: DataFrame, images: DataFrame) -> DataFrame:
    """RECORD of every row of bronze.image that its manifest gives to the patient, whose image is one of `images`, or
    that stands in quarantine as the patient's.
    """
    secret = work.key(None).subkey("pseudonym")
    hide, hide_image = (
        pseudonymiser(secret, space) for space in (work.settings.privacy.patient_namespace, f"{IMAGES}/record")
    )
    rows = lake.read("bronze.image").withColumn("source_table", F.lit("image"))
    named = rows.withColumns(
        {
            "patient_id": hide(values.any_id(F.col("fields")["patient_id"])),
            # As image_rows.told names an image that has its file for itself.
            "image_id": hide_image(F.concat_ws("\0", "file", F.lit("0"), "sha256")),
        }
    )
    told = named.join(patient, on="patient_id", how="left_semi").select(*RECORD)
    accepted = named.join(images, on="image_id", how="left_semi").select(*RECORD)
    refused = lake.read("phi.quarantine", where={"source": IMAGES}).join(patient, on="patient_id", how="left_semi")
    # An exact copy has no row there.
    refused = named.join(refused, on=["source", "delivery_id", "record_hash"], how="left_semi").select(*RECORD)
    return told.unionByName(accepted).unionByName(refused).distinct()


def published(work: job.Workplace, lake: Lake, patient_ids: list[str]) -> dict[str, DataFrame]:
    """Mode -> patient_id, under which the patient stands in its tables."""
    key = work.key(None)
    return {
        mode: lake.spark.createDataFrame(
            [(pseudonym(key.subkey(purpose(mode)), NAMESPACE, patient_id),) for patient_id in patient_ids],
            "patient_id string",
        )
        for mode in MODES
    }


def prove(lake: Lake, at: datetime, done: list[Written], is_vacuumed: bool) -> None:
    rows = [(at, written.table, written.version, written.num_rows, is_vacuumed) for written in done if written.num_rows]
    columns = "erased_at timestamp, table string, version long, num_rows long, is_vacuumed boolean"
    lake.append(lake.spark.createDataFrame(rows, columns), "ops.erasure")
    for _, table, _, num_rows, _ in rows:
        print(f"  {table:<28} {num_rows:>9,} rows")
    told = "ops.erasure tells how many rows of each, and nothing of whom"
    print(f"  erased from {len(rows)} tables; {told}" if rows else "  nobody of that id or pseudonym was in the lake")


if __name__ == "__main__":
    sys.exit(main())
