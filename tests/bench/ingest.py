"""Rows a second and peak memory of ingesting OMOP tables, beside the few lines of Spark one would write instead.

    python -m tests.bench.ingest --events 125000 250000 500000 1000000 --out /tmp/ingest

For each size the same files by `medpipe`, the steps ingest_records and standardise_records in one session, as a night
runs them; and by `plain`, which reads, casts and merges them into Delta tables by their keys. Each is a process of its
own, from its start, under the same settings of Spark; memory is watched as in night_memory.
"""

import argparse
import json
import shutil
import sys
from datetime import date
from functools import reduce
from pathlib import Path

import numpy as np
import pyarrow as pa
from delta.tables import DeltaTable
from pyarrow import csv
from pyspark.sql import DataFrame

from medpipe import job, settings
from medpipe.jobs import ingest_records, standardise_records
from medpipe.session import open_session
from medpipe.standardise import units
from tests.bench.night_memory import watched

SPARK = {"spark.driver.memory": "2g"}
EVENTS_PER_PATIENT, EVENTS_PER_VISIT, ROWS_PER_FILE = 100, 20, 250_000
SHARES = {"measurement": 0.6, "condition_occurrence": 0.2, "drug_exposure": 0.2}
START = {
    "measurement": "measurement_date",
    "condition_occurrence": "condition_start_date",
    "drug_exposure": "drug_exposure_start_date",
}
FIRST_DAY, NUM_DAYS = np.datetime64("2016-01-01"), 3_650
AS_OF = date(2026, 1, 31)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, nargs="+", default=[125_000, 250_000, 500_000, 1_000_000])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=WAYS, help="take in the delivery under --out this way, and no more")
    args = parser.parse_args()
    if args.only:
        WAYS[args.only](args.out / "delivery", args.out / args.only)
        return
    for num_events in args.events:
        num_rows = deliver(args.out / "delivery", num_events)
        for name in WAYS:
            this = [sys.executable, "-m", "tests.bench.ingest", "--out", str(args.out), "--only", name]
            figures = watched(this)
            told = {"who": name, "rows": num_rows, "rows_per_s": num_rows // figures["seconds"]}
            print(json.dumps(told | figures), flush=True)
        for folder in ("delivery", *WAYS):
            shutil.rmtree(args.out / folder)


def medpipe(delivery: Path, root: Path) -> None:
    """Both steps of a night that take a delivery in."""
    work = job.open_workplace("medpipe", settings.load(None, {"lake": str(root / "lake"), "spark": SPARK}), AS_OF)
    job.announce(work.run(ingest_records.main, job.delivery_from(work, delivery, is_history=True)))
    job.announce(work.run(standardise_records.main))


def plain(delivery: Path, root: Path) -> None:
    """Reads the tables as text, casts them, and merges each into its own by key; of rows with one key any."""
    spark = open_session("plain", SPARK)

    def rows(table: str, *columns: str) -> DataFrame:
        return spark.read.option("header", True).csv(str(delivery / table)).selectExpr(*columns)

    patients = rows(
        "person",
        "person_id",
        "if(gender_concept_id = '8532', 'female', 'male') as sex",
        "make_date(cast(year_of_birth as int), 1, 1) as birth_date",
    )
    visits = rows(
        "visit_occurrence",
        "visit_occurrence_id",
        "person_id",
        "visit_concept_id",
        "cast(visit_start_date as date) as started_at",
        "cast(visit_end_date as date) as ended_at",
    )
    result = ("cast(value_as_number as double) as value", "unit_source_value as unit")
    none = ("cast(null as double) as value", "cast(null as string) as unit")
    events = [
        rows(
            table,
            f"'{table}' as source_table",
            f"{table}_id as event_id",
            "person_id",
            "visit_occurrence_id",
            f"{table.split('_')[0]}_concept_id as concept",
            f"cast({START[table]} as date) as event_at",
            *(result if table == "measurement" else none),
        )
        for table in SHARES
    ]
    events = reduce(DataFrame.unionByName, events)
    keys = {"patient": ["person_id"], "visit": ["visit_occurrence_id"], "event": ["source_table", "event_id"]}
    for name, new in {"patient": patients, "visit": visits, "event": events}.items():
        table = DeltaTable.createIfNotExists(spark).location(f"{root}/{name}").addColumns(new.schema).execute()
        same = " and ".join(f"old.{column} = new.{column}" for column in keys[name])
        merge = table.alias("old").merge(new.dropDuplicates(keys[name]).alias("new"), same)
        merge.whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()


def deliver(folder: Path, num_events: int) -> int:
    """Writes an OMOP delivery whose every row is good; gives the number of its rows."""
    random = np.random.default_rng(num_events)
    num_patients, num_visits = num_events // EVENTS_PER_PATIENT, num_events // EVENTS_PER_VISIT
    patients = {
        "person_id": np.arange(1, num_patients + 1),
        "gender_concept_id": random.choice([8507, 8532], num_patients),
        "year_of_birth": random.integers(1930, 2010, num_patients),
    }
    visit_person = random.integers(1, num_patients + 1, num_visits)
    visit_day = random.integers(0, NUM_DAYS, num_visits)
    visits = {
        "visit_occurrence_id": np.arange(1, num_visits + 1),
        "person_id": visit_person,
        "visit_concept_id": random.choice([9201, 9202, 9203], num_visits),
        "visit_start_date": FIRST_DAY + visit_day,
        "visit_end_date": FIRST_DAY + visit_day + random.integers(0, 9, num_visits),
    }
    num_rows = _write(folder / "person", patients) + _write(folder / "visit_occurrence", visits)
    for table, share in SHARES.items():
        visit = random.integers(0, num_visits, int(num_events * share))
        events = {
            f"{table}_id": np.arange(1, len(visit) + 1),
            "person_id": visit_person[visit],
            START[table]: FIRST_DAY + visit_day[visit],
            "visit_occurrence_id": visit + 1,
        } | (_results(random, len(visit)) if table == "measurement" else _codes(random, table, len(visit)))
        num_rows += _write(folder / table, events)
    return num_rows


def _codes(random: np.random.Generator, table: str, num_rows: int) -> dict:
    return {f"{table.split('_')[0]}_concept_id": 300_000 + random.zipf(1.3, num_rows) % 2_000}


def _results(random: np.random.Generator, num_rows: int) -> dict:
    """Values in the middle of what is plausible, in the unit that is kept."""
    kept = [m for m in units.shipped().measurements if m.concept.startswith("OMOP:")]
    kind = random.integers(0, len(kept), num_rows)
    middle = np.array([(m.low + m.high) / 2 for m in kept])
    return {
        "measurement_concept_id": np.array([int(m.concept.split(":")[1]) for m in kept])[kind],
        "value_as_number": np.round(middle[kind] * random.uniform(0.8, 1.2, num_rows), 4),
        "unit_source_value": np.array([m.unit for m in kept])[kind],
    }


def _write(folder: Path, columns: dict) -> int:
    folder.mkdir(parents=True)
    table = pa.table(columns)
    for number, start in enumerate(range(0, table.num_rows, ROWS_PER_FILE)):
        csv.write_csv(table.slice(start, ROWS_PER_FILE), folder / f"part-{number:04}.csv")
    return table.num_rows


WAYS = {"plain": plain, "medpipe": medpipe}

if __name__ == "__main__":
    main()
