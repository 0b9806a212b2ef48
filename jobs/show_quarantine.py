"""What stands in quarantine: how many rows for which reasons; with --purpose, for key holders, the rows themselves."""

import argparse
import json
import sys

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from medpipe import command, job
from medpipe.jobs.reidentify_patient import audit
from medpipe.privacy.sealing import NUM_KEY_BYTES, unseal


def main(argv: list[str] | None = None) -> int:
    parser = command.arguments("show_quarantine", __doc__)
    parser.add_argument("--delivery-id", help="only of this delivery")
    parser.add_argument("--reason", help="only rows that have this reason, e.g. BAD_DATE")
    parser.add_argument("--purpose", help="why the rows are looked at; stands in phi.audit")
    parser.add_argument("--rows", type=int, default=20, help="rows to show; default 20")
    return job.main("show_quarantine", parser, argv, show)


def show(work: job.Workplace, args: argparse.Namespace) -> None:
    """Prints counts, or rows as JSON, one a line.

    Raises:
        UsageError: OTHER_KEY and its kin, before a row is read.
    """
    rows = work.lake.read("phi.quarantine")
    if args.delivery_id:
        rows = rows.where(F.col("delivery_id") == args.delivery_id)
    if args.reason:
        rows = rows.where(F.array_contains("reasons", args.reason))
    if args.purpose is None:
        counts(rows)
    else:
        unsealed(work, rows.orderBy("delivery_id", "source_table", "record_hash").limit(args.rows), args)


def counts(rows: DataFrame) -> None:
    named = rows.select("source", "delivery_id", "source_table", F.explode("reasons").alias("reason"))
    for row in named.groupBy(*named.columns).count().orderBy(*named.columns).collect():
        print(f"{row.source} {row.delivery_id} {row.source_table:<24} {row.reason:<24} {row['count']:>9,}")


def unsealed(work: job.Workplace, rows: DataFrame, args: argparse.Namespace) -> None:
    secret = work.key(None).subkey("quarantine", NUM_KEY_BYTES)
    found = rows.collect()
    audit(work, f"quarantine {args.delivery_id or 'of all deliveries'}", args.purpose, bool(found))
    for row in found:
        told = {"delivery_id": row.delivery_id, "source_table": row.source_table, "file": row.file}
        print(json.dumps(told | {"reasons": row.reasons} | json.loads(unseal(secret, row.raw)), ensure_ascii=False))


if __name__ == "__main__":
    sys.exit(main())
