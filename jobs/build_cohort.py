"""Decide for whom, on which index date, a risk is asked (gold.cohort)."""

import sys
from datetime import timedelta

from pyspark.sql import functions as F

from medpipe import job
from medpipe.cohort.eligibility import Window, cohort, index_date


@job.step(
    reads={"silver.patient": {}, "silver.observation_period": {}, "silver.event": {}},
    writes=("gold.cohort",),
    settings=("cohort",),
    options=(job.ROLE,),
)
def main(run: job.Run) -> None:
    lake, settings = run.lake, run.settings.cohort
    start = index_date(run.as_of, run.options["role"], settings)
    end = start + timedelta(days=settings.time_at_risk_days)
    window = Window(start, lake.midnight(start), lake.midnight(end))
    patients, periods, events = (
        lake.read(name, run.as_of) for name in ("silver.patient", "silver.observation_period", "silver.event")
    )
    rows = cohort(patients, periods, events, run.options["role"], window, settings)
    lake.replace(rows.withColumn("as_of", F.lit(run.as_of)), "gold.cohort", where=run.partition)


if __name__ == "__main__":
    sys.exit(main())
