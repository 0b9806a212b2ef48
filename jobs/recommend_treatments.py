"""Safe treatments for each patient to consider, with reasons, and how well such lists do (gold.recommendation).

What the hospital's safety tables (safety.folder) forbid is taken out first; gold.recommendation_blocked tells of it.
What its formulary names and hardly anybody has had is listed by the classes it shares with others.
"""

import sys
from collections.abc import Collection

from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from medpipe import job
from medpipe.errors import DataError
from medpipe.evaluate import ranking
from medpipe.evaluate.measure import Judged, figures, measure
from medpipe.features.patients import patient_features, subgroups
from medpipe.recommend import content, safety
from medpipe.recommend.catalogue import Catalogue, catalogue
from medpipe.recommend.content import Offer, OfKnown
from medpipe.recommend.histories import histories
from medpipe.recommend.linear import popularity
from medpipe.recommend.lists import Lister, blocked, listed, nothing_listed, safe_lists
from medpipe.recommend.population import in_blocks
from medpipe.recommend.rules import Rules, pairs_of, rules_of, with_causes
from medpipe.recommend.served import fitted


@job.step(
    reads={"gold.rating": {}, "silver.patient": {}, "silver.encounter": {}, "silver.event": {}, "silver.concept": {}},
    writes=(
        "gold.recommendation",
        "gold.recommendation_blocked",
        "gold.model_metric",
        "ops.safety",
        "ops.recommended",
    ),
    settings=("recommend", "als", "ease", "blend", "safety"),
    extra=lambda work, options: {"safety": safety.digest(work.settings.safety.folder)},
)
def main(run: job.Run) -> None:
    lake, settings, as_of = run.lake, run.settings.recommend, {"as_of": F.lit(run.as_of)}
    tables = safety.read(run.settings.safety.folder)
    lake.replace(in_force(run, tables).withColumns(as_of), "ops.safety", where=run.partition)
    rated = lake.read("gold.rating", run.as_of).drop("as_of", "run_id").persist()
    # Two sources may speak of one patient.
    patients = lake.read("silver.patient", run.as_of).select("patient_id").distinct().persist()
    features = features_of(run, None).persist()
    names = catalogue(rated, features, settings.max_treatments, settings.max_features)
    rare = content.rare_of(rated, tables.formulary.treatments, settings.min_patients)
    offer = content.offer(names, rare, tables.classes)
    tell_left_out(rated, offer, tables.formulary.treatments)
    pairs = pairs_of(tables, offer.all.treatments)
    rules = rules_of(pairs, offer.all.treatments)
    rows = histories(rated, features, patients, offer.all.frame(lake.spark))
    lists = made(run, rows, offer, rules).persist(StorageLevel.MEMORY_AND_DISK)
    lake.replace(told(run, lists, patients).withColumns(as_of), "ops.recommended", where=run.partition)
    rows = content.marked(listed(lists), offer).withColumns(as_of)
    written = lake.replace(rows, "gold.recommendation", where=run.partition)
    lake.replace(blocked(lists, pairs).withColumns(as_of), "gold.recommendation_blocked", where=run.partition)
    rows = measured(run, rated, patients, offer.known, rules).withColumns(as_of | {"recipe": F.lit("blend")})
    lake.replace(rows, "gold.model_metric", where=run.partition | {"recipe": "blend"})
    run.counts |= {"rows_in": patients.count(), "rows_out": written.num_rows}


def tell_left_out(rated: DataFrame, offer: Offer, formulary: Collection[str]) -> None:
    """How many treatments can stand in no list."""
    names = offer.all.frame(rated.sparkSession).where("kind = 'treatment'").select(F.col("name").alias("treatment"))
    num_rare = rated.join(F.broadcast(names), on="treatment", how="left_anti").select("treatment").distinct().count()
    num_known = len(offer.known.treatments)
    if num_rare:
        print(f"  {num_rare:,} rare treatments are in no list: recommend.max_treatments is {num_known:,}")
    if num_alone := len(set(formulary).difference(offer.all.treatments)):
        print(f"  {num_alone:,} treatments of {safety.FORMULARY} are in no list: they share no class with known ones")


