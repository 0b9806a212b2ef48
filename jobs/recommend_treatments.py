"""Ten treatments for each patient to consider, by ALS, and how well such lists do (gold.recommendation)."""

import sys

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from medpipe import job
from medpipe.evaluate import ranking
from medpipe.recommend.als import AlsSettings, recommend
from medpipe.recommend.popularity import recommend_popular


@job.step(
    reads={"gold.rating": {}, "silver.patient": {}},
    writes=("gold.recommendation", "gold.model_metric"),
    settings=("recommend",),
)
def main(run: job.Run) -> None:
    lake, settings = run.lake, run.settings.recommend
    rated = lake.read("gold.rating", run.as_of).drop("as_of", "run_id").persist()
    # Two sources may speak of one patient.
    patients = lake.read("silver.patient", run.as_of).select("patient_id").distinct().persist()
    lists = recommend(rated, patients, settings).withColumn("as_of", F.lit(run.as_of))
    written = lake.replace(lists, "gold.recommendation", where=run.partition)
    origin = {"as_of": F.lit(run.as_of), "recipe": F.lit("als"), "split": F.lit("time_ordered")}
    rows = measured(rated, settings).withColumns(origin)
    lake.replace(rows, "gold.model_metric", where=run.partition | {"recipe": "als"})
    run.counts |= {"rows_out": written.num_rows}


def measured(rated: DataFrame, settings: AlsSettings) -> DataFrame:
    """model, metric, value, low, high, num_patients: ALS and popularity, both told nothing of what is held out."""
    held = ranking.RankingSettings(top_k=settings.top_k)
    known, later = (part.persist() for part in ranking.time_ordered_split(rated, held))
    patients = later.select("patient_id").distinct()
    by_als = recommend(known, patients, settings)
    by_share = recommend_popular(known, patients, settings.top_k)
    model, baseline = (ranking.per_patient(lists, later, held) for lists in (by_als, by_share))
    return ranking.comparison(model, baseline, "als", "popularity", settings.top_k)


if __name__ == "__main__":
    sys.exit(main())
