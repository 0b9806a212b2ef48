"""Turn each delivery of records known before --as-of into silver rows without identity; bad rows go to quarantine.

What a delivery names as deleted, or no longer holds though it is a snapshot, is written again as deleted.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.storagelevel import StorageLevel

from medpipe import contracts, job
from medpipe.ingest import vocabulary
from medpipe.ingest.manifest import Delivery
from medpipe.mappings import mapping
from medpipe.mappings.mapping import DELETED, Mapping
from medpipe.privacy.pseudonyms import pseudonymiser
from medpipe.privacy.sealing import NUM_KEY_BYTES, sealer
from medpipe.quality import balance, thresholds
from medpipe.quality.judgement import NAME, gaps, judged
from medpipe.standardise import concepts, units, withdrawals
from medpipe.standardise.records import codes_of, lineage, person_ids, silver_rows

SILVER = ("silver.patient", "silver.encounter", "silver.observation_period", "silver.event", "silver.concept")
PARTITION_ROWS = 65_536
# Of names and reasons, some 200 bytes each.
BROADCAST_ROWS = 100_000


@dataclass(frozen=True)
class Gone:
    """What a delivery takes back.

    Attributes:
        tables: those of silver it is of.
        known: the known records it speaks of, as of `withdrawals.known`.
        gaps: what is to be told of it in ops.data_gap.
        num_rows: records that are withdrawn.
    """

    tables: list[str]
    known: DataFrame
    gaps: DataFrame
    num_rows: int


@job.step(
    scope="deliveries",
    reads={"bronze.record": {"delivery_id": "own"}} | {name: {} for name in withdrawals.RECORD},
    writes=("phi.fate", "phi.quarantine", *SILVER, "ops.data_gap"),
    settings=("thresholds",),
    needs_key=True,
    extra=lambda work, _: {
        "patient_namespace": work.settings.privacy.patient_namespace,
        "mappings": mapping.digest(work.settings.mappings),
        "vocabulary": vocabulary.digest(work.settings.vocabulary),
    },
)
def main(run: job.Run) -> None:
    lake, own = run.lake, run.partition
    meant = mapping.load(own["source"], run.settings.mappings)
    delivered = lake.read("bronze.record", where=own)
    records = delivered.where(F.col("source_table").isin(*meant.required))
    thresholds.require_columns(run.settings.thresholds, own["source"], lambda: num_unknown_columns(run))
    num_of = {row.source_table: row["count"] for row in records.groupBy("source_table").count().collect()}
    num_delivered = sum(num_of.values())
    meant = meant.for_tables(num_of)
    # Two at least: what stands in one partition cannot be joined without another shuffle.
    num_partitions = 2 + num_delivered // PARTITION_ROWS
    standard = standard_concepts(run, meant, records)
    # Computed once, on the executors' disks: every table is written from it.
    rows = typed(records, meant, run.delivery, lake.timezone, standard)
    persons = known_persons(run, meant, records)
    decided = judged(rows, persons, num_partitions).persist(StorageLevel.DISK_ONLY)

    # The PHI zone first: nothing is published of a delivery that is too bad.
    lake.replace(decided.select(*NAME, "fate", "source", "delivery_id"), "phi.fate", where=own)
    quarantined = lake.replace(refused(run, records, decided), "phi.quarantine", where=own)
    judged_rows = (lake.read(name, where=own) for name in ("phi.fate", "phi.quarantine"))
    counts = balance.counted(*judged_rows, meant.only_beside())
    thresholds.require(run.settings.thresholds, own["source"], counts)
    gone = taken_back(run, meant, decided, num_of)

    written = {name: lake.replace(published(run, decided, gone, name), name, where=own).num_rows for name in SILVER}
    events = lake.history("silver.event").where((F.col("delivery_id") == own["delivery_id"]) & ~F.col("is_deleted"))
    missing = gaps(events, earlier(run, "silver.encounter", include_own=True)).unionByName(unread(delivered, meant))
    missing = missing.unionByName(gone.gaps) if gone else missing
    missing = missing if standard is None else missing.unionByName(concepts.gaps(events, standard))
    origin = {"source": F.lit(own["source"]), "delivery_id": F.lit(own["delivery_id"])}
    lake.replace(missing.withColumns(origin), "ops.data_gap", where=own)
    balance.require(num_delivered, counts, quarantined.num_rows, written, gone.num_rows if gone else 0)
    run.counts |= counts.of_run


def num_unknown_columns(run: job.Run) -> int:
    return run.lake.read("phi.schema_drift", where=run.partition).where("drift = 'UNKNOWN_COLUMN'").count()


def standard_concepts(run: job.Run, meant: Mapping, records: DataFrame) -> DataFrame | None:
    """What the hospital's vocabulary says of the delivery's codes; None without a vocabulary."""
    if run.settings.vocabulary is None:
        return None
    return vocabulary.standard_concepts(run.lake.spark, run.settings.vocabulary, codes_of(records, meant)).persist()


def typed(records: DataFrame, meant: Mapping, d: Delivery, zone: str, standard: DataFrame | None = None) -> DataFrame:
    """Every record as the rows of silver it gives, with lineage and what is wrong with each alone."""
    rows = silver_rows(records, meant, zone, units.shipped(), standard)
    rows = rows.withColumns(lineage(d.known_at, d.is_history, d.source, d.delivery_id))
    broken = [F.when(F.col("silver") == name, contracts.violations(name)) for name in SILVER]
    none = F.array().cast("array<string>")
    return rows.withColumn("faults", F.array_union("faults", F.coalesce(*broken, none)))


def known_persons(run: job.Run, meant: Mapping, records: DataFrame) -> DataFrame:
    """person_id (unique), pseudonym, birth_date (null where no earlier delivery had such a patient)."""
    hide = pseudonymiser(run.key.subkey("pseudonym"), run.settings.privacy.patient_namespace)
    ids = person_ids(records, meant).withColumn("pseudonym", hide(F.col("person_id")))
    before = contracts.latest(
        earlier(run, "silver.patient", include_own=False), ("source", "source_table", "patient_id")
    )
    # Several sources may tell of one patient.
    before = before.where(~F.col("is_deleted")).groupBy(F.col("patient_id").alias("pseudonym"))
    before = before.agg(F.max("birth_date").alias("birth_date"))
    return ids.join(before, on="pseudonym", how="left")


def unread(delivered: DataFrame, meant: Mapping) -> DataFrame:
    """What a bundle holds beside the mapping's tables: source_table, gap, num_rows."""
    others = delivered.where(~F.col("source_table").isin(*meant.required))
    counted = others.groupBy("source_table").agg(F.count("*").alias("num_rows"))
    return counted.select("source_table", F.lit("NOT_READ").alias("gap"), "num_rows")


