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

PATIENT_TABLES = ("silver.encounter", "silver.observation_period", "silver.event")
SILVER = ("silver.patient", *PATIENT_TABLES, "silver.concept")
KEYS = {
    "silver.patient": ("person_id",),
    "silver.encounter": ("source_table", "encounter_id", "person_id"),
    "silver.observation_period": ("source_table", "period_id", "person_id"),
    "silver.event": ("source_table", "event_id", "person_id"),
    "silver.concept": ("concept",),
}


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
    hide = pseudonymiser(run.key.subkey("pseudonym"), run.settings.privacy.patient_namespace)
    records = lake.read("bronze.record", where=own)
    rows = typed(run, records)
    decided = {"silver.patient": kept(judged(rows["silver.patient"], "silver.patient", KEYS["silver.patient"], None))}
    persons = kept(known_persons(run, decided["silver.patient"], rows, hide))
    for name in PATIENT_TABLES:
        decided[name] = kept(judged(rows[name], name, KEYS[name], persons))
    decided["silver.concept"] = kept(judged(rows["silver.concept"], "silver.concept", KEYS["silver.concept"], None))

    # The PHI zone first: nothing is published of a delivery that is too bad.
    fates = [frame.select(*omop.NAME, "fate", "reasons") for frame in decided.values()]
    every = balance.union(fates).withColumns({"source": F.lit(own["source"]), "delivery_id": F.lit(own["delivery_id"])})
    lake.replace(every.drop("reasons"), "phi.fate", where=own)
    bad = every.where("fate = 'quarantined'").drop("fate", "source", "delivery_id")
    seal = sealer(run.key.subkey("quarantine", NUM_KEY_BYTES))
    raw = seal(F.to_json(F.struct("fields", "corrupt")))
    refused = records.join(bad, on=list(omop.NAME), how="inner").withColumn("raw", raw)
    refused = refused.withColumn("key_fingerprint", F.lit(run.key.fingerprint))
    lake.replace(refused.drop("fields", "corrupt", "known_at", "run_id"), "phi.quarantine", where=own)
    counts = balance.fates(lake.read("phi.fate", where=own))
    reasons = balance.reasons(lake.read("phi.quarantine", where=own))
    limit = run.settings.thresholds.get(own["source"], thresholds.Threshold())
    thresholds.require(limit, own["source"], counts["quarantined"], counts["accepted"] + counts["quarantined"], reasons)

    hide_record = pseudonymiser(run.key.subkey("pseudonym"), f"{own['source']}/record")
    for name, frame in decided.items():
        accepted = frame.where("fate = 'accepted'")
        if name == "silver.patient":
            accepted = accepted.withColumn("patient_id", hide(F.col("person_id")))
        for column in ("event_id", "encounter_id", "period_id"):
            if column in accepted.columns:
                space = F.lit("visit_occurrence ") if column == "encounter_id" else F.concat("source_table", F.lit(" "))
                accepted = accepted.withColumn(column, hide_record(F.concat(space, F.col(column))))
        columns = [c for c in contracts.load(name).struct.names if c != "run_id"]
        lake.replace(accepted.select(columns), name, where=own)
    known_visits = earlier(run, "silver.encounter", include_own=True)
    events = lake.history("silver.event").where(F.col("delivery_id") == own["delivery_id"])
    missing = gaps(events, known_visits)
    origin = {"source": F.lit(own["source"]), "delivery_id": F.lit(own["delivery_id"])}
    lake.replace(missing.withColumns(origin), "ops.data_gap", where=own)
    delivered = lake.count("bronze.record", own)
    balance.require(
        delivered, counts, {name: lake.count(name, own) for name in SILVER}, lake.count("phi.quarantine", own)
    )
    run.counts |= {
        "rows_in": delivered,
        "rows_out": counts["accepted"],
        "rows_quarantined": counts["quarantined"],
        "rows_duplicate": counts["duplicate"],
    }


def kept(frame: DataFrame) -> DataFrame:
    """Computed once, on the executors' disks: each frame is read three times or more."""
    return frame.persist(StorageLevel.DISK_ONLY)


def typed(run: job.Run, records: DataFrame) -> dict[str, DataFrame]:
    """silver table -> its rows as read from bronze, with lineage."""
    zone = run.lake.timezone
    read = {
        "silver.patient": (omop.patients(records), F.to_timestamp("birth_date")),
        "silver.encounter": (omop.encounters(records, zone), F.col("started_at")),
        "silver.observation_period": (omop.observation_periods(records), F.to_timestamp("start_date")),
        "silver.event": (omop.events(records, zone, units.shipped()), F.col("event_at")),
        "silver.concept": (omop.concepts(records), F.lit(None).cast("timestamp")),
    }
    d = run.delivery
    return {
        name: frame.withColumns(omop.lineage(d.known_at, d.is_history, d.source, d.delivery_id, happened_at))
        for name, (frame, happened_at) in read.items()
    }


def earlier(run: job.Run, name: str, include_own: bool) -> DataFrame:
    """Rows of deliveries that came before this one, whatever has been loaded since."""
    rows = run.lake.history(name)
    d = run.delivery
    mine = F.struct(F.unix_micros(F.lit(d.known_at)).alias("at"), F.lit(d.delivery_id).alias("id"))
    theirs = F.struct(F.unix_micros("known_at").alias("at"), F.col("delivery_id").alias("id"))
    return rows.where(theirs <= mine if include_own else theirs < mine)


def known_persons(run: job.Run, own_patients: DataFrame, rows: dict[str, DataFrame], hide) -> DataFrame:
    """person_id (unique), pseudonym, birth_date (null where no delivery so far had such a patient)."""
    ids = balance.union([rows[name].select("person_id") for name in PATIENT_TABLES]).dropna().distinct()
    ids = ids.withColumn("pseudonym", hide(F.col("person_id")))
    mine = own_patients.where("fate = 'accepted'").select("person_id", F.col("birth_date").alias("own_birth_date"))
    before = contracts.latest(
        earlier(run, "silver.patient", include_own=False), ("source", "source_table", "patient_id")
    )
    before = before.select(F.col("patient_id").alias("pseudonym"), F.col("birth_date").alias("earlier_birth_date"))
    joined = ids.join(mine, on="person_id", how="left").join(before, on="pseudonym", how="left")
    born = F.coalesce("own_birth_date", "earlier_birth_date")
    return joined.select("person_id", "pseudonym", born.alias("birth_date"))


if __name__ == "__main__":
    sys.exit(main())
