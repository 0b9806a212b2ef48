"""Safe treatments for each patient to consider, with reasons, and how well such lists do (gold.recommendation).

What the hospital's safety tables (safety.folder) forbid is taken out first; gold.recommendation_blocked tells of it.
"""

import sys

from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from medpipe import job
from medpipe.errors import DataError
from medpipe.evaluate import ranking
from medpipe.features.patients import patient_features
from medpipe.recommend import safety
from medpipe.recommend.catalogue import Catalogue, catalogue
from medpipe.recommend.histories import histories
from medpipe.recommend.lists import Lister, blocked, listed, nothing_listed, safe_lists
from medpipe.recommend.popularity import recommend_popular
from medpipe.recommend.population import in_blocks
from medpipe.recommend.rules import pairs_of, rules_of, with_causes
from medpipe.recommend.served import fitted


@job.step(
    reads={"gold.rating": {}, "silver.patient": {}, "silver.event": {}, "silver.concept": {}},
    writes=(
        "gold.recommendation",
        "gold.recommendation_blocked",
        "gold.model_metric",
        "ops.safety",
        "ops.recommended",
    ),
    settings=("recommend", "als", "ease", "safety"),
    extra=lambda work, options: {"safety": safety.digest(work.settings.safety.folder)},
)
def main(run: job.Run) -> None:
    lake, as_of = run.lake, {"as_of": F.lit(run.as_of)}
    tables = safety.read(run.settings.safety.folder)
    lake.replace(in_force(run, tables).withColumns(as_of), "ops.safety", where=run.partition)
    rated = lake.read("gold.rating", run.as_of).drop("as_of", "run_id").persist()
    # Two sources may speak of one patient.
    people = lake.read("silver.patient", run.as_of).persist()
    patients = people.select("patient_id").distinct().persist()
    names = catalogue(rated, patient_features(people, events_of(run), run.as_of), run.settings.recommend.max_features)
    pairs = pairs_of(tables, names.treatments)
    lists = made(run, rated, people, events_of(run), names, pairs).persist(StorageLevel.MEMORY_AND_DISK)
    lake.replace(told(run, lists, patients).withColumns(as_of), "ops.recommended", where=run.partition)
    written = lake.replace(listed(lists).withColumns(as_of), "gold.recommendation", where=run.partition)
    lake.replace(blocked(lists, pairs).withColumns(as_of), "gold.recommendation_blocked", where=run.partition)
    origin = as_of | {"recipe": F.lit("blend"), "split": F.lit("time_ordered")}
    rows = measured(run, rated, people, names).withColumns(origin)
    lake.replace(rows, "gold.model_metric", where=run.partition | {"recipe": "blend"})
    run.counts |= {"rows_in": patients.count(), "rows_out": written.num_rows}


def events_of(run: job.Run) -> DataFrame:
    return run.lake.read("silver.event", run.as_of)


def in_force(run: job.Run, tables: safety.Tables) -> DataFrame:
    """ops.safety.

    Raises:
        DataError: UNKNOWN_SAFETY_CODES.
    """
    spark = run.lake.spark
    names = sorted({name for table in tables.tables for name in table.names} | set(sum(tables.classes.values(), ())))
    asked = spark.createDataFrame([(name,) for name in names], "concept string")
    known = run.lake.read("silver.concept", run.as_of).select("concept").union(events_of(run).select("concept"))
    found = known.join(F.broadcast(asked), on="concept", how="left_semi").distinct().collect() if names else []
    rows = safety.require_known(tables, [row.concept for row in found], run.settings.safety.max_unknown_share)
    columns = "file string, sha256 string, num_lines long, num_names long, num_unknown long"
    return spark.createDataFrame(rows, columns)


def made(
    run: job.Run, rated: DataFrame, people: DataFrame, events: DataFrame, names: Catalogue, pairs: dict
) -> DataFrame:
    """LISTS of all people, by a model that has learnt from them all."""
    settings, patients = run.settings, people.select("patient_id").distinct()
    if not names.treatments:
        return nothing_listed(patients)
    features = patient_features(people, events, run.as_of)
    rows = histories(rated, features, patients, names.frame(run.lake.spark))
    population = in_blocks(rows, len(names.treatments), len(names.features))
    served = fitted(population, settings.als, settings.ease)
    rules = rules_of(pairs, names.treatments)
    before = run.lake.midnight(run.as_of)
    asked = with_causes(population.rows, events, rules, before, settings.safety.current_days)
    return safe_lists(asked, Lister(served.model, rules, names, served.together, settings.recommend))


def told(run: job.Run, lists: DataFrame, patients: DataFrame) -> DataFrame:
    """ops.recommended.

    Raises:
        DataError: PATIENTS_LOST.
    """
    size = F.size("listed")
    rows = lists.groupBy("path").agg(
        F.count("*").alias("num_patients"),
        F.count_if(size == 0).alias("num_without"),
        F.count_if((size > 0) & (size < run.settings.recommend.top_k)).alias("num_shorter"),
        F.sum(size).alias("num_listed"),
        F.sum(F.size("blocked")).alias("num_blocked"),
    )
    rows = rows.persist()
    num_asked, num_told = patients.count(), rows.agg(F.coalesce(F.sum("num_patients"), F.lit(0))).first()[0]
    if num_asked != num_told:
        raise DataError("PATIENTS_LOST", f"{num_asked} patients were asked about, {num_told} answered: a fault")
    return rows


def measured(run: job.Run, rated: DataFrame, people: DataFrame, names: Catalogue) -> DataFrame:
    """model, metric, value, low, high, num_patients: the blend and popularity, both told nothing of what is held out.

    No safety table is asked: what was given in the past was given.
    """
    held = ranking.RankingSettings(top_k=run.settings.recommend.top_k)
    known, later = (part.persist() for part in ranking.time_ordered_split(rated, held))
    first = later.groupBy("patient_id").agg(F.min("rated_at").alias("until"))
    events = events_of(run).join(first, on="patient_id", how="left")
    events = events.where(F.coalesce(F.col("event_at") < F.col("until"), F.lit(True)))
    lists = listed(made(run, known, people, events, names, {}))
    by_share = recommend_popular(known, first.select("patient_id"), held.top_k)
    model, baseline = (ranking.per_patient(rows, later, held) for rows in (lists, by_share))
    return ranking.comparison(model, baseline, "blend", "popularity", held.top_k)


if __name__ == "__main__":
    sys.exit(main())
