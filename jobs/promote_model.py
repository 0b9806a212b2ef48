"""Make a trained model the one that scores from --as-of on; the model before it is retired on that date."""

import sys
from datetime import date

from pyspark.sql import Row
from pyspark.sql.types import StructType

from medpipe import checkpoints, contracts, job
from medpipe.errors import UsageError
from medpipe.tables import Lake

MODEL = job.Option("model", "sha256 of a registered model, or newest: the candidate trained last", "newest")


def promotion(work: job.Workplace, options: dict) -> dict:
    """What the step's identity depends on: the model, and the place of its promotion among all of the recipe."""
    lake = work.lake.for_run("")
    chosen, models = choose(lake, work.as_of, options), lake.read("ops.model")
    held = checkpoints.promoted(models, chosen.recipe, work.as_of)
    is_held = held is not None and held.model_sha256 == chosen.model_sha256
    sequence = held.sequence if is_held else checkpoints.num_promotions(models, chosen.recipe) + 1
    return {"model_sha256": chosen.model_sha256, "sequence": sequence}


@job.step(writes=("ops.model",), options=(job.RECIPE, MODEL), extra=promotion)
def main(run: job.Run) -> None:
    lake, models = run.lake, run.lake.read("ops.model")
    model = choose(lake, run.as_of, run.options)
    # A model that cannot be loaded must not become the one every night depends on.
    checkpoints.load(f"{lake.root}/{model.path}", model.model_sha256)
    last = checkpoints.promoted(models, model.recipe, run.as_of)
    if last is not None and last.model_sha256 == model.model_sha256:
        return
    told = {"effective_from": run.as_of, "sequence": checkpoints.num_promotions(models, model.recipe) + 1}
    changes = [(model, "current")] + ([(last, "retired")] if last is not None else [])
    rows = [row.asDict() | {"status": status} | told for row, status in changes]
    columns = StructType([field for field in contracts.load("ops.model").struct if field.name != "run_id"])
    lake.append(
        lake.spark.createDataFrame([tuple(row[name] for name in columns.names) for row in rows], columns), "ops.model"
    )


def choose(lake: Lake, as_of: date, options: dict) -> Row:
    """The candidate's row of ops.model.

    Raises:
        UsageError: UNKNOWN_MODEL, NO_CANDIDATE, SEVERAL_CANDIDATES.
    """
    models = lake.read("ops.model")
    if options["model"] == "newest":
        return checkpoints.newest_candidate(models, options["recipe"], as_of)
    candidates = [row for row in models.collect() if row.status == "candidate" and row.as_of <= as_of]
    known = {row.model_sha256: row for row in candidates if row.recipe == options["recipe"]}
    if options["model"] not in known:
        found = ", ".join(sorted(known)) or "none"
        raise UsageError(
            "UNKNOWN_MODEL", f"--model {options['model']} was not trained for {as_of} or before; these were: {found}"
        )
    return known[options["model"]]


if __name__ == "__main__":
    sys.exit(main())
