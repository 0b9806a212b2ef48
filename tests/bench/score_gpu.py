"""The scoring job on a GPU against the same job on the same machine's CPU cores: scores, rows a second, and what waits.

    PYTHONPATH=. python -m tests.bench.score_gpu --folder /tmp/score_gpu --out report.json

A lake of made-up histories and images, and models that have learned a little. One Spark session on one executor
(`local-cluster`) that owns the GPU its discovery script names; for every way to score, the real job, twice: the first
time its workers also load torch and CUDA. Without a GPU, `--device auto` rehearses it. About 7 minutes on 16 cores.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path

import numpy as np
from pyspark.sql import functions as F

from medpipe import checkpoints
from medpipe.jobs import score_population
from medpipe.recipes import RISK_GRU, XRAY_CNN, Recipe, Trained
from medpipe.score import forms
from medpipe.session import open_session
from medpipe.stream.batches import Encoded
from medpipe.tables import Lake
from medpipe.train.examples import Examples
from medpipe.train.loop import fit
from medpipe.train.settings import TrainSettings
from tests.bench import gpus
from tests.bench.histories import IMAGE, SEQUENCE, VOCABULARY, histories, images

# On `ALL` everybody is scored, on `CROWDED` a few, by another model, once on a GPU with little memory left.
ALL, CROWDED = date(2026, 1, 31), date(2026, 2, 1)
TOLERANCE = 1e-5
SCRIPT = """#!/bin/sh
found=$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | sed 's/.*/"&"/' | paste -s -d ,)
echo "{\\"name\\": \\"gpu\\", \\"addresses\\": [${found:-\\"0\\"}]}"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=400_000)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--crowded", type=int, default=40_000, help="patients scored while the GPU's memory is short")
    parser.add_argument("--room-mib", type=int, default=2600, help="what the GPU then has free")
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--tasks", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="tasks that share the GPU")
    parser.add_argument("--device", default="gpu")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.folder.mkdir(parents=True)
    os.environ |= {"MEDPIPE_SPARK": json.dumps(conf(args))}
    told = {"machine": gpus.machine()}

    def tell(name: str, figures: object) -> None:
        told[name] = figures
        print(name, json.dumps(figures), flush=True)
        args.out.write_text(json.dumps(told, indent=1))

    spark = open_session("score_gpu", json.loads(os.environ["MEDPIPE_SPARK"]))
    lake = Lake(spark, str(args.folder / "lake"), str(args.folder / "lake-phi"))
    tell("lake", fill(lake, args))
    for recipe, num_tasks in ((RISK_GRU, args.tasks), (XRAY_CNN, sorted({args.tasks[0], args.tasks[-2]}))):
        first, expected = scored(lake, args, recipe, ALL, {"device": "cpu"})
        tell(f"{recipe.name} cpu", [first, scored(lake, args, recipe, ALL, {"device": "cpu"}, expected)[0]])
        for tasks in num_tasks:
            asked = {"device": args.device, "gpus_per_task": 1 / tasks}
            found = [scored(lake, args, recipe, ALL, asked, expected)[0] for _ in range(2)]
            tell(f"{recipe.name} gpu, {tasks} tasks at once", found)
    figures, expected = scored(lake, args, RISK_GRU, CROWDED, {"device": "cpu"})
    tell("few cpu", figures)
    asked = {"device": args.device, "gpus_per_task": 0.5}
    tell("few gpu", scored(lake, args, RISK_GRU, CROWDED, asked, expected)[0])
    spark.stop()
    spark = open_session("score_gpu", json.loads(os.environ["MEDPIPE_SPARK"]))
    lake = Lake(spark, lake.root, lake.phi_root)
    with gpus.crowded(args.room_mib):
        tell("few gpu, memory short", scored(lake, args, RISK_GRU, CROWDED, asked, expected)[0])
    spark.stop()
    tell("hidden", hidden(args))


def conf(args: argparse.Namespace) -> dict[str, str]:
    """One executor of all cores and one GPU; no task asks for it by itself."""
    script = args.folder / "gpus.sh"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    return {
        "spark.master": f"local-cluster[1,{args.cores},{2048 + 512 * args.cores}]",
        "spark.executor.memory": f"{1024 + 512 * args.cores}m",
        "spark.driver.memory": "4g",
        "spark.worker.resource.gpu.amount": "1",
        "spark.worker.resource.gpu.discoveryScript": str(script),
        "spark.executor.resource.gpu.amount": "1",
        "spark.executor.resource.gpu.discoveryScript": str(script),
        "spark.sql.shuffle.partitions": str(args.cores),
    }


def hidden(args: argparse.Namespace) -> list:
    """The job on workers that cannot see the GPU Spark gives them: exit code and message."""
    flags = ["--lake", str(args.folder / "lake"), "--as-of", str(CROWDED), "--log", os.devnull]
    flags += ["--set", "score.device=gpu"]
    command = [sys.executable, "-W", "ignore", "-m", "medpipe.jobs.score_population", *flags]
    done = subprocess.run(command, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True)
    return [done.returncode, *(line for line in done.stderr.splitlines() if line.startswith("medpipe"))]


