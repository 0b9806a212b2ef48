"""Turn each cohort patient's events before the index into one row of arrays (gold.sequence)."""

import sys

from pyspark.sql import functions as F

from medpipe import job
from medpipe.cohort.eligibility import index_date
from medpipe.features.sequences import before_index, sequences


@job.step(
    reads={"gold.cohort": {"role": "apply"}, "silver.patient": {}, "silver.event": {}},
    writes=("gold.sequence",),
    settings=("cohort", "sequences"),
    options=(job.ROLE,),
)
def main(run: job.Run) -> None:
    lake = run.lake
    cohort = lake.read("gold.cohort", run.as_of, where={"role": run.options["role"]})
    index_at = lake.midnight(index_date(run.as_of, run.options["role"], run.settings.cohort))
    events = before_index(lake.history("silver.event", run.as_of), index_at)
    patients = lake.read("silver.patient", run.as_of)
    rows = sequences(cohort, patients, events, lake.timezone, run.settings.sequences)
    lake.replace(rows.withColumn("as_of", F.lit(run.as_of)), "gold.sequence", where=run.partition)


if __name__ == "__main__":
    sys.exit(main())