def refused(run: job.Run, records: DataFrame, decided: DataFrame) -> DataFrame:
    """phi.quarantine: the quarantined rows as received, sealed."""
    seal = sealer(run.key.subkey("quarantine", NUM_KEY_BYTES))
    bad = decided.where("fate = 'quarantined'")
    bad = bad.select(*NAME, "reasons", "patient_id", "delivered_table").withColumnRenamed("source_table", "meaning")
    if bad.count() <= BROADCAST_ROWS:
        # Else every record is shuffled for the sake of a few.
        bad = F.broadcast(bad)
    named = records.withColumnRenamed("source_table", "delivered_table")
    rows = named.join(bad, on=["delivered_table", "record_hash", "occurrence"], how="inner")
    rows = rows.withColumns(
        {
            "source_table": F.col("meaning"),
            "raw": seal(F.to_json(F.struct("fields", "corrupt"))),
            "key_fingerprint": F.lit(run.key.fingerprint),
        }
    )
    return rows.drop("fields", "corrupt", "fault", "known_at", "run_id", "meaning", "delivered_table")


def record_pseudonymiser(run: job.Run) -> Callable[[Column], Column]:
    return pseudonymiser(run.key.subkey("pseudonym"), f"{run.partition['source']}/record")


def accepted(run: job.Run, decided: DataFrame, name: str) -> DataFrame:
    """The accepted rows of a silver table, ids of records swapped for pseudonyms."""
    hide = record_pseudonymiser(run)
    columns = [column for column in contracts.load(name).struct.names if column != "run_id"]
    rows = decided.where((F.col("silver") == name) & (F.col("fate") == "accepted")).select(columns)
    for column in sorted({"event_id", "encounter_id", "period_id"} & set(columns)):
        # An event names its visit as the visit names itself.
        silver = F.lit("silver.encounter" if column == "encounter_id" else name)
        rows = rows.withColumn(column, withdrawals.hidden(hide, silver, F.col("source_table"), F.col(column)))
    return rows


