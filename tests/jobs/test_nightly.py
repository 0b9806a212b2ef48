import json
import shutil

import deltalake
import pytest
from arro3.core import Table
from pyspark.sql import functions as F

from medpipe import catalog, contracts, job
from medpipe.errors import DataError
from medpipe.jobs import build_cohort, build_ratings, build_sequences, nightly, score_population
from medpipe.privacy import disclosure
from tests import nights


@pytest.fixture
def lake(spark, after_second_night):
    found = after_second_night
    return found.workplace(spark, found.as_ofs[-1]).lake


def test_every_table_of_the_night_is_filled(after_second_night, spark):
    tables = after_second_night.tables(spark)
    others = {
        "ops.run",
        "ops.scored",
        "phi.audit",
        "ops.data_gap",
        "ops.quality_count",
        "gold.data_quality",
        "gold.score_error",
        "gold.image",
        "gold.image_score",
        "gold.molecule",
        "gold.candidate",
        "bronze.image",
        "silver.image",
        "silver.image_pixels",
        "silver.molecule",
        "silver.assay_result",
        "phi.suppression",
        "ops.erasure",
    }
    published = {name for name in contracts.names() if name.split(".")[0] in disclosure.MODES}
    expected = {n for n in contracts.names() if contracts.load(n).view is None} - others - published
    assert {name for name in expected if tables.get(name)} == expected


def test_the_planted_dirt_is_found_to_the_row(after_second_night, lake):
    planted = json.loads((after_second_night.hospital / "truth" / "dirt.json").read_text())
    reasons = {
        "bad_date": "BAD_DATE",
        "orphan": "UNKNOWN_PATIENT",
        "out_of_range": "OUT_OF_RANGE",
        "before_birth": "BEFORE_BIRTH",
        "after_delivery": "AFTER_DELIVERY",
        "field_count": "FIELD_COUNT",
        "bad_id": "BAD_ID",
    }
    for delivery in after_second_night.deliveries:
        kinds = planted[delivery.name]
        refused = lake.read("phi.quarantine").where(F.col("delivery_id").startswith(delivery.name))
        found = {
            r.code: r["count"]
            for r in refused.select(F.explode("reasons").alias("code")).groupBy("code").count().collect()
        }
        assert found == {code: kinds[kind] for kind, code in reasons.items() if kinds.get(kind)}
        copies = lake.read("phi.fate").where(
            F.col("delivery_id").startswith(delivery.name) & (F.col("fate") == "duplicate")
        )
        assert copies.count() == kinds.get("exact_duplicate", 0)


def test_every_patient_of_the_cohort_has_one_sequence_and_one_score(lake, after_second_night):
    as_of = after_second_night.as_ofs[-1]
    wanted = lake.read("gold.cohort", as_of, where={"role": "apply"}).where("exclusion is null").select("patient_id")
    scored = lake.read("gold.score", as_of).select("patient_id")
    assert 0 < wanted.count() == scored.count() == scored.join(wanted, "patient_id", "left_semi").distinct().count()


def test_nothing_recommended_is_taken_already_and_every_patient_has_a_list(lake, after_second_night):
    as_of = after_second_night.as_ofs[-1]
    lists, rated = lake.read("gold.recommendation", as_of), lake.read("gold.rating", as_of)
    assert lists.join(rated, ["patient_id", "treatment"], "left_semi").count() == 0
    stopped = lake.read("gold.recommendation_blocked", as_of)
    assert lists.join(stopped, ["patient_id", "treatment"], "left_semi").count() == 0
    patients = lake.read("silver.patient", as_of).select("patient_id").distinct().count()
    assert lists.select("patient_id").distinct().count() == patients


def test_the_same_night_again_writes_no_version_of_any_table(after_second_night, lake, spark):
    names = [name for name in contracts.names() if contracts.load(name).view is None and lake.exists(name)]
    before = {name: lake.for_run("").version(name) for name in names}
    work = after_second_night.workplace(spark, after_second_night.as_ofs[-1])
    nightly.night(work, after_second_night.deliveries[1:])
    assert {name: work.lake.for_run("").version(name) for name in names} == before


