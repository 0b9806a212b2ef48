"""Store a delivery of molecules (SMILES, with or without measurements) in bronze, and what it says in silver.

One row of silver.molecule for each structure, one of silver.assay_result for each structure and assay; bad rows go to
quarantine. What columns mean is told by molecules.toml in the delivery, or by --mapping.
"""

import hashlib
import sys
from pathlib import Path

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.storagelevel import StorageLevel

from medpipe import command, contracts, job, log
from medpipe.errors import DataError
from medpipe.ingest.manifest import MOLECULES, Delivery
from medpipe.ingest.molecules import molecule_files, records
from medpipe.ingest.records import listed
from medpipe.molecules import mapping
from medpipe.privacy.sealing import NUM_KEY_BYTES, sealer
from medpipe.quality import balance, thresholds
from medpipe.standardise.molecules import NAME, PARTITION_ROWS, assay_results, judged, typed

MAPPING = job.Option(
    "mapping",
    f"what columns mean: a TOML file, or {' or '.join(mapping.SHIPPED)}; default: {mapping.NAME} in the delivery",
    "delivery",
)


def _mapping_digest(work: job.Workplace, options: dict) -> dict:
    """A mapping that is not delivered is an input of its own."""
    given = options["mapping"]
    return {} if given == "delivery" else {"mapping": hashlib.sha256(mapping.text_of(given, None).encode()).hexdigest()}


@job.step(
    scope="folder",
    writes=("bronze.record", "phi.delivery", "phi.fate", "phi.quarantine", "silver.molecule", "silver.assay_result"),
    settings=("thresholds",),
    options=(MAPPING,),
    needs_key=True,
    extra=_mapping_digest,
)
def ingest(run: job.Run) -> None:
    lake, own, delivery = run.lake, run.partition, run.delivery
    files = molecule_files(delivery, mapping.parse(mapping.text_of(run.options["mapping"], own_mapping(delivery))))
    lake.replace(records(lake.spark, delivery, files), "bronze.record", where=own)
    tables = {file.name: file.source_table for file in files}
    lake.replace(listed(lake.spark, delivery, lambda file: tables.get(file.name)), "phi.delivery", where=own)
    num_delivered = lake.count("bronze.record", own)
    received = lake.read("bronze.record", where=own)
    mappings = {file.source_table: file.mapping for file in files}
    rows = typed(received, mappings, 2 + num_delivered // PARTITION_ROWS)
    # Computed once, on the executors' disks: every table is written from it.
    decided = judged(rows).persist(StorageLevel.DISK_ONLY)

    # The PHI zone first: nothing is published of a delivery that is too bad.
    origin = {"source": F.lit(delivery.source), "delivery_id": F.lit(delivery.delivery_id)}
    lake.replace(decided.select(*NAME, "fate").withColumns(origin), "phi.fate", where=own)
    quarantined = lake.replace(refused(run, received, decided), "phi.quarantine", where=own)
    counts = balance.counted(*(lake.read(name, where=own) for name in ("phi.fate", "phi.quarantine")))
    thresholds.require(run.settings.thresholds, delivery.source, counts)

    molecules = published(run, decided.where("fate = 'accepted'"), "silver.molecule")
    published(run, assay_results(decided), "silver.assay_result")
    balance.require(num_delivered, counts, quarantined.num_rows, {"silver.molecule": molecules})
    require_measurements(run, decided)
    num_unread = sum(file.name != mapping.NAME for file in delivery.files) - len(files)
    if num_unread:
        log.logger.info("files not read", extra={"run_id": run.run_id, "rows": num_unread, "table": "phi.delivery"})
        print(f"  {num_unread} files hold no molecules and were not read; phi.delivery lists them")
    run.counts |= counts.of_run


def main(argv: list[str] | None = None) -> int:
    parser = command.arguments("ingest_molecules", __doc__)
    parser.add_argument("--delivery", type=Path, required=True, help="folder with the files")
    parser.add_argument(f"--{MAPPING.name}", default=MAPPING.default, help=MAPPING.help)
    return job.main("ingest_molecules", parser, argv, lambda work, args: load(work, args.delivery, args.mapping))


def load(work: job.Workplace, folder: Path, given: str = MAPPING.default) -> list[job.Outcome]:
    """Ingests a folder and says in a few lines what became of its rows."""
    outcomes = work.run(ingest, delivery=job.delivery_from(work, folder, False, MOLECULES), mapping=given)
    job.announce(outcomes)
    last = work.ledger.last("ingest_molecules", outcomes[0].target)
    print(
        f"  {last.rows_in:,} rows delivered: {last.rows_out:,} molecules, {last.rows_duplicate:,} more rows of them, "
        f"{last.rows_quarantined:,} quarantined"
    )
    return outcomes


def own_mapping(delivery: Delivery) -> Path | None:
    """The mapping inside the delivery."""
    return next((file.path for file in delivery.files if file.name == mapping.NAME), None)


def refused(run: job.Run, received: DataFrame, decided: DataFrame) -> DataFrame:
    """phi.quarantine: the quarantined rows as received, sealed."""
    seal = sealer(run.key.subkey("quarantine", NUM_KEY_BYTES))
    bad = decided.where("fate = 'quarantined'").select(*NAME, F.col("faults").alias("reasons"))
    rows = received.join(bad, on=list(NAME), how="inner")
    rows = rows.withColumns(
        {
            "raw": seal(F.to_json(F.struct("fields", "corrupt"))),
            "patient_id": F.lit(None).cast("string"),
            "key_fingerprint": F.lit(run.key.fingerprint),
        }
    )
    return rows.drop("fields", "corrupt", "fault", "known_at", "run_id")


def published(run: job.Run, rows: DataFrame, name: str) -> int:
    """Writes a silver table's rows of this delivery; returns how many."""
    delivery, columns = run.delivery, [c for c in contracts.load(name).struct.names if c != "run_id"]
    lineage = {
        "recorded_at": F.lit(delivery.known_at),
        "known_at": F.lit(delivery.known_at),
        "source": F.lit(delivery.source),
        "delivery_id": F.lit(delivery.delivery_id),
        "is_deleted": F.lit(False),
    }
    return run.lake.replace(rows.withColumns(lineage).select(columns), name, where=run.partition).num_rows


def require_measurements(run: job.Run, decided: DataFrame) -> None:
    """Raises DataError UNBALANCED unless every measurement of a row that is read is in silver, merged or alone."""
    given = decided.where("is_read").agg(F.sum(F.size("results"))).first()[0] or 0
    own = run.lake.history("silver.assay_result").where(F.col("delivery_id") == run.delivery.delivery_id)
    merged = own.agg(F.sum("num_measurements")).first()[0] or 0
    if given != merged:
        raise DataError(
            "UNBALANCED", f"{given} measurements in good rows, {merged} in silver.assay_result; run the step again"
        )


if __name__ == "__main__":
    sys.exit(main())
