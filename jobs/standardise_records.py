"""Turn each delivery of records known before --as-of into silver rows without identity; bad rows go to quarantine."""

import sys

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.storagelevel import StorageLevel

from medpipe import contracts, job
from medpipe.ingest import vocabulary
from medpipe.ingest.manifest import Delivery
from medpipe.mappings import mapping
from medpipe.mappings.mapping import Mapping
from medpipe.privacy.pseudonyms import pseudonymiser
from medpipe.privacy.sealing import NUM_KEY_BYTES, sealer
from medpipe.quality import balance, thresholds
from medpipe.quality.judgement import NAME, gaps, judged
from medpipe.standardise import concepts, units
from medpipe.standardise.records import codes_of, lineage, person_ids, silver_rows

SILVER = ("silver.patient", "silver.encounter", "silver.observation_period", "silver.event", "silver.concept")
PARTITION_ROWS = 65_536


@job.step(
    scope="deliveries",
    reads={"bronze.record": {"delivery_id": "own"}, "silver.patient": {}, "silver.encounter": {}},
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
    num_delivered = records.count()
    # Two at least: what stands in one partition cannot be joined without another shuffle.
    num_partitions = 2 + num_delivered // PARTITION_ROWS
    # Computed once, on the executors' disks: every table is written from it.
    standard = standard_concepts(run, meant, records)
    rows = typed(records, meant, run.delivery, lake.timezone, standard)
    persons = known_persons(run, meant, records)
    decided = judged(rows, persons, num_partitions).persist(StorageLevel.DISK_ONLY)

    # The PHI zone first: nothing is published of a delivery that is too bad.
    lake.replace(decided.select(*NAME, "fate", "source", "delivery_id"), "phi.fate", where=own)
    quarantined = lake.replace(refused(run, records, decided), "phi.quarantine", where=own)
    counts = balance.counted(*(lake.read(name, where=own) for name in ("phi.fate", "phi.quarantine")))
    thresholds.require(run.settings.thresholds, own["source"], counts)

    written = {name: lake.replace(accepted(run, decided, name), name, where=own).num_rows for name in SILVER}
    events = lake.history("silver.event").where(F.col("delivery_id") == own["delivery_id"])
    missing = gaps(events, earlier(run, "silver.encounter", include_own=True)).unionByName(unread(delivered, meant))
    missing = missing if standard is None else missing.unionByName(concepts.gaps(events, standard))
    origin = {"source": F.lit(own["source"]), "delivery_id": F.lit(own["delivery_id"])}
    lake.replace(missing.withColumns(origin), "ops.data_gap", where=own)
    balance.require(num_delivered, counts, quarantined.num_rows, written)
    run.counts |= counts.of_run


def standard_concepts(run: job.Run, meant: Mapping, records: DataFrame) -> DataFrame | None:
    """What the hospital's vocabulary says of the delivery's codes; None without a vocabulary."""
    if run.settings.vocabulary is None:
        return None
    known = vocabulary.standard_concepts(run.lake.spark, run.settings.vocabulary)
    # A vocabulary has millions of codes, a delivery thousands.
    return known.join(F.broadcast(codes_of(records, meant)), on="source_concept", how="left_semi").persist()


def typed(records: DataFrame, meant: Mapping, d: Delivery, zone: str, standard: DataFrame | None = None) -> DataFrame:
    """Every record as the rows of silver it gives, with lineage and what is wrong with each alone."""
    rows = silver_rows(records, meant, zone, units.shipped(), standard)
    rows = rows.withColumns(lineage(d.known_at, d.is_history, d.source, d.delivery_id))
    broken = [F.when(F.col("silver") == name, contracts.violations(name)) for name in SILVER]
    return rows.withColumn("faults", F.array_union("faults", F.coalesce(*broken)))


def known_persons(run: job.Run, meant: Mapping, records: DataFrame) -> DataFrame:
    """person_id (unique), pseudonym, birth_date (null where no earlier delivery had such a patient)."""
    hide = pseudonymiser(run.key.subkey("pseudonym"), run.settings.privacy.patient_namespace)
    ids = person_ids(records, meant).withColumn("pseudonym", hide(F.col("person_id")))
    before = contracts.latest(
        earlier(run, "silver.patient", include_own=False), ("source", "source_table", "patient_id")
    )
    before = before.select(F.col("patient_id").alias("pseudonym"), "birth_date")
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
    bad = bad.select(*NAME, "reasons", "delivered_table").withColumnRenamed("source_table", "meaning")
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


def accepted(run: job.Run, decided: DataFrame, name: str) -> DataFrame:
    """The accepted rows of a silver table, ids of records swapped for pseudonyms."""
    hide = pseudonymiser(run.key.subkey("pseudonym"), f"{run.partition['source']}/record")
    columns = [column for column in contracts.load(name).struct.names if column != "run_id"]
    rows = decided.where((F.col("silver") == name) & (F.col("fate") == "accepted")).select(columns)
    for column in sorted({"event_id", "encounter_id", "period_id"} & set(columns)):
        space = F.lit("encounter ") if column == "encounter_id" else F.concat("source_table", F.lit(" "))
        rows = rows.withColumn(column, hide(F.concat(space, F.col(column))))
    return rows


def earlier(run: job.Run, name: str, include_own: bool) -> DataFrame:
    """Rows of deliveries that came before this one, whatever has been loaded since."""
    rows = run.lake.history(name)
    d = run.delivery
    mine = F.struct(F.unix_micros(F.lit(d.known_at)).alias("at"), F.lit(d.delivery_id).alias("id"))
    theirs = F.struct(F.unix_micros("known_at").alias("at"), F.col("delivery_id").alias("id"))
    return rows.where(theirs <= mine if include_own else theirs < mine)


if __name__ == "__main__":
    sys.exit(main())
