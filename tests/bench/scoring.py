"""How soon a population is scored, beside every other way to do it: one run, the same data, model and machine.

    python -m tests.bench.scoring                          # from the root; an hour on 2 cores
    python -m tests.bench.scoring --rows-scale 0.02 --repetitions 1 --only vectors

Contenders take turns and the best of the repetitions counts: seconds move with the machine's load, ratios within one
run are what to read. `medpipe job` is jobs/score_population.py as it is: guard, plan, scoring, the commits of scores
and errors (and of each part, where there are several), counts and the ledger; `medpipe scorer` is its scoring alone,
written as a peer writes. Ends with 1 where scores differ, never because of a time.
"""

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from medpipe import recipes
from medpipe.score.scorer import Scorer
from medpipe.session import open_session
from medpipe.snapshots import shard_frame
from medpipe.stream.shards import Shard
from tests.bench import scoring_peers as peers
from tests.bench.scoring_data import gold
from tests.bench.scoring_lake import KINDS, Bench, scores

FILES = 8
PEERS = {
    "predict_batch_udf": peers.predict_udf,
    "mapInPandas": peers.map_in_pandas,
    "mapInArrow": peers.map_in_arrow,
    "petastorm reader": peers.batch_reader,
    "petastorm converter": peers.spark_converter,
}
BEST_OF = ("mapInPandas", "mapInArrow", "petastorm reader", "petastorm converter")
MAX_DIFFERENCE = 1e-5
LIMIT_SECONDS = 3.0


class Rate(NamedTuple):
    """Rows a second, and rows a second of CPU, which other work on the machine disturbs less."""

    wall: float
    cpu: float


def compare(bench: Bench, pool: ProcessPoolExecutor, names: tuple[str, ...], repetitions: int) -> dict[str, Rate]:
    """Of each contender the best of the repetitions; all of them give the same scores."""
    spark, work, shards = bench.lake.spark, bench.work, bench.guard()
    cases: dict[str, Callable[[str], None]] = {
        "plain torch": lambda out: peers.plain_torch(pool, work, out),
        "medpipe job": lambda out: bench.job(),
        "medpipe scorer": lambda out: bench.score(shards, out),
        "medpipe guard": lambda out: bench.guard(),
    }
    cases |= {name: partial(lambda peer, out: peer(spark, work, out), PEERS[name]) for name in names}
    found: dict[str, list[Rate]] = {name: [] for name in ["limit", *cases]}
    expected = None
    for repetition in range(repetitions):
        found["limit"].append(Rate(*peers.limit(pool, work, bench.limit_rows, LIMIT_SECONDS)))
        for name, case in cases.items():
            out = f"{bench.lake.root}/out/{name.replace(' ', '_')}"
            began, began_cpu = time.perf_counter(), cpu_seconds()
            case(out)
            wall, cpu = time.perf_counter() - began, cpu_seconds() - began_cpu
            found[name].append(Rate(bench.num_rows / wall, bench.num_rows / cpu))
            if repetition == 0 and name != "medpipe guard":
                given = bench.published() if name == "medpipe job" else scores(out, "id", bench.num_rows)
                expected = given if expected is None else expected
                require_equal(name, given, expected)
    return {name: Rate(*(max(values) for values in zip(*rates, strict=True))) for name, rates in found.items()}


def cpu_seconds() -> float:
    """Of this process and all below it: the JVM, the workers, the pool."""
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True)) if process.is_running()]
    return sum(time.user + time.system for time in times)


def require_equal(name: str, found: np.ndarray, expected: np.ndarray) -> None:
    """Raises SystemExit where a row is missing, twice, or has another score."""
    difference = np.abs(found - expected).max()
    if not difference <= MAX_DIFFERENCE:
        sys.exit(f"{name}: scores differ by {difference} (nan: rows are missing); expected at most {MAX_DIFFERENCE}")


def told(what: str, found: float, demand: float, more: str = "", at_most: bool = False) -> None:
    """One figure beside its demand; 0: none is made."""
    is_met = found <= demand if at_most else found >= demand
    verdict = f"   demand {demand:.2f}: {'met' if is_met else 'MISSED'}" if demand else ""
    print(f"    {what:<66} {found:8.2f}{more}{verdict}", flush=True)


