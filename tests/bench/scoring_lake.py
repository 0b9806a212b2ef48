"""A lake with one table to score and a promoted model, and medpipe's own ways to score it."""

from dataclasses import dataclass, replace
from datetime import date
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import torch
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from medpipe import checkpoints, job, ledger, settings
from medpipe.jobs import score_population
from medpipe.recipes import RISK_GRU, XRAY_CNN, Recipe, Trained
from medpipe.score import forms
from medpipe.score.scorer import SCORED, Scorer
from medpipe.score.settings import ScoreSettings
from medpipe.snapshots import shard_frame
from medpipe.stream.reader import local_path, read
from medpipe.stream.shards import Shard, plan
from medpipe.stream.tokens import vocabulary_of
from medpipe.tables import Lake
from tests.bench import scoring_peers as peers
from tests.bench.scoring_data import NUM_CODES, SIDE, VECTOR_MLP, WIDTH, gold

AS_OF = date(2026, 1, 31)

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
    def make(cls, spark: SparkSession, root: str, kind: str, num_rows: int, num_files: int) -> "Bench":
        recipe, tensors, columns, limit_rows = KINDS[kind]
        lake, where = Lake(spark, root, f"{root}-phi"), {"as_of": AS_OF, "role": "apply"}
        rows = gold(spark, kind, num_rows, num_files).withColumns({name: F.lit(value) for name, value in where.items()})
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


def scores(place: str | list[str], name: str, num_rows: int) -> np.ndarray:
    """Scores by the rows' numbers, float32 (num_rows,), from a folder or from files; NaN where rows are too few."""
    table = pq.ParquetDataset(place, partitioning=None).read([name, "score"])
    found = np.full(num_rows, np.nan, np.float32)
    if table.num_rows == num_rows:
        found[table.column(name).to_pandas().str.lstrip("p").astype(np.int64)] = table.column("score").to_numpy()
    return found
