"""Store a delivery of patients' records in bronze, exactly as received: OMOP, FHIR, Synthea, MIMIC, eICU or mapped."""

import sys

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from medpipe import job, log
from medpipe.errors import DataError
from medpipe.ingest import drift, records
from medpipe.ingest.manifest import damaged
from medpipe.mappings import mapping
from medpipe.mappings.mapping import Mapping
from medpipe.privacy.pseudonyms import pseudonymiser
from medpipe.quality.judgement import NAME
from medpipe.standardise import values
from medpipe.standardise.forgotten import of_patients


@job.step(
    scope="folder",
    writes=("bronze.record", "phi.schema_drift", "phi.delivery"),
    extra=lambda work, _: {"mappings": mapping.digest(work.settings.mappings)},
)
def main(run: job.Run) -> None:
    lake, delivery = run.lake, run.delivery
    known = mapping.load(delivery.source, run.settings.mappings)
    rows = records.records(lake.spark, delivery, known)
    erased = of_erased(run, rows, known)
    kept = rows if erased is None else rows.join(erased, on=list(NAME), how="left_anti")
    try:
        stored = lake.replace(kept, "bronze.record", where=run.partition)
    except (PySparkException, Py4JJavaError):
        if name := damaged(delivery.files):
            told = f"{name} of {delivery.delivery_id} is no whole gzip file"
            raise DataError("TRUNCATED_FILE", f"{told}; nothing was stored: ask for it again") from None
        raise
    require_rows(run, erased)
    tell_drift(run, known)
    listed = records.listed(lake.spark, delivery, lambda file: records.table_of(file, known))
    # Last, so that a delivery that is listed is complete.
    lake.replace(listed, "phi.delivery", where=run.partition)
    tell_unread(run, known)
    run.counts |= {"rows_in": stored.num_rows + (erased.count() if erased else 0), "rows_out": stored.num_rows}


def of_erased(run: job.Run, rows: DataFrame, known: Mapping) -> DataFrame | None:
    """NAME and file of the rows that name a patient who was erased, or are there for such rows alone; None for nobody.

    They are not stored again.
    """
    if not run.lake.exists("phi.suppression"):
        return None
    hide = pseudonymiser(run.key.subkey("pseudonym"), run.settings.privacy.patient_namespace)
    erased = run.lake.read("phi.suppression").select("patient_id")
    return of_patients(rows, known, hide, erased).select(*NAME, "file").distinct()


def require_rows(run: job.Run, erased: DataFrame | None) -> None:
    """Raises DataError MANIFEST_MISMATCH where a file holds another number of rows than its manifest says."""
    told = {file.name: file.num_rows for file in run.delivery.files if file.num_rows is not None}
    if not told:
        return
    held = run.lake.read("bronze.record", where=run.partition).select("file")
    held = held if erased is None else held.unionByName(erased.select("file"))
    found = {row.file: row["count"] for row in held.groupBy("file").count().collect()}
    numbers = {name: (found.get(name, 0), num_rows) for name, num_rows in told.items()}
    wrong = [f"{name} has {one} rows, listed are {other}" for name, (one, other) in numbers.items() if one != other]
    if wrong:
        raise DataError("MANIFEST_MISMATCH", f"{'; '.join(wrong)}; ask for the delivery again")


def tell_drift(run: job.Run, known: Mapping) -> None:
    """phi.schema_drift, and a line that counts it; names of columns are not said, they may be a patient's."""
    found = drift.drift(run.lake.read("bronze.record", where=run.partition), known)
    if run.lake.exists("phi.suppression"):
        hide = pseudonymiser(run.key.subkey("pseudonym"), run.settings.privacy.patient_namespace)
        erased = run.lake.read("phi.suppression").select("patient_id")
        theirs = drift.named_after(found, lambda part: hide(values.any_id(part)), erased)
        found = found.join(theirs, on="column_name", how="left_anti")
    origin = {column: F.lit(value) for column, value in run.partition.items()}
    num_columns = run.lake.replace(found.withColumns(origin), "phi.schema_drift", where=run.partition).num_rows
    if num_columns:
        print(f"  {num_columns} columns are not named by {known.name} or missing; phi.schema_drift lists them")


def tell_unread(run: job.Run, known: Mapping) -> None:
    num_unread = sum(not records.is_read(file, known) for file in run.delivery.files)
    if num_unread:
        log.logger.info("files not read", extra={"run_id": run.run_id, "rows": num_unread, "table": "phi.delivery"})
        told = f"{num_unread} files are named like no table of {known.name} and were not read"
        print(f"  {told}; phi.delivery lists them")


if __name__ == "__main__":
    sys.exit(main())
