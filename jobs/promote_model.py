"""Make a trained model the one that scores from --as-of on; the model before it is retired on that date."""

import sys
from datetime import date

from pyspark.sql import Row
from pyspark.sql.types import StructType

from medpipe import checkpoints, contracts, job
from medpipe.errors import UsageError
from medpipe.tables import Lake

MODEL = job.Option("model", "sha256 of a registered model, or newest: the candidate trained last", "newest")


def chosen_model(work: job.Workplace, options: dict) -> dict:
    """What the step's identity depends on: the model to be promoted."""
    return {"model_sha256": choose(work.lake.for_run(""), work.as_of, options).model_sha256}


@job.step(writes=("ops.model",), options=(job.RECIPE, MODEL), extra=chosen_model)
def main(run: job.Run) -> None:
    lake, models = run.lake, run.lake.read("ops.model")
    model = choose(lake, run.as_of, run.options)
    # A model that cannot be loaded must not become the one every night depends on.
    checkpoints.load(f"{lake.root}/{model.path}", model.model_sha256)
    last = checkpoints.promoted(models, model.recipe, run.as_of)
    if last is not None and last.model_sha256 == model.model_sha256:
        return
    changes = [(model, "current")] + ([(last, "retired")] if last is not None else [])
    rows = [row.asDict() | {"status": status, "effective_from": run.as_of} for row, status in changes]
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
    known = {row.model_sha256: row for row in models.collect() if row.status == "candidate"}
    if options["model"] not in known:
        found = ", ".join(sorted(known)) or "none"
        raise UsageError("UNKNOWN_MODEL", f"--model {options['model']} is not registered; registered: {found}")
    return known[options["model"]]


if __name__ == "__main__":
    sys.exit(main())
