"""Store an OMOP CDM delivery in bronze, exactly as received."""

import sys

from medpipe import job, log
from medpipe.errors import DataError
from medpipe.ingest import omop


@job.step(scope="folder", writes=("bronze.record", "phi.delivery"))
def main(run: job.Run) -> None:
    delivery = run.delivery
    if delivery.source != "omop":
        raise DataError(
            "UNKNOWN_SOURCE", f"{delivery.delivery_id} says source {delivery.source!r}; this job reads 'omop'"
        )
    stored = run.lake.replace(omop.records(run.lake.spark, delivery), "bronze.record", where=run.partition)
    columns = "file string, source_table string, num_bytes long, sha256 string"
    files = [(file.name, omop.table_of(file), file.num_bytes, file.sha256) for file in delivery.files]
    listed = run.lake.spark.createDataFrame(files, columns)
    # Last, so that a delivery that is listed is complete.
    run.lake.replace(listed.withColumns(omop.columns_of(delivery)), "phi.delivery", where=run.partition)
    num_unread = sum(table is None for _, table, _, _ in files)
    if num_unread:
        log.logger.info("files not read", extra={"run_id": run.run_id, "rows": num_unread, "table": "phi.delivery"})
        print(f"  {num_unread} files are named like no OMOP table and were not read; phi.delivery lists them")
    run.counts |= {"rows_in": stored.num_rows, "rows_out": stored.num_rows}


if __name__ == "__main__":
    sys.exit(main())
