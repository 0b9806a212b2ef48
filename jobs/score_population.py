"""Score every patient or image, or generate molecules, with the recipe's model that is current at --as-of."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from medpipe import checkpoints, job, recipes
from medpipe.errors import DataError, task_of_dead_worker
from medpipe.recipes import Recipe
from medpipe.score import devices
from medpipe.score.isolation import Isolated
from medpipe.score.outputs import error_rows, placed, score_rows
from medpipe.score.scorer import SCORED, Scorer
from medpipe.snapshots import Snapshot, shard_frame
from medpipe.stream.noise import noise_file
from medpipe.stream.shards import Shard, plan

ISOLATE = job.Option(
    "isolate",
    "score in processes apart, so that a row that kills its process gets a code and the others their scores; "
    "takes more memory",
    "no",
    ("no", "yes"),
    is_switch=True,
)


def current_model(work: job.Workplace, options: dict) -> dict:
    """What the step's identity depends on beside the features: the model."""
    models = work.lake.for_run("").read("ops.model")
    return {"model_sha256": checkpoints.current(models, options["recipe"], work.as_of).model_sha256}


def features(options: dict) -> dict:
    """The table of the recipe, if it has one."""
    table = recipes.named(options["recipe"]).table
    return {table: {"role": "apply"}} if table else {}


@job.step(
    reads=features,
    writes=("gold.score", "gold.image_score", "gold.candidate", "gold.score_error"),
    settings=("score",),
    options=(job.RECIPE, ISOLATE),
    extra=current_model,
)
def main(run: job.Run) -> None:
    lake, recipe = run.lake, recipes.named(run.options["recipe"])
    model = checkpoints.current(lake.read("ops.model"), recipe.name, run.as_of)
    snapshot = pinned(run, recipe)
    parts = parts_of(run, snapshot)
    score = scoring(run, recipe, model)
    if len(parts) == 1:
        # It leaves a killed run nothing to go on from: the executors keep it until it is published.
        scored = placed(score(parts[0]).persist(), place_of(run, snapshot) | {"part": 0})
    else:
        scored = stage(run, parts, score, snapshot)
    with shards_named(parts[0]):
        codes = {row.code: row["count"] for row in scored.groupBy("code").count().collect()}
    require_all(recipe, sum(codes.values()), snapshot)
    require_few_errors(run, codes, snapshot.num_rows)
    scores = lake.replace(score_rows(scored, recipe, model.model_sha256), recipe.scores_table, where=run.partition)
    errors = lake.replace(error_rows(scored, model.model_sha256), "gold.score_error", where=run.partition)
    require_all(recipe, scores.num_rows + errors.num_rows, snapshot)
    if lake.exists("ops.scored"):
        # Of a killed run, too, that had more parts than this one.
        lake.replace(scored.limit(0).drop("run_id"), "ops.scored", where=run.partition)
    run.counts |= {
        "rows_in": snapshot.num_rows,
        "rows_out": scores.num_rows,
        "rows_quarantined": errors.num_rows,
    }


def pinned(run: job.Run, recipe: Recipe) -> Snapshot:
    """The files to read, or the noise to draw."""
    if recipe.table is not None:
        return run.lake.shards(recipe.table, {"as_of": run.as_of, "role": "apply"}, list(recipe.columns))
    num_molecules = run.settings.score.num_molecules
    return Snapshot(0, (noise_file(run.settings.score.seed, num_molecules, recipe.batch_rows),), num_molecules)


def parts_of(run: job.Run, snapshot: Snapshot) -> list[list[Shard]]:
    """The plan in parts of score.tasks_per_part shards; of nothing one empty part."""
    shards, size = plan(snapshot.files, run.settings.score.shard_rows), run.settings.score.tasks_per_part
    return [shards[start : start + size] for start in range(0, max(len(shards), 1), size)]


def scoring(run: job.Run, recipe: Recipe, model: Row) -> Callable[[list[Shard]], DataFrame]:
    """What makes of shards the scorer's rows."""
    lake, settings = run.lake, run.settings.score
    load = partial(checkpoints.load, f"{lake.root}/{model.path}", model.model_sha256)
    scorer = Scorer(recipe, model.model_sha256, load, settings.device)
    scorer = Isolated(scorer) if run.options["isolate"] == "yes" else scorer
    profile = devices.profile(lake.spark.conf.get, settings)
    return lambda shards: shard_frame(lake.spark, shards).mapInArrow(scorer, SCORED, profile=profile)


def stage(
    run: job.Run, parts: list[list[Shard]], score: Callable[[list[Shard]], DataFrame], snapshot: Snapshot
) -> DataFrame:
    """ops.scored of this run, after each part that does not stand there yet has been stored in a commit of its own."""
    done = {row.part for row in staged_of(run, snapshot).select("part").distinct().collect()}
    for part, shards in enumerate(parts):
        if part in done:
            continue
        place = place_of(run, snapshot) | {"part": part}
        with shards_named(shards):
            stored = run.lake.replace(placed(score(shards), place), "ops.scored", where=place)
        num_planned = sum(shard.num_rows for shard in shards)
        if stored.num_rows != num_planned:
            raise DataError("ROWS_LOST", f"ops.scored: {num_planned} rows planned, {stored.num_rows} stored; run again")
    return staged_of(run, snapshot)


@contextmanager
def shards_named(group: list[Shard]) -> Iterator[None]:
    """Raises DataError SHARD_KILLS_WORKER, with the shard, where a task's worker died whenever it was tried."""
    try:
        yield
    except Exception as failure:
        task = task_of_dead_worker(failure)
        if task is None:
            raise
        raise DataError(
            "SHARD_KILLS_WORKER",
            f"{group[task]}: the process that scores it is killed each time; nothing was published: run again with "
            "--isolate, which finds the rows that do it; if it was given, reading the file does it: restore the file",
        ) from None


def staged_of(run: job.Run, snapshot: Snapshot) -> DataFrame:
    """What this run has put into ops.scored from the files of the snapshot."""
    return run.lake.read("ops.scored", where=place_of(run, snapshot)).where(F.col("run_id") == run.run_id)


def place_of(run: job.Run, snapshot: Snapshot) -> dict:
    """Where the parts of one plan lie: after an OPTIMIZE the files, and with them the parts, are others."""
    return run.partition | {"feature_version": snapshot.version}


def require_all(recipe: Recipe, num_rows: int, snapshot: Snapshot) -> None:
    """Raises DataError ROWS_LOST where other than the rows to be scored are scored or refused."""
    if num_rows != snapshot.num_rows:
        told = f"{recipe.name} has {snapshot.num_rows} rows, scored or refused are {num_rows}"
        raise DataError("ROWS_LOST", f"{told}; run again")


def require_few_errors(run: job.Run, codes: dict[str | None, int], num_rows: int) -> None:
    """Raises DataError TOO_MANY_ERRORS, with the codes, beyond score.max_error_ratio.

    Args:
        codes: code -> rows, None for those with a score.
    """
    codes = {code: count for code, count in codes.items() if code is not None}
    num_errors, limit = sum(codes.values()), run.settings.score.max_error_ratio
    if num_errors > limit * num_rows:
        told = ", ".join(f"{code} {count}" for code, count in sorted(codes.items()))
        raise DataError(
            "TOO_MANY_ERRORS",
            f"{num_errors} of {num_rows} rows have no score ({told}), score.max_error_ratio is {limit}; "
            "nothing was published: mend the feature table, or allow more",
        )


if __name__ == "__main__":
    sys.exit(main())