def in_force(run: job.Run, tables: safety.Tables) -> DataFrame:
    """ops.safety.

    Raises:
        DataError: UNKNOWN_SAFETY_CODES.
    """
    spark = run.lake.spark
    names = {name for table in tables.tables for name in table.names}.union(*tables.classes.values())
    names |= set(tables.formulary.treatments)
    asked = spark.createDataFrame([(name,) for name in sorted(names)], "concept string")
    known = run.lake.read("silver.concept", run.as_of).select("concept")
    known = known.union(run.lake.read("silver.event", run.as_of).select("concept"))
    found = known.join(F.broadcast(asked), on="concept", how="left_semi").distinct().collect() if names else []
    rows = safety.require_known(tables, [row.concept for row in found], run.settings.safety.max_unknown_share)
    columns = "file string, sha256 string, num_lines long, num_names long, num_unknown long"
    return spark.createDataFrame(rows, columns)


def features_of(run: job.Run, until: DataFrame | None) -> DataFrame:
    """patient_id, feature.

    Args:
        until: patient_id, until; what happened from then on is not looked at. None: all is.
    """
    read = {name: run.lake.read(f"silver.{name}", run.as_of) for name in ("patient", "encounter", "event")}
    if until is not None:
        for name, at in (("encounter", "started_at"), ("event", "event_at")):
            rows = read[name].join(until, on="patient_id", how="left")
            read[name] = rows.where(F.coalesce(F.col(at) < F.col("until"), F.lit(True)))
    known = (read["patient"], read["encounter"], read["event"])
    return patient_features(*known, run.as_of, run.settings.recommend.min_patients)


def made(run: job.Run, rows: DataFrame, offer: Offer, rules: Rules) -> DataFrame:
    """LISTS of all patients of HISTORIES, by a model that has learnt from them all."""
    settings, names = run.settings, offer.all
    if not names.treatments:
        return nothing_listed(rows)
    population = in_blocks(rows, len(names.treatments), len(names.features))
    taught = OfKnown(population, len(offer.known.treatments))
    served = fitted(taught, settings.als, settings.ease, settings.blend)
    model, together = content.with_new(served, offer)
    events, midnight = run.lake.read("silver.event", run.as_of), run.lake.midnight(run.as_of)
    asked = with_causes(population.rows, events, rules, midnight, settings.safety.current_days)
    return safe_lists(asked, Lister(model, rules, names, together, settings.recommend))


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
    require_all(num_asked, num_told)
    return rows


def require_all(num_asked: int, num_told: int) -> None:
    """
    Raises:
        DataError: PATIENTS_LOST.
    """
    if num_asked != num_told:
        raise DataError(
            "PATIENTS_LOST", f"{num_asked} patients have a record, {num_told} an answer: a fault of medpipe"
        )


def measured(run: job.Run, rated: DataFrame, patients: DataFrame, names: Catalogue, rules: Rules) -> DataFrame:
    """Figures of the blend, of its parts and of popularity, all told nothing of what is held out.

    Held out are whole patients, and the last treatments of the others; of both kinds nothing is looked at that happened
    from the first of these treatments on.

    No safety table keeps anything out of these lists: what was given in the past was given. How often they would hold
    an interaction is one of the figures.
    """
    lake, settings = run.lake, run.settings
    if not names.treatments:
        return lake.read("gold.model_metric").drop("as_of", "recipe", "run_id").limit(0)
    held = ranking.RankingSettings(top_k=settings.recommend.top_k)
    known, later = (part.persist() for part in ranking.both_splits(rated, held))
    first = later.groupBy("patient_id").agg(F.min("rated_at").alias("until"))
    frame = names.frame(lake.spark)
    rows = histories(known, features_of(run, first), patients, frame)
    population = in_blocks(rows, len(names.treatments), len(names.features))
    served = fitted(population, settings.als, settings.ease, settings.blend)
    models = {"blend": served.model, "popularity": popularity(served.counted)}
    models |= dict(zip(("exact_als", "ease", "feature_ridge"), served.model.models, strict=True))
    share = served.counted.treatments.diagonal() / max(served.counted.num_patients, 1)
    # Of the known treatments; new ones stand behind them.
    interacts = rules.together[: len(share), : len(share)] if rules.together.any() else None
    judged = Judged(models, share, interacts, len(names.features), held.top_k)
    wanted = histories(later, features_of(run, first).limit(0), patients, frame).select("patient_id", "treatments")
    asked = population.rows.join(wanted.withColumnRenamed("treatments", "later"), on="patient_id", how="inner")
    groups = subgroups(lake.read("silver.patient", run.as_of), run.as_of)
    rows = measure(asked, judged).withColumn("split", ranking.split_of(held)).persist()
    return figures(rows, groups, "popularity", judged)


if __name__ == "__main__":
    sys.exit(main())