def fill(lake: Lake, args: argparse.Namespace) -> dict:
    """Histories, images and the models that are current; seconds, and the forms the models score in."""
    started, spark, run = time.monotonic(), lake.spark, lake.for_run("made-up")
    for day, num_rows in ((ALL, args.patients), (CROWDED, args.crowded)):
        here = {"as_of": day, "role": "apply"}
        rows = spark.range(num_rows, numPartitions=2 * args.cores).mapInArrow(histories, SEQUENCE)
        run.replace(rows.withColumns({name: F.lit(value) for name, value in here.items()}), "gold.sequence", here)
    here = {"as_of": ALL, "role": "apply"}
    rows = spark.range(args.images, numPartitions=2 * args.cores).mapInArrow(images, IMAGE)
    run.replace(rows.withColumns({name: F.lit(value) for name, value in here.items()}), "gold.image", here)
    return {"seconds": round(time.monotonic() - started, 1), "forms": register(run)}


def register(lake: Lake) -> list[dict]:
    """The models, current, in the form that is chosen for one core."""
    rows, told = [], []
    for seed, (recipe, day) in enumerate(((RISK_GRU, ALL), (XRAY_CNN, ALL), (RISK_GRU, CROWDED))):
        trained, learned = model(recipe, seed)
        trained = replace(trained, form=forms.choose(recipe, trained, learned))
        saved = checkpoints.save(f"{lake.root}/models", trained, {}, {}, {})
        rows.append((recipe.name, saved.sha256, day, "current", day, 1, f"models/{saved.folder}", "{}", "{}", "{}"))
        told.append({"recipe": recipe.name} | asdict(trained.form))
    columns = "recipe string, model_sha256 string, as_of date, status string, effective_from date, sequence long"
    frame = lake.spark.createDataFrame(rows, f"{columns}, path string, config string, metrics string, data string")
    lake.append(frame, "ops.model")
    return told


def model(recipe: Recipe, seed: int, num_rows: int = 3000) -> tuple[Trained, Encoded]:
    """A model that has learned a little, and the rows it has learned from."""
    known, make = (VOCABULARY, histories) if recipe is RISK_GRU else (None, images)
    encoded = recipe.read(next(make(iter([gpus.ids(num_rows)]))), known)
    chance = np.random.default_rng(seed)
    if recipe is RISK_GRU:  # who has had much of some concepts of late
        much = (encoded.tokens % 5 == 0) * np.exp(-encoded.days_before / 1000)
        found = np.log(np.add.reduceat(much, encoded.offsets[:-1]) + 1e-3)
    else:  # what grows lighter from left to right
        found = encoded.pixels[:, :, 14:].mean(axis=(1, 2)) - encoded.pixels[:, :, :14].mean(axis=(1, 2))
    found = found + chance.normal(0, found.std(), num_rows)
    splits = np.where(np.arange(num_rows) % 6, "train", "tune").astype(object)
    examples = Examples(encoded, (found > np.quantile(found, 0.7)).astype(np.float32), splits)
    config, settings = recipe.config(known, encoded), TrainSettings(max_epochs=3, batch_size=64, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit(recipe, config, examples, settings, Path(folder))
    return Trained(recipe.name, config, fitted.weights, known, recipe.form), encoded.take(np.arange(512))


def scored(
    lake: Lake, args: argparse.Namespace, recipe: Recipe, day: date, asked: dict, expected: np.ndarray | None = None
) -> tuple[dict, np.ndarray]:
    """Runs the job: what it took, what the GPU did, how far the scores are from those expected; and the scores."""
    # The clock, else the ledger would know the run.
    asked = asked | {"max_error_ratio": 0.01 + time.monotonic() / 1e9}
    flags = ["--lake", lake.root, "--as-of", str(day), "--recipe", recipe.name, "--log", os.devnull]
    flags += [flag for key, value in asked.items() for flag in ("--set", f"score.{key}={value}")]
    with gpus.watched() as seen, timed("stage") as staged:
        started = time.monotonic()
        code = score_population.main(flags)
        seconds = time.monotonic() - started
    if code:
        return {"exit_code": code} | seen, np.empty(0)
    fresh, here = lake.for_run(""), {"recipe": recipe.name}
    rows = fresh.read(recipe.scores_table, day, here).select(recipe.columns[0], "score", "device").toArrow()
    rows = rows.sort_by(recipe.columns[0])
    scores, counts = rows["score"].to_numpy(), rows["device"].value_counts().to_pylist()
    told = {"exit_code": code, "rows": len(scores), "devices": {each["values"]: each["counts"] for each in counts}}
    told |= {"job_s": round(seconds, 2), "stage_s": round(staged[0], 2), "stage_rows_s": round(len(scores) / staged[0])}
    told |= {"errors": fresh.read("gold.score_error", day, here).count()} | seen
    if expected is None:
        return told | {"spread": [round(float(q), 4) for q in np.quantile(scores, (0.05, 0.5, 0.95))]}, scores
    difference = float(np.abs(scores - expected).max()) if len(scores) == len(expected) else None
    return told | {"max_difference": difference, "agrees": difference is not None and difference <= TOLERANCE}, scores


@contextlib.contextmanager
def timed(name: str):
    """Seconds of each call of that function of the job."""
    function, seconds = getattr(score_population, name), []

    def call(*args):
        started = time.monotonic()
        try:
            function(*args)
        finally:
            seconds.append(time.monotonic() - started)

    setattr(score_population, name, call)
    try:
        yield seconds
    finally:
        setattr(score_population, name, function)


if __name__ == "__main__":
    main()
