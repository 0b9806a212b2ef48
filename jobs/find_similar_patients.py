"""The 50 nearest patients of each by the treatments they share (gold.patient_similarity)."""

import sys

from pyspark.sql import functions as F

from medpipe import job
from medpipe.recommend.similarity import nearest_patients


@job.step(reads={"gold.rating": {}}, writes=("gold.patient_similarity",), settings=("similarity",))
def main(run: job.Run) -> None:
    settings = run.settings.similarity
    rated = run.lake.read("gold.rating", run.as_of)
    rows = nearest_patients(rated, settings.num_neighbours, settings.block_rows).withColumn("as_of", F.lit(run.as_of))
    run.lake.replace(rows, "gold.patient_similarity", where=run.partition)


if __name__ == "__main__":
    sys.exit(main())
