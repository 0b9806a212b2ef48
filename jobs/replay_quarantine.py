"""Give quarantined rows another chance: those with a reason that has gone become a delivery of their own.

For rows that waited for something, e.g. UNKNOWN_PATIENT for a patient who has come since. `standardise_records` judges
the delivery like any other; what is refused again stays in quarantine. A mended mapping, setting or version of medpipe
needs no replay: standardise_records sees that they changed and judges each delivery anew.
"""

import sys
from datetime import timedelta
from zoneinfo import ZoneInfo

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from medpipe import command, job, ledger
from medpipe.errors import UsageError
from medpipe.ingest.manifest import Delivery
from medpipe.ingest.records import columns_of
from medpipe.quality.judgement import NAME
from medpipe.tables import Lake

REASON = job.Option("reason", "rows that have this reason and no other, e.g. UNKNOWN_PATIENT")


def main(argv: list[str] | None = None) -> int:
    parser = command.arguments("replay_quarantine", __doc__)
    parser.add_argument("--source", default="omop", help="outside format of their deliveries (default: omop)")
    parser.add_argument(f"--{REASON.name}", required=True, help=REASON.help)
    return job.main(
        "replay_quarantine", parser, argv, lambda work, args: job.announce(replay(work, args.source, args.reason))
    )


def replay(work: job.Workplace, source: str, reason: str) -> list[job.Outcome]:
    """Puts the rows into bronze as a delivery of the last second before as_of; again the same rows are the same one."""
    if work.as_of is None:
        raise UsageError("NO_AS_OF", "a replay is a delivery of a logical date; pass --as-of YYYY-MM-DD")
    rows = waiting(work.lake.for_run(""), source, reason)
    content = rows.agg(F.bit_xor(F.xxhash64(*NAME)), F.count("*")).first()
    known_at = work.lake.midnight(work.as_of) - timedelta(seconds=1)
    day = known_at.astimezone(ZoneInfo(work.lake.timezone))
    delivery_id = f"{day:%Y-%m-%d}-{ledger.digest([source, reason, *content])[:8]}"
    print(f"  {content[1]} rows wait with {reason}; delivery {delivery_id} for standardise_records")
    return (
        work.run(store, delivery=Delivery(source, delivery_id, known_at, False, ()), reason=reason)
        if content[1]
        else []
    )


@job.step(scope="folder", writes=("bronze.record", "phi.delivery"), options=(REASON,))
def store(run: job.Run) -> None:
    delivery = run.delivery
    rows = waiting(run.lake, delivery.source, run.options["reason"]).withColumns(columns_of(delivery))
    stored = run.lake.replace(rows.drop("is_history", "is_snapshot"), "bronze.record", where=run.partition)
    files = rows.groupBy("file", "source_table").agg(
        F.lit(0).cast("long").alias("num_bytes"), F.lit("").alias("sha256")
    )
    # Last, so that a delivery that is listed is complete.
    run.lake.replace(files.withColumns(columns_of(delivery)), "phi.delivery", where=run.partition)
    run.counts |= {"rows_in": stored.num_rows, "rows_out": stored.num_rows}


def waiting(lake: Lake, source: str, reason: str) -> DataFrame:
    """Rows of bronze whose only reason is the one asked for and that no delivery has had accepted."""
    here = {"source": source}
    refused = lake.read("phi.quarantine", where=here).where(F.col("reasons") == F.array(F.lit(reason)))
    accepted = lake.read("phi.fate", where=here).where("fate = 'accepted'").select("source_table", "record_hash")
    still = refused.join(accepted, on=["source_table", "record_hash"], how="left_anti")
    # A row that gives several is delivered again as a whole.
    names = still.select("delivery_id", *NAME).withColumn(
        "source_table", F.split_part("source_table", F.lit("."), F.lit(1))
    )
    rows = lake.read("bronze.record", where=here).join(names.distinct(), on=["delivery_id", *NAME], how="left_semi")
    return rows.drop("run_id").dropDuplicates(list(NAME))


if __name__ == "__main__":
    sys.exit(main())
