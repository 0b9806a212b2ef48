"""Ratios of time, cases taken in turns on this machine: neighbours in blocks or by all pairs.

    python -m tests.bench.similar_patients --patients 2000 --repetitions 3

Seconds move with the machine's load; the ratios within one run are what to read.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from medpipe.recommend.similarity import cosine_similarity, nearest_patients
from medpipe.session import open_session

NUM_TREATMENTS, PER_PATIENT, NUM_KINDS = 150, 15, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=2000)
    parser.add_argument("--repetitions", type=int, default=3)
    args = parser.parse_args()
    spark = open_session("bench", {"spark.master": "local[2]", "spark.sql.shuffle.partitions": "2"})
    ratings = drawn(spark, args.patients).persist()
    print(f"{args.patients:,} patients, {ratings.count():,} ratings, {NUM_TREATMENTS} treatments")
    compare({"all pairs": lambda: by_all_pairs(ratings, 50), "blocks": lambda: nearest_patients(ratings)}, args)
    spark.stop()


def drawn(spark: SparkSession, num_patients: int) -> DataFrame:
    """patient_id, treatment, rating: each patient is of one of NUM_KINDS kinds with treatments of its own."""
    draw = np.random.default_rng(1)
    liking = draw.random((NUM_KINDS, NUM_TREATMENTS)) ** 6 + 0.01
    liking /= liking.sum(axis=1, keepdims=True)
    rows = []
    for patient in range(num_patients):
        chosen = draw.choice(NUM_TREATMENTS, PER_PATIENT, replace=False, p=liking[patient % NUM_KINDS])
        given = 1 + np.log(draw.geometric(0.4, PER_PATIENT))
        rows += [(f"{patient:08x}", f"OMOP:{t}", float(r)) for t, r in zip(chosen, given, strict=True)]
    return spark.createDataFrame(rows, "patient_id string, treatment string, rating double")


def by_all_pairs(ratings: DataFrame, num_neighbours: int) -> DataFrame:
    """The join of every two patients who share a treatment, cut to the nearest."""
    order = Window.partitionBy("patient_id").orderBy(F.desc("similarity"), "other_patient_id")
    return cosine_similarity(ratings).withColumn("rank", F.row_number().over(order)).where(f"rank <= {num_neighbours}")


def compare(cases: dict[str, Callable[[], DataFrame]], args: argparse.Namespace) -> None:
    """Runs the cases in turns; prints the least seconds of each and the first over the others."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(args.repetitions):
        for name, case in cases.items():
            started = time.perf_counter()
            case().write.format("noop").mode("overwrite").save()
            seconds[name].append(time.perf_counter() - started)
    first = min(seconds[next(iter(cases))])
    for name, found in seconds.items():
        print(f"  {name:<22} {min(found):8.2f} s   {first / min(found):6.2f} times the first")


if __name__ == "__main__":
    main()
