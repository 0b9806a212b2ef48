"""Ratios of time over a whole population, cases taken in turns on this machine: lists and fits, ours and Spark's.

    python -m tests.bench.recommend_speed --patients 300000 --treatments 1500 --repetitions 3

Lists: Spark's recommendForAllUsers (best of the block sizes given; it masks nothing) beside ours, which mask what a
patient has, what current medication interacts with and what interacts inside the list. "from factors" starts where
recommendForAllUsers does, at patients' stored factors; the others start at histories, as the night does.
Fits: Spark's ALS beside exact ALS, equal iterations. Seconds move with the machine's load; read the ratios.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from pyspark import StorageLevel
from pyspark.ml.recommendation import ALS, ALSModel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from scipy import sparse

from medpipe.recommend.blend import Blend
from medpipe.recommend.catalogue import Catalogue
from medpipe.recommend.exact_als import ExactAls, ExactAlsSettings, exact_als
from medpipe.recommend.gram import Gram, gram
from medpipe.recommend.histories import of_batch
from medpipe.recommend.linear import EaseSettings, ease
from medpipe.recommend.lists import SCORED_ROWS, Lister, safe_lists
from medpipe.recommend.parts import Model
from medpipe.recommend.population import InBlocks, in_blocks
from medpipe.recommend.rules import Rules
from medpipe.recommend.served import RecommendSettings
from medpipe.recommend.topk import scores_of
from medpipe.recommend.walk import walked
from medpipe.session import open_session

PER_PATIENT, NUM_KINDS, SHARE_INTERACTING = 17, 40, 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=20_000)
    parser.add_argument("--treatments", type=int, default=1500)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=3, help="of both fits")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--block-sizes", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--only", choices=["lists", "fits"])
    args = parser.parse_args()
    conf = {"spark.master": "local[2]", "spark.sql.shuffle.partitions": "8", "spark.driver.memory": "6g"}
    conf |= {"spark.python.worker.reuse": "true"}
    spark = open_session("bench", conf)
    rows = drawn(spark, args).persist(StorageLevel.MEMORY_AND_DISK)
    print(f"{rows.count():,} patients, {args.treatments} treatments, rank {args.rank}", flush=True)
    population = in_blocks(rows, args.treatments, 0)
    population.rows.count()
    counts = gram(population)
    pairs = rows.select(F.col("number").alias("patient"), F.inline(F.arrays_zip("treatments", "weights")))
    pairs = pairs.withColumnsRenamed({"treatments": "item", "weights": "rating"}).persist(StorageLevel.DISK_ONLY)
    if args.only != "lists":
        fits(pairs, population, counts, args)
    if args.only != "fits":
        lists(pairs, population, counts, args)
    spark.stop()


def drawn(spark: SparkSession, args: argparse.Namespace) -> DataFrame:
    """HISTORIES and number: each patient is of one of NUM_KINDS kinds with treatments of its own."""
    draw = np.random.default_rng(1)
    # Gumbel's trick: the largest of log weight and noise is a draw without replacement.
    likes = np.log(draw.random((NUM_KINDS, args.treatments)) ** 12 + 1e-3)
    parts = []
    for start in range(0, args.patients, 10_000):
        numbers = np.arange(start, min(start + 10_000, args.patients), dtype=np.int32)
        noise = draw.gumbel(size=(len(numbers), args.treatments))
        chosen = np.argpartition(-(likes[numbers % NUM_KINDS] + noise), PER_PATIENT, axis=1)[:, :PER_PATIENT]
        items = np.sort(chosen, axis=1).astype(np.int32).ravel()
        starts = pa.array(np.arange(len(numbers) + 1) * PER_PATIENT, pa.int32())
        nothing = pa.array([[]] * len(numbers), pa.list_(pa.int32()))
        arrays = [pa.array([f"{number:08x}" for number in numbers.tolist()]), pa.array(numbers)]
        arrays += [pa.ListArray.from_arrays(starts, pa.array(items))]
        arrays += [pa.ListArray.from_arrays(starts, pa.array(np.ones(len(items), np.float32))), nothing]
        parts.append(pa.table(arrays, names=["patient_id", "number", "treatments", "weights", "features"]))
    return spark.createDataFrame(pa.concat_tables(parts))


def fits(pairs: DataFrame, population: InBlocks, counts: Gram, args: argparse.Namespace) -> None:
    settings = ExactAlsSettings(rank=args.rank, iterations=args.iterations, kappa=0.0)
    seconds = in_turns(
        {
            "Spark's ALS": lambda: spark_als(pairs, args),
            "exact ALS": lambda: exact_als(population, counts, settings),
        },
        args.repetitions,
    )
    told("fit", seconds)


def spark_als(pairs: DataFrame, args: argparse.Namespace) -> ALSModel:
    columns = {"userCol": "patient", "itemCol": "item", "ratingCol": "rating"}
    return ALS(rank=args.rank, maxIter=args.iterations, implicitPrefs=True, seed=1, **columns).fit(pairs)


def lists(pairs: DataFrame, population: InBlocks, counts: Gram, args: argparse.Namespace) -> None:
    """Top 10 of everybody."""
    fitted = spark_als(pairs, args)
    rules = interactions(args.treatments)
    als = exact_als(population, counts, ExactAlsSettings(rank=args.rank, iterations=args.iterations, kappa=0.0))
    closed = ease(counts, EaseSettings(feature_weight=0.0))
    asked = population.rows.withColumn("causes", F.col("treatments")).persist(StorageLevel.MEMORY_AND_DISK)
    stored = asked.mapInArrow(Folded(als), Folded.columns).persist(StorageLevel.MEMORY_AND_DISK)
    stored.count()
    cases = {f"recommendForAllUsers, blocks of {size}": blocks_of(fitted, size) for size in args.block_sizes}
    from_factors = Masked(FromFactors(als.of_treatments.astype(np.float32)), rules)
    cases["from factors, all masks"] = lambda: stored.mapInArrow(from_factors, Masked.columns)
    for name, model in {"exact ALS": als, "EASE": closed, "blend": Blend((als, closed), np.full((2, 2), 0.5))}.items():
        masked = Masked(ByHistory(model, args.treatments), rules)
        cases[f"{name} by history, all masks"] = lambda masked=masked: asked.mapInArrow(masked, Masked.columns)
    lister = night(model, rules, counts, args.treatments)
    cases["blend by history, all masks, reasons"] = lambda: safe_lists(asked, lister)
    told("lists", in_turns({name: lambda case=case: sink(case()) for name, case in cases.items()}, args.repetitions))


def blocks_of(fitted: ALSModel, size: int) -> Callable[[], DataFrame]:
    return lambda: fitted.setBlockSize(size).recommendForAllUsers(10)


def sink(rows: DataFrame) -> None:
    rows.write.format("noop").mode("overwrite").save()


@dataclass(frozen=True)
class Folded:
    """For mapInArrow: each patient's factors, stored as Spark's ALS stores them, but packed."""

    als: ExactAls
    columns = "patient_id string, factors binary, treatments array<int>, causes array<int>"

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            factors = self.als.factors(of_batch(batch, len(self.als.of_treatments), 0)).astype(np.float32)
            kept = [batch.column(name) for name in ("treatments", "causes")]
            arrays = [batch.column("patient_id"), pa.array([row.tobytes() for row in factors], pa.binary()), *kept]
            yield pa.RecordBatch.from_arrays(arrays, names=["patient_id", "factors", "treatments", "causes"])


@dataclass(frozen=True)
class FromFactors:
    """Scores of rows of Folded; float32 (M, R)."""

    of_treatments: np.ndarray

    def __call__(self, batch: pa.RecordBatch) -> np.ndarray:
        packed = batch.column("factors")
        start = np.frombuffer(packed.buffers()[1], np.int32)[packed.offset]
        num_values = batch.num_rows * self.of_treatments.shape[1]
        factors = np.frombuffer(packed.buffers()[2], np.float32, num_values, start)
        return (factors.reshape(batch.num_rows, -1) @ self.of_treatments.T).astype(np.float64)


@dataclass(frozen=True)
class ByHistory:
    """Scores of HISTORIES."""

    model: Model
    num_treatments: int

    def __call__(self, batch: pa.RecordBatch) -> np.ndarray:
        return self.model.scores(of_batch(batch, self.num_treatments, 0))


@dataclass(frozen=True)
class Masked:
    """For mapInArrow: scores, and the night's own walk through what is had, interacts and clashes."""

    scores: FromFactors | ByHistory
    rules: Rules
    columns = "patient_id string, items array<int>, scores array<double>"

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        torch.set_num_threads(1)
        for batch in batches:
            for start in range(0, batch.num_rows, SCORED_ROWS):
                yield self._lists(batch.slice(start, SCORED_ROWS))

    def _lists(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        had, causes = (self._sets(batch.column(name)) for name in ("treatments", "causes"))
        found = walked(self.scores(batch), had, causes, self.rules, 10)
        starts = pa.array(np.searchsorted(found.rows, np.arange(batch.num_rows + 1)), pa.int32())
        values = [pa.array(found.columns, pa.int32()), pa.array(scores_of(found.steps))]
        arrays = [batch.column("patient_id"), *(pa.ListArray.from_arrays(starts, value) for value in values)]
        return pa.RecordBatch.from_arrays(arrays, names=["patient_id", "items", "scores"])

    def _sets(self, column: pa.ListArray) -> sparse.csr_matrix:
        starts = np.concatenate([[0], np.cumsum(column.value_lengths().to_numpy())])
        columns = column.flatten().to_numpy()
        shape = (len(column), len(self.rules.together) - 1)
        return sparse.csr_matrix((np.ones(len(columns), bool), columns, starts), shape=shape)


def night(model: Model, rules: Rules, counts: Gram, num_treatments: int) -> Lister:
    names = Catalogue([f"RX:{column:05}" for column in range(num_treatments)], [])
    return Lister(model, rules, names, counts.counts[:-1, :num_treatments].astype(np.int32), RecommendSettings())


def interactions(num_treatments: int) -> Rules:
    """SHARE_INTERACTING of all pairs; every treatment had counts as current."""
    draw = np.random.default_rng(3)
    pairs = np.zeros((num_treatments + 1,) * 2, bool)
    pairs[:-1, :-1] = np.triu(draw.random((num_treatments,) * 2) < SHARE_INTERACTING, 1)
    pairs |= pairs.T
    causes = [("interaction", f"RX:{column:05}") for column in range(num_treatments)]
    return Rules(causes, pairs[:-1, :-1], pairs)


def in_turns(cases: dict[str, Callable[[], object]], repetitions: int) -> dict[str, float]:
    """Least seconds of each; a first round, not timed, starts the workers."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for repetition in range(repetitions + 1):
        for name, case in cases.items():
            started = time.perf_counter()
            case()
            if repetition:
                seconds[name].append(time.perf_counter() - started)
    return {name: min(found) for name, found in seconds.items()}


def told(what: str, seconds: dict[str, float]) -> None:
    """Seconds, and times faster than the best of Spark's."""
    peer = min(value for name, value in seconds.items() if name.startswith(("recommendForAllUsers", "Spark")))
    for name, value in seconds.items():
        print(f"  {what:<6} {name:<42} {value:8.2f} s   {peer / value:6.2f} times", flush=True)


if __name__ == "__main__":
    main()
