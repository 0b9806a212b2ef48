"""Choose the molecules a generator learns from: all that are known before --as-of (gold.molecule)."""

import sys

from pyspark.sql import functions as F

from medpipe import job
from medpipe.cohort.splits import split_of


@job.step(reads={"silver.molecule": {}}, writes=("gold.molecule",))
def main(run: job.Run) -> None:
    known = run.lake.read("silver.molecule", run.as_of)
    # A molecule of a scaffold seen in training is no test; one without rings is its own.
    split = split_of(F.coalesce("scaffold", "molecule_id"))
    rows = known.select(F.lit(run.as_of).alias("as_of"), "molecule_id", "smiles", split.alias("split"))
    run.lake.replace(rows, "gold.molecule", where=run.partition)


if __name__ == "__main__":
    sys.exit(main())