def published(run: job.Run, decided: DataFrame, gone: Gone | None, name: str) -> DataFrame:
    """The delivery's rows of a silver table: those it tells, and those it takes back."""
    rows = accepted(run, decided, name)
    if gone is None or name not in gone.tables:
        return rows
    told = {"recorded_at": run.delivery.known_at, "known_at": run.delivery.known_at} | run.partition
    lineage_of = {column: F.lit(value) for column, value in told.items()}
    return rows.unionByName(withdrawals.withdrawals(gone.known, name, lineage_of))


def taken_back(run: job.Run, meant: Mapping, decided: DataFrame, num_of: dict[str, int]) -> Gone | None:
    """What the delivery takes back of earlier ones; None of one that has no deletions and is no snapshot.

    Args:
        num_of: delivered table -> rows.
    Raises:
        DataError: TOO_MANY_WITHDRAWN.
    """
    deleted = {table.removeprefix(DELETED) for table in num_of if table.startswith(DELETED)}
    is_snapshot = run.delivery.is_snapshot
    if not (deleted or is_snapshot):
        return None
    missed = withdrawals.unnamed(decided)
    complete = held(run, meant, num_of, missed) if is_snapshot else set()
    spoken_of = {m.silver for m in meant.meanings if is_snapshot or m.table in deleted}
    names = sorted(spoken_of & set(withdrawals.RECORD))
    hide = record_pseudonymiser(run)
    named = withdrawals.named(decided, meant, hide).persist(StorageLevel.DISK_ONLY)
    histories = {
        name: earlier(run, name, include_own=False).where(F.col("source") == run.partition["source"]) for name in names
    }
    parts = [part for table in complete for part in meant.source_tables()[table]]
    told = withdrawals.told(decided, names, hide)
    known = withdrawals.known(histories, named, told, parts).persist(StorageLevel.DISK_ONLY)
    table = F.split_part("source_table", F.lit("."), F.lit(1)).alias("table")
    numbers = known.groupBy(table).agg(F.count("*").alias("n"), F.count_if(~F.col("is_told")).alias("gone")).collect()
    numbers = {row.table: (row.n, row.gone) for row in numbers}
    whole = {name: pair for name, pair in numbers.items() if name in complete}
    thresholds.require_snapshot(run.settings.thresholds, run.partition["source"], whole)
    num_gone = sum(absent for _, absent in numbers.values())
    print(f"  {num_gone:,} records of earlier deliveries are withdrawn")
    told_gaps = withdrawals.without_effect(named, known)
    return Gone(names, known, told_gaps.unionByName(missed) if is_snapshot else told_gaps, num_gone)


def held(run: job.Run, meant: Mapping, num_of: dict[str, int], missed: DataFrame) -> set[str]:
    """Delivered tables that the snapshot has all rows of: those of which every row says which record it is."""
    # A table of no row is told by its file alone, one that only bundles hold by its rows alone.
    files = run.lake.read("phi.delivery", where=run.partition).select("source_table").distinct().collect()
    tables = ({file.source_table for file in files} | set(num_of)) & set(meant.required)
    lost = {row.source_table for row in missed.collect()}
    # A bundle that could not be read may hold rows of any.
    return {table for table in tables - lost if not table.startswith(DELETED) and "bundle" not in lost}


def earlier(run: job.Run, name: str, include_own: bool) -> DataFrame:
    """Rows of deliveries that came before this one, whatever has been loaded since."""
    rows = run.lake.history(name)
    d = run.delivery
    mine = F.struct(F.unix_micros(F.lit(d.known_at)).alias("at"), F.lit(d.delivery_id).alias("id"))
    theirs = F.struct(F.unix_micros("known_at").alias("at"), F.col("delivery_id").alias("id"))
    return rows.where(theirs <= mine if include_own else theirs < mine)


if __name__ == "__main__":
    sys.exit(main())