def test_an_older_day_made_again_after_a_newer_one_is_the_same_and_leaves_the_newer_one_alone(
    after_second_night, spark, tmp_path
):
    """What has been delivered since does not show."""
    found = after_second_night.copy_to(tmp_path)
    work = found.workplace(spark, found.as_ofs[0])
    work.ledger.entries = [entry for entry in work.ledger.entries if entry.as_of is None]
    steps = (build_cohort.main, build_sequences.main, score_population.main, build_ratings.main)
    assert [outcome.status for step in steps for outcome in work.run(step)] == ["done"] * 4
    # Scores name the version of the sequences they were made from.
    assert set(nights.differing(found.tables(spark), after_second_night.tables(spark))) <= {"gold.score"}
    before, after = (
        n.workplace(spark, found.as_ofs[0]).lake.read("gold.score").drop("feature_version").collect()
        for n in (after_second_night, found)
    )
    assert sorted(map(str, before)) == sorted(map(str, after))


@pytest.mark.parametrize("column", ["event_at", "recorded_at"])
def test_an_event_of_after_the_index_in_a_sequence_stops_the_job(
    after_first_night, spark, tmp_path, monkeypatch, column
):
    """The filter is taken out, as a wrong change would; the table's own CHECK is what is tested."""
    found = after_first_night.copy_to(tmp_path)
    work = found.workplace(spark, found.as_ofs[0])
    work.lake.spark.conf.set("spark.sql.session.timeZone", "UTC")

    def leaking(versions, index_at):
        other = "recorded_at" if column == "event_at" else "event_at"
        early = versions.where(F.col(other) < F.lit(index_at)) if column == "recorded_at" else versions
        moved = F.greatest(F.col(column), F.lit(index_at))
        return early.withColumn(column, moved)

    monkeypatch.setattr(build_sequences, "before_index", leaking)
    monkeypatch.setattr(work.ledger, "entries", [])
    version = work.lake.for_run("").version("gold.sequence")
    with pytest.raises(DataError, match="CHECK_FAILED: gold.sequence: rows break LEAK_"):
        monkeypatch.setattr("medpipe.tables.Lake._holds", lambda *_: False)
        work.run(build_sequences.main, role="fit")
    assert work.lake.for_run("").version("gold.sequence") == version


def test_an_independent_client_sees_the_same_rows(after_second_night, lake):
    for name in ("gold.score", "gold.cohort", "gold.recommendation", "gold.model_metric"):
        table = deltalake.DeltaTable(lake.path(name))
        found = Table(deltalake.QueryBuilder().register("t", table).execute("select * from t"))
        theirs = sorted(
            zip(*[found[c].to_pylist() for c in ("run_id", lake.read(name).columns[0])], strict=True), key=str
        )
        ours = sorted([(row.run_id, row[0]) for row in lake.read(name).collect()], key=str)
        assert theirs == ours


def test_the_newest_scores_can_be_asked_for_by_name(lake, after_second_night):
    assert "gold.current_score" in catalog.register(lake)
    days = lake.spark.sql("select distinct as_of from gold.current_score").collect()
    assert [row.as_of for row in days] == [after_second_night.as_ofs[-1]]


def test_a_lake_without_a_model_gets_all_but_scores_and_says_so(after_second_night, spark, tmp_path, capsys):
    found = after_second_night.copy_to(tmp_path)
    for part in ("ops/model", "gold/score", "gold/recommendation"):
        shutil.rmtree(found.folder / "lake" / part)
    work = found.workplace(spark, found.as_ofs[1])
    work.ledger.entries = [entry for entry in work.ledger.entries if entry.job != "recommend_treatments"]
    nightly.night(work, [])
    assert "score_population         not run: NO_CURRENT_MODEL" in capsys.readouterr().out
    assert work.lake.exists("gold.recommendation") and not work.lake.exists("gold.score")


def test_the_log_is_json_lines_without_values(after_second_night, spark, tmp_path):
    from medpipe import log

    log.configure(str(tmp_path / "log.jsonl"))
    work = after_second_night.workplace(spark, after_second_night.as_ofs[-1])
    job.announce(work.run(build_sequences.main, role="apply"))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines and all(set(line) <= {"at", "level", "event", *log.FIELDS} for line in lines)