def report(rates: dict[str, Rate], demands: dict[str, float]) -> None:
    """The contenders' rates, then medpipe over what it is asked to beat."""
    limit = rates["limit"]
    print(f"  {'':<22} {'rows/s':>12} {'of limit':>9} {'rows/CPU s':>12} {'of limit':>9}")
    for name, rate in sorted(rates.items(), key=lambda pair: -pair[1].wall):
        shares = rate.wall / limit.wall, rate.cpu / limit.cpu
        print(f"  {name:<22} {rate.wall:12,.0f} {shares[0]:9.3f} {rate.cpu:12,.0f} {shares[1]:9.3f}")
    others = [rates[name] for name in BEST_OF if name in rates]
    best = {"best of the others": Rate(*(max(values) for values in zip(*others, strict=True)))} if others else {}
    for ours in ("medpipe job", "medpipe scorer"):
        for other, demand in demands.items():
            them = (rates | best)[other]
            in_cpu = f"   (by CPU {rates[ours].cpu / them.cpu:5.2f})"
            told(f"{ours} / {other}", rates[ours].wall / them.wall, demand, in_cpu)


def small_job(bench: Bench, pool: ProcessPoolExecutor, repetitions: int) -> None:
    """Seconds of a whole job beyond those of the model, in a session that has done others."""
    bench.job()
    found = []
    for _ in range(repetitions):
        began = time.perf_counter()
        bench.job()
        found.append(time.perf_counter() - began)
    own = bench.num_rows / peers.limit(pool, bench.work, bench.limit_rows, LIMIT_SECONDS)[0]
    told(f"s over the model's own {own:.2f} s, {bench.num_rows:,} rows", min(found) - own, 5.0, at_most=True)


def watched(scorer: Scorer, plans: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Rows scored and the worker's peak memory meanwhile, MiB (Linux: proc(5), clear_refs and VmHWM)."""
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")
    num_rows = sum(batch.num_rows for batch in scorer(plans))
    with open("/proc/self/status") as status:
        kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    yield pa.record_batch([pa.array([num_rows]), pa.array([kib / 1024])], ["num_rows", "mib"])


def memory(bench: Bench, kind: str, num_rows: int, folder: str) -> None:
    """Peak memory of one task for 1 to 16 times the rows, all in one file, as large as its writer makes row groups."""
    spark, found = bench.lake.spark, []
    for times in (1, 1, 2, 4, 8, 16):  # the first warms up
        peers.write(gold(spark, kind, num_rows * times, 1), f"{folder}/memory")
        (file,) = [entry.path for entry in os.scandir(f"{folder}/memory") if entry.name.endswith(".parquet")]
        shard = Shard(0, file, tuple(range(pq.read_metadata(file).num_row_groups)), num_rows * times)
        rows = shard_frame(spark, [shard]).mapInArrow(partial(watched, bench.scorer()), "num_rows long, mib double")
        found.append(rows.first().mib)
    curve = ", ".join(f"{mib:.0f}" for mib in found[1:])
    told(f"{kind}, 1 to 16 times {num_rows:,} rows: MiB {curve}", max(found[1:]) / found[1], 1.1, at_most=True)


# part -> kind of data, rows, peers, demands: what medpipe is divided by -> the least it should come to.
SPEED = {
    "vectors": (
        "vectors",
        2_000_000,
        tuple(PEERS),
        {"predict_batch_udf": 2.0, "best of the others": 1.3, "plain torch": 0},
    ),
    "large": ("vectors", 8_000_000, (), {"plain torch": 0.35}),
    "events": ("events", 800_000, tuple(PEERS), {"limit": 0.9, "best of the others": 0}),
    # The converter's loader knows no bytes.
    "image": ("image", 32_000, tuple(PEERS)[:-1], {"limit": 0.7, "best of the others": 0}),
}
PARTS = (*SPEED, "small", "memory")


def run(part: str, spark: SparkSession, pool: ProcessPoolExecutor, folder: str, args: argparse.Namespace) -> None:
    if part in SPEED:
        kind, num_rows, names, demands = SPEED[part]
        bench = Bench.make(spark, f"{folder}/{part}", kind, int(num_rows * args.rows_scale), FILES)
        report(compare(bench, pool, names, args.repetitions), demands)
    elif part == "small":
        small_job(Bench.make(spark, f"{folder}/small", "events", 20_000, 2), pool, args.repetitions)
    else:
        for kind, num_rows in (("vectors", 65_536), ("events", 32_768), ("image", 2_048)):
            bench = Bench.make(spark, f"{folder}/memory-{kind}", kind, 2_000, 1)
            memory(bench, kind, max(1000, int(num_rows * min(1, args.rows_scale))), folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows-scale", type=float, default=1.0, help="share of the rows of each workload")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    args = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="medpipe-scoring-")
    # The job finds its recipes by name.
    recipes.named = {recipe.name: recipe for recipe, *_ in KINDS.values()}.__getitem__
    spark = open_session("bench", {"spark.master": "local[2]"})
    try:
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
            for part in args.only:
                run(part, spark, pool, folder, args)
                shutil.rmtree(f"{folder}/{part}", ignore_errors=True)
    finally:
        spark.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
