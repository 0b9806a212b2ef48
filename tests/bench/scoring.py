"""How soon a population is scored, beside every other way to do it: one run, the same data, model and machine.

    python -m tests.bench.scoring                          # from the root; an hour on 2 cores
    python -m tests.bench.scoring --rows-scale 0.02 --repetitions 1 --only vectors

Contenders take turns and the best of the repetitions counts: seconds move with the machine's load, ratios within one
run are what to read. `medpipe job` is jobs/score_population.py as it stands: guard, plan, scoring, two staged and
published commits, counts and the ledger; `medpipe scorer` is its scoring alone, written as a peer writes. Ends with 1
where scores differ, never because of a time.
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
from dataclasses import dataclass, replace
from datetime import date
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from medpipe import checkpoints, job, ledger, recipes, settings
from medpipe.jobs import score_population
from medpipe.recipes import RISK_GRU, XRAY_CNN, Recipe, Trained
from medpipe.score import forms
from medpipe.score.scorer import SCORED, Scorer
from medpipe.score.settings import ScoreSettings
from medpipe.session import open_session
from medpipe.snapshots import shard_frame
from medpipe.stream.reader import local_path, read
from medpipe.stream.shards import Shard, plan
from medpipe.stream.tokens import vocabulary_of
from medpipe.tables import Lake
from tests.bench import scoring_peers as peers
from tests.bench.scoring_data import NUM_CODES, SIDE, VECTOR_MLP, WIDTH, gold

AS_OF = date(2026, 1, 31)
PEERS = {
    "predict_batch_udf": peers.predict_udf,
    "mapInPandas": peers.map_in_pandas,
    "mapInArrow": peers.map_in_arrow,
    "petastorm reader": peers.batch_reader,
    "petastorm converter": peers.spark_converter,
}
BEST_OF = ("mapInPandas", "mapInArrow", "petastorm reader", "petastorm converter")
MAX_DIFFERENCE = 1e-5


# kind of data -> recipe, what peers read beside the row's name, elements in each, rows held in memory for the limit.
KINDS = {
    "vectors": (VECTOR_MLP, peers.vector_tensors, {"amounts": WIDTH}, 32_768),
    "events": (
        RISK_GRU,
        peers.event_tensors,
        {"concepts": WIDTH, "days_before": WIDTH, "amounts": WIDTH},
        2_048,
    ),
    "image": (XRAY_CNN, peers.pixel_tensors, {"pixels": SIDE * SIDE}, 512),
}


@dataclass
class Bench:
    """A lake with one table to score and a promoted model with random weights."""

    lake: Lake
    work: peers.Work
    num_rows: int
    limit_rows: int
    num_jobs: int = 0

    @classmethod
    def make(cls, spark: SparkSession, root: str, kind: str, num_rows: int) -> "Bench":
        recipe, tensors, columns, limit_rows = KINDS[kind]
        lake, where = Lake(spark, root, f"{root}-phi"), {"as_of": AS_OF, "role": "apply"}
        rows = gold(spark, kind, num_rows).withColumns({name: F.lit(value) for name, value in where.items()})
        lake.for_run("bench").replace(rows, recipe.table, where=where)
        urls = tuple(sorted(lake.read(recipe.table).inputFiles()))
        saved = registered(lake, recipe, urls[0])
        load = partial(checkpoints.load, f"{root}/models/{saved.folder}", saved.sha256)
        names = recipe.columns[0], *columns
        work = peers.Work(recipe, load, tensors, names, tuple(columns.values()), lake.path(recipe.table), urls)
        print(f"\n{recipe.name}: {num_rows:,} rows in {len(urls)} files; form {load().form}", flush=True)
        return cls(lake, work, num_rows, limit_rows)

    def job(self) -> None:
        """Runs the whole job as if it had never run."""
        self.num_jobs += 1
        # Another setting that changes nothing is another run_id: else the job would find its own commits.
        told = {"lake": self.lake.root, "score": {"max_error_ratio": 0.01 + self.num_jobs / 1e6}}
        work = job.Workplace(self.lake, settings.load(None, told), AS_OF, ledger.Ledger.open(self.lake))
        work.ledger.entries.clear()
        work.run(score_population.main, recipe=self.work.recipe.name)

    def published(self) -> np.ndarray:
        """Scores of the last job, by the rows' numbers."""
        urls = self.lake.for_run("").read(self.work.recipe.scores_table).inputFiles()
        return scores([local_path(url) for url in urls], self.work.recipe.columns[0], self.num_rows)

    def guard(self) -> list[Shard]:
        where = {"as_of": AS_OF, "role": "apply"}
        snapshot = self.lake.for_run("").shards(self.work.recipe.table, where, list(self.work.recipe.columns))
        return plan(snapshot.files, ScoreSettings().shard_rows)

    def scorer(self) -> Scorer:
        return Scorer(self.work.recipe, self.work.load.args[1], self.work.load, "cpu")

    def score(self, shards: list[Shard], out: str) -> None:
        rows = shard_frame(self.lake.spark, shards).mapInArrow(self.scorer(), SCORED)
        peers.write(rows.select(F.col("row_id").alias("id"), "score"), out)


