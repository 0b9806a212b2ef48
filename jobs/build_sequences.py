"""Turn each cohort patient's events before the index into one row of arrays (gold.sequence)."""

import sys

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from medpipe import job
from medpipe.cohort.eligibility import index_date
from medpipe.features.sequences import before_index, sequences

FILE_ROWS = 16_384


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
    lake.replace(laid_out(rows.withColumn("as_of", F.lit(run.as_of)), cohort), "gold.sequence", where=run.partition)


def laid_out(rows: DataFrame, cohort: DataFrame) -> DataFrame:
    """Files of about FILE_ROWS patients, by their ids alone: on any machine a patient is scored beside the same others.

    What stands in one batch decides a score's last bits.
    """
    num_files = 1 + cohort.where("exclusion is null").count() // FILE_ROWS
    return rows.repartition(num_files, "patient_id").sortWithinPartitions("patient_id")


if __name__ == "__main__":
    sys.exit(main())
