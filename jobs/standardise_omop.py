"""Turn each OMOP delivery known before --as-of into silver rows without identity; bad rows go to quarantine."""

import sys

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.storagelevel import StorageLevel

from medpipe import contracts, job
from medpipe.privacy.pseudonyms import pseudonymiser
from medpipe.privacy.sealing import NUM_KEY_BYTES, sealer
from medpipe.quality import balance, thresholds
from medpipe.quality.judgement import gaps, judged
from medpipe.standardise import omop, units

SILVER = ("silver.patient", "silver.encounter", "silver.observation_period", "silver.event", "silver.concept")
PARTITION_ROWS = 65_536


@job.step(
    scope="deliveries",
    reads={"bronze.record": {"delivery_id": "own"}, "silver.patient": {}, "silver.encounter": {}},
    writes=("phi.fate", "phi.quarantine", *SILVER, "ops.data_gap"),
    settings=("thresholds",),
    needs_key=True,
    extra=lambda work, _: {"patient_namespace": work.settings.privacy.patient_namespace},
)
def main(run: job.Run) -> None:
    lake, own = run.lake, run.partition
    records = lake.read("bronze.record", where=own)
    num_delivered = lake.count("bronze.record", own)
    # Two at least: what stands in one partition cannot be joined without another shuffle.
    num_partitions = 2 + num_delivered // PARTITION_ROWS
    # Computed once, on the executors' disks: every table is written from it.
    decided = judged(typed(run, records), known_persons(run, records), num_partitions).persist(StorageLevel.DISK_ONLY)

    # The PHI zone first: nothing is published of a delivery that is too bad.
    lake.replace(decided.select(*omop.NAME, "fate", "source", "delivery_id"), "phi.fate", where=own)
    quarantined = lake.replace(refused(run, records, decided), "phi.quarantine", where=own)
    counts, reasons = balance.counted(*(lake.read(name, where=own) for name in ("phi.fate", "phi.quarantine")))
    limit = run.settings.thresholds.get(own["source"], thresholds.Threshold())
    thresholds.require(limit, own["source"], counts["quarantined"], counts["accepted"] + counts["quarantined"], reasons)

    written = {name: lake.replace(accepted(run, decided, name), name, where=own).num_rows for name in SILVER}
    events = lake.history("silver.event").where(F.col("delivery_id") == own["delivery_id"])
    missing = gaps(events, earlier(run, "silver.encounter", include_own=True))
    origin = {"source": F.lit(own["source"]), "delivery_id": F.lit(own["delivery_id"])}
    lake.replace(missing.withColumns(origin), "ops.data_gap", where=own)
    balance.require(num_delivered, counts, quarantined.num_rows, written)
    run.counts |= {
        "rows_in": num_delivered,
        "rows_out": counts["accepted"],
        "rows_quarantined": counts["quarantined"],
        "rows_duplicate": counts["duplicate"],
    }


def typed(run: job.Run, records: DataFrame) -> DataFrame:
    """Every record as a row of the silver table that `silver` names, with lineage and what is wrong with it alone."""
    d = run.delivery
    rows = omop.silver_rows(records, run.lake.timezone, units.shipped())
    rows = rows.withColumns(omop.lineage(d.known_at, d.is_history, d.source, d.delivery_id))
    broken = [F.when(F.col("silver") == name, contracts.violations(name)) for name in SILVER]
    return rows.withColumn("faults", F.array_union("faults", F.coalesce(*broken)))


def known_persons(run: job.Run, records: DataFrame) -> DataFrame:
    """person_id (unique), pseudonym, birth_date (null where no earlier delivery had such a patient)."""
    hide = pseudonymiser(run.key.subkey("pseudonym"), run.settings.privacy.patient_namespace)
    ids = omop.person_ids(records).withColumn("pseudonym", hide(F.col("person_id")))
    before = contracts.latest(
        earlier(run, "silver.patient", include_own=False), ("source", "source_table", "patient_id")
    )
    before = before.select(F.col("patient_id").alias("pseudonym"), "birth_date")
    return ids.join(before, on="pseudonym", how="left")


def refused(run: job.Run, records: DataFrame, decided: DataFrame) -> DataFrame:
    """phi.quarantine: the quarantined rows as received, sealed."""
    seal = sealer(run.key.subkey("quarantine", NUM_KEY_BYTES))
    bad = decided.where("fate = 'quarantined'").select(*omop.NAME, "reasons")
    rows = records.join(bad, on=list(omop.NAME), how="inner")
    rows = rows.withColumns(
        {"raw": seal(F.to_json(F.struct("fields", "corrupt"))), "key_fingerprint": F.lit(run.key.fingerprint)}
    )
    return rows.drop("fields", "corrupt", "known_at", "run_id")


def accepted(run: job.Run, decided: DataFrame, name: str) -> DataFrame:
    """The accepted rows of a silver table, ids of records swapped for pseudonyms."""
    hide = pseudonymiser(run.key.subkey("pseudonym"), f"{run.partition['source']}/record")
    columns = [column for column in contracts.load(name).struct.names if column != "run_id"]
    rows = decided.where((F.col("silver") == name) & (F.col("fate") == "accepted")).select(columns)
    for column in sorted({"event_id", "encounter_id", "period_id"} & set(columns)):
        space = F.lit("visit_occurrence ") if column == "encounter_id" else F.concat("source_table", F.lit(" "))
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
