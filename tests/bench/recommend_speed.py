"""Ratios of time over a whole population, cases taken in turns on this machine: lists and fits, ours and Spark's.

    python -m tests.bench.recommend_speed --patients 300000 --treatments 1500 --repetitions 3

Lists: Spark's recommendForAllUsers (best of the block sizes given; it masks nothing) beside ours, which mask what a
patient has, what current medication interacts with and what interacts inside the list. "from factors" starts where
recommendForAllUsers does, at patients' stored factors; the others start at histories, as the night does.
Fits: Spark's ALS beside exact ALS, equal iterations. NDCG@10 of the same models is of three treatments a patient that
none of them was told of. Seconds move with the machine's load; read the ratios, on a busy machine those of core
seconds, which count Spark and its workers together.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from pyspark import StorageLevel
from pyspark.ml.recommendation import ALS, ALSModel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy import sparse

from medpipe.evaluate.measure import Judged, measure
from medpipe.recommend.blend import Blend
from medpipe.recommend.catalogue import Catalogue
from medpipe.recommend.exact_als import ExactAls, ExactAlsSettings, exact_als
from medpipe.recommend.gram import Gram, gram
from medpipe.recommend.histories import Histories, of_batch
from medpipe.recommend.linear import EaseSettings, ease
from medpipe.recommend.lists import SCORED_ROWS, Lister, safe_lists
from medpipe.recommend.parts import Model
from medpipe.recommend.population import InBlocks, in_blocks
from medpipe.recommend.rules import Rules
from medpipe.recommend.settings import RecommendSettings
from medpipe.recommend.topk import scores_of
from medpipe.recommend.walk import walked
from medpipe.session import open_session
from tests.bench.recommend_drawn import drawn, interactions


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
    rows = drawn(spark, args.patients, args.treatments).persist(StorageLevel.MEMORY_AND_DISK)
    print(f"{rows.count():,} patients, {args.treatments} treatments, rank {args.rank}", flush=True)
    population = in_blocks(rows.drop("number", "later"), args.treatments, 0)
    population.rows.count()
    counts = gram(population)
    pairs = rows.select(F.col("number").alias("patient"), F.inline(F.arrays_zip("treatments", "weights")))
    pairs = pairs.withColumnsRenamed({"treatments": "item", "weights": "rating"}).persist(StorageLevel.DISK_ONLY)
    fits = {"Spark's ALS": lambda: spark_als(pairs, args), "exact ALS": lambda: our_als(population, counts, args)}
    theirs, ours = in_turns("fit", fits, 0 if args.only == "lists" else args.repetitions)
    blend = Blend((ours, ease(counts, EaseSettings(feature_weight=0.0))), np.full((2, 2), 0.5))
    if args.only != "fits":
        lists(theirs, blend, population, counts, args)
    quality(rows, {"Spark's ALS": as_fitted(theirs, args), "exact ALS": ours, "blend": blend}, args.treatments)
    spark.stop()


def spark_als(pairs: DataFrame, args: argparse.Namespace) -> ALSModel:
    columns = {"userCol": "patient", "itemCol": "item", "ratingCol": "rating"}
    return ALS(rank=args.rank, maxIter=args.iterations, implicitPrefs=True, seed=1, **columns).fit(pairs)


def our_als(population: InBlocks, counts: Gram, args: argparse.Namespace) -> ExactAls:
    return exact_als(population, counts, ExactAlsSettings(rank=args.rank, iterations=args.iterations, kappa=0.0))


def lists(theirs: ALSModel, blend: Blend, population: InBlocks, counts: Gram, args: argparse.Namespace) -> None:
    """Top 10 of everybody."""
    rules = interactions(args.treatments)
    als, closed = blend.models
    asked = population.rows.withColumn("causes", F.col("treatments")).persist(StorageLevel.MEMORY_AND_DISK)
    stored = asked.mapInArrow(Folded(als), Folded.columns).persist(StorageLevel.MEMORY_AND_DISK)
    stored.count()
    cases = {f"recommendForAllUsers, blocks of {size}": blocks_of(theirs, size) for size in args.block_sizes}
    from_factors = Masked(FromFactors(als.of_treatments.astype(np.float32)), rules)
    cases["from factors, all masks"] = lambda: stored.mapInArrow(from_factors, Masked.columns)
    for name, model in {"exact ALS": als, "EASE": closed, "blend": blend}.items():
        masked = Masked(ByHistory(model, args.treatments), rules)
        cases[f"{name} by history, all masks"] = lambda masked=masked: asked.mapInArrow(masked, Masked.columns)
    lister = night(blend, rules, counts, args.treatments)
    cases["blend by history, all masks, reasons"] = lambda: safe_lists(asked, lister)
    in_turns("lists", {name: lambda case=case: sink(case()) for name, case in cases.items()}, args.repetitions)


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
        factors = torch.from_numpy(np.frombuffer(packed.buffers()[2], np.float32, num_values, start).copy())
        scores = factors.reshape(batch.num_rows, -1) @ torch.from_numpy(self.of_treatments).T
        return scores.double().numpy()


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


@dataclass(frozen=True)
class AsFitted:
    """Scores of Spark's ALS for patients it was fitted on, found by their id; float32 (P, R) and (M, R)."""

    of_patients: np.ndarray
    of_treatments: np.ndarray

    def scores(self, histories: Histories) -> np.ndarray:
        numbers = [int(name, 16) for name in histories.patient_ids.to_pylist()]
        return (self.of_patients[numbers] @ self.of_treatments.T).astype(np.float64)