def registered(lake: Lake, recipe: Recipe, url: str) -> checkpoints.Checkpoint:
    """A model as train_model and promote_model leave one; the form is chosen on the table's first rows."""
    torch.manual_seed(0)
    has_concepts = recipe.table == "gold.sequence"
    codes = np.arange(NUM_CODES)
    known = vocabulary_of(codes, codes + 2, np.zeros(NUM_CODES), np.ones(NUM_CODES)) if has_concepts else None
    sample = recipe.read(next(read(url, [0], recipe.columns, 512)), known)
    config = recipe.config(known, sample)
    trained = Trained(recipe.name, config, recipe.build(config).state_dict(), known, recipe.form)
    saved = checkpoints.save(
        f"{lake.root}/models", replace(trained, form=forms.choose(recipe, trained, sample)), {}, {}, {}
    )
    row = (recipe.name, saved.sha256, AS_OF, "current", AS_OF, 1, f"models/{saved.folder}", "{}", "{}", "{}")
    columns = "recipe string, model_sha256 string, as_of date, status string, effective_from date, sequence long"
    frame = lake.spark.createDataFrame([row], f"{columns}, path string, config string, metrics string, data string")
    lake.for_run("bench").append(frame, "ops.model")
    return saved


def compare(bench: Bench, pool: ProcessPoolExecutor, names: tuple[str, ...], folder: str, repetitions: int) -> dict:
    """Rows a second of each contender, best of the repetitions; all of them give the same scores."""
    spark, work, shards = bench.lake.spark, bench.work, bench.guard()
    cases: dict[str, Callable[[str], None]] = {
        "plain torch": lambda out: peers.plain_torch(pool, work, out),
        "medpipe job": lambda out: bench.job(),
        "medpipe scorer": lambda out: bench.score(shards, out),
        "medpipe guard": lambda out: bench.guard(),
    }
    cases |= {name: partial(lambda peer, out: peer(spark, work, out), PEERS[name]) for name in names}
    seconds, limits, expected = {name: [] for name in cases}, [], None
    for repetition in range(repetitions):
        limits.append(peers.limit(pool, work, bench.limit_rows, 2.0))
        for name, case in cases.items():
            out = f"{folder}/out/{name.replace(' ', '_')}"
            began = time.perf_counter()
            case(out)
            seconds[name].append(time.perf_counter() - began)
            if repetition == 0 and name != "medpipe guard":
                found = bench.published() if name == "medpipe job" else scores(out, "id", bench.num_rows)
                expected = found if expected is None else expected
                require_equal(name, found, expected)
    rates = {name: bench.num_rows / min(found) for name, found in seconds.items()}
    return rates | {"limit": max(wall for wall, _ in limits), "limit per CPU": max(cpu for _, cpu in limits)}


def scores(place: str | list[str], name: str, num_rows: int) -> np.ndarray:
    """Scores by the rows' numbers, float32 (num_rows,), from a folder or from files; NaN where rows are too few."""
    table = pq.ParquetDataset(place, partitioning=None).read([name, "score"])
    found = np.full(num_rows, np.nan, np.float32)
    if table.num_rows == num_rows:
        found[table.column(name).to_pandas().str.lstrip("p").astype(np.int64)] = table.column("score").to_numpy()
    return found


def require_equal(name: str, found: np.ndarray, expected: np.ndarray) -> None:
    """Raises SystemExit where a row is missing, twice, or has another score."""
    difference = np.abs(found - expected).max()
    if not difference <= MAX_DIFFERENCE:
        sys.exit(f"{name}: scores differ by {difference} (nan: rows are missing); expected at most {MAX_DIFFERENCE}")


def told(what: str, found: float, demand: float, at_most: bool = False) -> None:
    """One figure beside its demand; 0: none is made."""
    is_met = found <= demand if at_most else found >= demand
    verdict = f"   demand {demand:.2f}: {'met' if is_met else 'MISSED'}" if demand else ""
    print(f"    {what:<70} {found:8.2f}{verdict}", flush=True)


def report(rates: dict, demands: dict[str, float]) -> None:
    """The contenders' rows a second, then medpipe against what it is asked to beat."""
    for name, rate in sorted(rates.items(), key=lambda pair: -pair[1]):
        print(f"  {name:<22} {rate:14,.0f} rows/s   {rate / rates['limit']:7.3f} of the limit", flush=True)
    best = max((rates[name] for name in BEST_OF if name in rates), default=0)
    against = rates | ({"best of the others": best} if best else {})
    for ours in ("medpipe job", "medpipe scorer"):
        for other, demand in demands.items():
            told(f"{ours} / {other}", rates[ours] / against[other], demand)


def small_job(bench: Bench, pool: ProcessPoolExecutor, repetitions: int) -> None:
    """Seconds of a whole job beyond those of the model, in a session that has done others."""
    bench.job()
    found = []
    for _ in range(repetitions):
        began = time.perf_counter()
        bench.job()
        found.append(time.perf_counter() - began)
    own = bench.num_rows / peers.limit(pool, bench.work, bench.limit_rows, 2.0)[0]
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
        bench = Bench.make(spark, f"{folder}/{part}", kind, int(num_rows * args.rows_scale))
        report(compare(bench, pool, names, folder, args.repetitions), demands)
    elif part == "small":
        small_job(Bench.make(spark, f"{folder}/small", "events", 20_000), pool, args.repetitions)
    else:
        for kind, num_rows in (("vectors", 65_536), ("events", 8_192), ("image", 1_024)):
            bench = Bench.make(spark, f"{folder}/memory-{kind}", kind, 2_000)
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
