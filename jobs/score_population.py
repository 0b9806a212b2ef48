"""Score every patient of the apply cohort with the model that is current at --as-of (gold.score)."""

import sys
from functools import partial

from medpipe import checkpoints, job, recipes, snapshots
from medpipe.errors import DataError
from medpipe.score.outputs import score_rows
from medpipe.score.scorer import SCORES, Scorer
from medpipe.stream.shards import plan

SHARD_ROWS = 65_536


def current_model(work: job.Workplace, options: dict) -> dict:
    """What the step's identity depends on beside the features: the model."""
    models = work.lake.for_run("").read("ops.model")
    return {"model_sha256": checkpoints.current(models, options["recipe"], work.as_of).model_sha256}


@job.step(
    reads={"gold.sequence": {"role": "apply"}},
    writes=("gold.score",),
    options=(job.RECIPE,),
    extra=current_model,
)
def main(run: job.Run) -> None:
    lake, recipe = run.lake, recipes.named(run.options["recipe"])
    model = checkpoints.current(lake.read("ops.model"), recipe.name, run.as_of)
    load = partial(checkpoints.load, f"{lake.root}/{model.path}", model.model_sha256)
    snapshot = lake.shards(recipe.table, {"as_of": run.as_of, "role": "apply"}, list(recipe.columns))
    shards = snapshots.shard_frame(lake.spark, plan(snapshot.files, SHARD_ROWS))
    scores = shards.mapInArrow(Scorer(recipe, model.model_sha256, load), SCORES)
    rows = score_rows(scores, run.as_of, recipe.name, model.model_sha256, snapshot.version)
    lake.replace(rows, "gold.score", where=run.partition)
    num_scored = lake.count("gold.score", run.partition)
    if num_scored != snapshot.num_rows:
        raise DataError(
            "ROWS_LOST", f"{recipe.table} has {snapshot.num_rows} patients, gold.score {num_scored}; run again"
        )
    run.counts |= {"rows_in": snapshot.num_rows, "rows_out": num_scored}


if __name__ == "__main__":
    sys.exit(main())