def as_fitted(fitted: ALSModel, args: argparse.Namespace) -> AsFitted:
    sides = []
    for frame, count in ((fitted.userFactors, args.patients), (fitted.itemFactors, args.treatments)):
        found = frame.toArrow()
        sides.append(np.zeros((count, args.rank), np.float32))
        factors = found.column("features").combine_chunks().flatten().to_numpy()
        sides[-1][found.column("id").to_numpy()] = factors.reshape(-1, args.rank)
    return AsFitted(*sides)


def quality(rows: DataFrame, models: dict[str, Model | AsFitted], num_treatments: int) -> None:
    """Mean NDCG@10 of everybody, and its standard error."""
    found = measure(rows, Judged(models, np.zeros(num_treatments), None, 0)).groupBy("model")
    found = found.agg(F.avg("ndcg").alias("mean"), (F.stddev("ndcg") / F.sqrt(F.count("ndcg"))).alias("error"))
    for row in found.collect():
        print(f"  NDCG   {row.model:<42} {row.mean:8.4f} +- {row.error:.4f}", flush=True)


def in_turns(what: str, cases: dict[str, Callable[[], object]], repetitions: int) -> list[object]:
    """What each case gave last, in order; tells the least of each, and times faster than the best of Spark's.

    A first round, not told of at the end, starts the workers.
    """
    least: dict[str, np.ndarray] = {}
    for repetition in range(repetitions + 1):
        last = []
        for name, case in cases.items():
            started = np.array([time.perf_counter(), core_seconds()])
            last.append(case())
            took = np.array([time.perf_counter(), core_seconds()]) - started
            print(f"    round {repetition}  {name:<42} {took[0]:8.2f} s {took[1]:8.1f} core s", flush=True)
            if repetition:
                least[name] = np.minimum(took, least.get(name, took))
    for name, took in least.items():
        best = np.min([least[peer] for peer in least if peer.startswith(("recommendForAllUsers", "Spark"))], axis=0)
        wall, cores = best / took
        print(f"  {what:<6} {name:<42} {took[0]:8.2f} s   {wall:6.2f} times   {cores:6.2f} by core seconds", flush=True)
    return last


def core_seconds() -> float:
    """What this process and all that it started have used of the cores: it moves less with the machine's load."""
    parents, used = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # It has ended meanwhile.
        # Parent, and clock ticks: own and of children that have ended, in user and system mode.
        parents[int(stat.parent.name)], used[int(stat.parent.name)] = int(fields[1]), sum(map(int, fields[11:15]))
    ours = {os.getpid()}
    while more := {process for process, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return sum(used[process] for process in ours) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
