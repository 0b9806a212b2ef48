from datetime import UTC, datetime

import pytest
from pyspark.sql import functions as F

from medpipe.features.sequences import SequenceSettings, before_index, sequences

INDEX = datetime(2025, 6, 1, tzinfo=UTC)


@pytest.fixture
def versions(table):
    """Records of ann: a correction that came before the index and one that came after, a late record, one of after."""
    rows = table("""
        event_id string|concept string|event_at timestamp |recorded_at timestamp|value double|is_deleted boolean
        e1             |A             |2025-05-01 10:00:00|2025-05-01 10:00:00  |1           |false
        e1             |A             |2025-05-01 10:00:00|2025-05-20 00:00:00  |2           |false
        e1             |A             |2025-05-01 10:00:00|2025-06-20 00:00:00  |3           |false
        e2             |B             |2025-05-02 10:00:00|2025-06-02 00:00:00  |            |false
        e3             |C             |2025-06-01 00:00:00|2025-05-30 00:00:00  |            |false
        e4             |D             |2025-05-31 23:59:59|2025-05-31 23:59:59  |            |false
        e5             |E             |2024-01-01 00:00:00|2024-01-01 00:00:00  |            |false
        e5             |E             |2024-01-01 00:00:00|2025-01-01 00:00:00  |            |true
        e6             |A             |2025-05-01 10:00:00|2025-05-01 10:00:00  |            |false
    """)
    lineage = {"patient_id": F.lit("ann"), "source": F.lit("omop"), "source_table": F.lit("t")}
    known = {"known_at": F.col("recorded_at"), "delivery_id": F.concat(F.lit("d"), F.col("recorded_at").cast("string"))}
    return rows.withColumns(lineage | known)


def test_a_record_counts_as_it_stood_at_the_index(versions):
    found = [(r.event_id, r.value) for r in before_index(versions, INDEX).orderBy("event_id").collect()]
    assert found == [("e1", 2.0), ("e4", None), ("e6", None)]


@pytest.fixture
def built(table, versions):
    def build(settings):
        cohort = table("""
            role string | patient_id string | index_at timestamp | split string | label int | exclusion string
            fit         | ann               | 2025-06-01         | train        | 1         |
            fit         | bob               | 2025-06-01         | test         | 0         |
            fit         | cat               | 2025-06-01         | test         | -1        | CENSORED
        """)
        patients = table("""
            patient_id string | birth_date date | sex string
            ann               | 1960-06-01      | female
            bob               | 1970-06-01      | male
            cat               | 1970-06-01      | male
        """)
        rows = sequences(cohort, patients, before_index(versions, INDEX), "UTC", settings)
        return {row.patient_id: row for row in rows.collect()}

    return build


def hashes(spark, *concepts):
    frame = spark.createDataFrame([(c,) for c in concepts], "concept string")
    by_name = {r.concept: r.hash for r in frame.select("concept", F.xxhash64("concept").alias("hash")).collect()}
    return [by_name[c] for c in concepts]


def test_events_stand_in_time_order_after_the_birth(spark, built):
    rows = built(SequenceSettings())
    assert set(rows) == {"ann", "bob"}
    ann = rows["ann"]
    assert ann.concepts == hashes(spark, "BIRTH:female", "A", "A", "D")
    assert ann.days_before == [23741, 31, 31, 1]
    assert sorted(str(a) for a in ann.amounts) == ["2.0", "nan", "nan", "nan"]
    assert (ann.label, ann.split, str(ann.max_event_at)) == (1, "train", "2025-05-31 23:59:59")
    assert ann.max_recorded_at < datetime(2025, 6, 1)


def test_a_patient_without_events_is_a_birth_alone(spark, built):
    bob = built(SequenceSettings())["bob"]
    assert (bob.concepts, len(bob.days_before), str(bob.max_event_at.date())) == (
        hashes(spark, "BIRTH:male"),
        1,
        "1970-06-01",
    )


def test_of_a_long_history_the_latest_events_are_kept(spark, built):
    assert built(SequenceSettings(max_events=1))["ann"].concepts == hashes(spark, "BIRTH:female", "D")
    assert built(SequenceSettings(lookback_days=10))["ann"].concepts == hashes(spark, "BIRTH:female", "D")


def test_of_a_hundred_thousand_events_the_latest_are_kept_and_one_event_is_kept_alone(spark, table):
    cohort = table("""
        role string | patient_id string | index_at timestamp | split string | label int | exclusion string
        fit         | ann               | 2025-06-01         | train        | 1         |
        fit         | bob               | 2025-06-01         | train        | 0         |
    """)
    patients = table("""
        patient_id string | birth_date date | sex string
        ann               | 1960-06-01      | female
        bob               | 1970-06-01      | male
    """)
    at = F.lit(INDEX) - F.make_dt_interval(mins=F.col("id").cast("int") + 1)
    events = spark.range(100_000).select(
        F.lit("ann").alias("patient_id"),
        F.col("id").cast("string").alias("event_id"),
        F.concat(F.lit("C"), "id").alias("concept"),
        at.alias("event_at"),
        at.alias("recorded_at"),
        F.col("id").cast("double").alias("value"),
    )
    events = events.union(events.where("event_id = '7'").withColumn("patient_id", F.lit("bob")))
    rows = sequences(cohort, patients, events, "UTC", SequenceSettings()).collect()
    amounts = {row.patient_id: row.amounts[1:] for row in rows}
    assert amounts == {"ann": [float(n) for n in range(255, -1, -1)], "bob": [7.0]}
