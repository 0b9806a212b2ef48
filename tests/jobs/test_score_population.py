from dataclasses import replace
from functools import partial

import pytest

from medpipe import recipes
from medpipe.errors import DataError
from medpipe.jobs import score_population
from medpipe.score.settings import ScoreSettings
from medpipe.stream.reader import read
from medpipe.stream.shards import plan
from tests import nights
from tests.faults import crashes
from tests.score.test_isolation import deadly, segmentation_fault


def workplace(found, spark, **settings):
    """Of the second night, whose scores are to be made again."""
    work = found.workplace(spark, found.as_ofs[1])
    work.ledger.entries = [entry for entry in work.ledger.entries if entry.job != "score_population"]
    return replace(work, settings=work.settings.model_copy(update={"score": ScoreSettings(**settings)}))


def rewrite(found, spark, change=lambda rows: rows, num_files=1):
    """Puts the second night's sequences into other files."""
    path = found.workplace(spark, found.as_ofs[1]).lake.path("gold.sequence")
    # A table of ours refuses such histories by itself; one that is mended by hand may not.
    spark.sql(f"alter table delta.`{path}` drop constraint if exists medpipe_ragged")
    here = f"as_of = DATE'{found.as_ofs[1]}' and role = 'apply'"
    rows = change(spark.read.format("delta").load(path).where(here)).repartition(num_files)
    rows.write.format("delta").mode("overwrite").option("replaceWhere", here).save(path)


@pytest.fixture
def found(after_second_night, tmp_path):
    return after_second_night.copy_to(tmp_path)


def test_a_killed_scoring_goes_on_after_the_parts_it_has_stored(found, spark, tmp_path):
    rewrite(found, spark, num_files=4)
    (tmp_path / "whole").mkdir()
    whole = found.copy_to(tmp_path / "whole")
    workplace(whole, spark, tasks_per_part=1).run(score_population.main)

    def die(hook):
        # The table is made first.
        if hook == "after ops.scored 3":
            raise KeyboardInterrupt

    with crashes.hooked(die), pytest.raises(KeyboardInterrupt):
        workplace(found, spark, tasks_per_part=1).run(score_population.main)
    hooks = []
    with crashes.hooked(hooks.append):
        workplace(found, spark, tasks_per_part=1).run(score_population.main)
    # Two parts were left, and what was stored is taken away in the end.
    assert [hook for hook in hooks if "before ops.scored" in hook] == [f"before ops.scored {n}" for n in (1, 2, 3)]
    lakes = [n.workplace(spark, n.as_ofs[1]).lake for n in (found, whole)]
    for name in ("gold.score", "gold.score_error", "ops.scored"):
        one, other = (nights.content(lake, name) for lake in lakes)
        assert one == other
    assert nights.content(lakes[0], "ops.scored") == []


def test_a_single_part_is_published_without_being_stored_before(found, spark, after_second_night):
    rewrite(found, spark, num_files=2)
    hooks = []
    with crashes.hooked(hooks.append):
        workplace(found, spark, max_error_ratio=0.02).run(score_population.main)
    assert [hook for hook in hooks if hook.startswith("before")] == [
        f"before {name} 1" for name in ("gold.score", "gold.score_error", "ops.run")
    ]
    assert {row[2] for row in scores(found, spark)} == {row[2] for row in scores(after_second_night, spark)}


@pytest.mark.parametrize("num_files", [2, 1])
def test_a_killed_scoring_is_run_again_on_the_files_an_optimize_has_left(found, spark, after_second_night, num_files):
    rewrite(found, spark, num_files=3)

    def die(hook):
        if hook == "after ops.scored 1":
            raise KeyboardInterrupt

    with crashes.hooked(die), pytest.raises(KeyboardInterrupt):
        workplace(found, spark, tasks_per_part=1).run(score_population.main)
    rewrite(found, spark, num_files=num_files)
    (done,) = workplace(found, spark, tasks_per_part=1).run(score_population.main)
    lakes = [n.workplace(spark, n.as_ofs[1]).lake.for_run("") for n in (found, after_second_night)]
    found_scores, expected = (
        {row.patient_id: row.score for row in lake.read("gold.score", found.as_ofs[1]).collect()} for lake in lakes
    )
    assert found_scores == pytest.approx(expected, abs=1e-6) and done.num_rows == len(expected)
    assert nights.content(lakes[0], "ops.scored") == []


def test_a_table_with_deletion_vectors_is_scored_from_a_copy_which_is_gone_afterwards(found, spark, after_second_night):
    lake = found.workplace(spark, found.as_ofs[1]).lake
    path, copies = lake.path("gold.sequence"), found.folder / "lake" / "ops" / "staged" / "gold.sequence"
    patients = lake.for_run("").read("gold.sequence", found.as_ofs[1], {"role": "apply"})
    gone = patients.agg({"patient_id": "min"}).first()[0]
    spark.sql(f"alter table delta.`{path}` set tblproperties ('delta.enableDeletionVectors' = true)")
    spark.sql(f"delete from delta.`{path}` where patient_id = '{gone}'")

    def die(hook):
        if hook == "after gold.score 1":
            raise KeyboardInterrupt

    with crashes.hooked(die), pytest.raises(KeyboardInterrupt):
        workplace(found, spark, tasks_per_part=1).run(score_population.main)
    assert len(list(copies.glob("*/*/_SUCCESS"))) == 1
    spark.sql(f"optimize delta.`{path}`")
    (done,) = workplace(found, spark, tasks_per_part=1).run(score_population.main)
    other = after_second_night.workplace(spark, found.as_ofs[1]).lake
    scores, expected = (
        {row.patient_id: row.score for row in one.for_run("").read("gold.score", found.as_ofs[1]).collect()}
        for one in (lake, other)
    )
    expected.pop(gone)
    assert scores == pytest.approx(expected, abs=1e-6) and done.num_rows == len(expected)
    assert not list(copies.rglob("*.parquet"))


def test_patients_without_a_score_are_told_and_counted(found, spark):
    first = "patient_id = (select min(patient_id) from {rows} where as_of = (select max(as_of) from {rows}))"
    rewrite(found, spark, lambda rows: spark.sql(CUT.format(broken=first), rows=rows))
    (done,) = workplace(found, spark, tasks_per_part=1).run(score_population.main)
    work = found.workplace(spark, found.as_ofs[1])
    lake, entry = work.lake.for_run(""), work.ledger.entries[-1]
    errors = lake.read("gold.score_error", found.as_ofs[1]).collect()
    assert [row.code for row in errors] == ["RAGGED"]
    assert lake.read("gold.score", found.as_ofs[1]).count() == done.num_rows == entry.rows_out
    assert entry.rows_in == entry.rows_out + entry.rows_quarantined and entry.rows_quarantined == 1


def test_too_many_patients_without_a_score_publish_nothing(found, spark):
    rewrite(found, spark, lambda rows: spark.sql(CUT.format(broken="true"), rows=rows))
    lake = found.workplace(spark, found.as_ofs[1]).lake
    version = lake.for_run("").version("gold.score")
    with pytest.raises(DataError, match=r"TOO_MANY_ERRORS: (\d+) of \1 rows have no score \(RAGGED \1\)"):
        workplace(found, spark, tasks_per_part=1).run(score_population.main)
    assert lake.for_run("").version("gold.score") == version


@pytest.fixture
def dying(monkeypatch):
    """Makes the recipe one whose process dies of a patient; with a mark: until that file is there."""

    def make(patient, mark=None):
        dying = partial(deadly, deaths={(patient,): segmentation_fault}, mark=mark)
        recipe = replace(recipes.RISK_GRU, inputs=dying)
        monkeypatch.setattr(recipes, "named", lambda name: recipe)

    return make


def shards_of(found, spark):
    """The second night's shards, each with the patients in it."""
    lake, columns = found.workplace(spark, found.as_ofs[1]).lake, ["patient_id"]
    snapshot = lake.for_run("").shards("gold.sequence", {"as_of": found.as_ofs[1], "role": "apply"}, columns)
    return [
        (shard, [name for batch in read(shard.url, shard.row_groups, columns, 100) for name in batch[0].to_pylist()])
        for shard in plan(snapshot.files, 65_536)
    ]


def scores(found, spark, name="gold.score"):
    """The second night's rows without their run_id."""
    lake = found.workplace(spark, found.as_ofs[1]).lake.for_run("")
    return {tuple(row)[:-1] for row in lake.read(name, found.as_ofs[1]).collect()}


def test_a_patient_who_kills_the_process_stops_the_job_and_is_set_apart_when_asked(
    found, spark, dying, tmp_path, capfd
):
    rewrite(found, spark, num_files=4)
    (tmp_path / "whole").mkdir()
    whole = found.copy_to(tmp_path / "whole")
    asked = ["--set", "score.tasks_per_part=2"]
    assert score_population.main(whole.flags(whole.as_ofs[1]) + asked) == 0
    flags, before = found.flags(found.as_ofs[1]) + asked, scores(found, spark)
    shard, patients = shards_of(found, spark)[3]
    dying(patients[5])
    assert score_population.main(flags) == 3
    told = capfd.readouterr().err
    assert f"SHARD_KILLS_WORKER: {shard.url}, row groups 0: the process that scores it is killed each time" in told
    assert found.workplace(spark, found.as_ofs[1]).ledger.entries[-1].error_code == "SHARD_KILLS_WORKER"
    assert scores(found, spark) == before
    hooks = []
    with crashes.hooked(hooks.append):
        assert score_population.main([*flags, "--isolate"]) == 0
    # What was stored without --isolate is not scored again.
    assert [hook for hook in hooks if "before ops.scored" in hook] == ["before ops.scored 1", "before ops.scored 2"]
    (error,) = scores(found, spark, "gold.score_error")
    assert error[1:4] == ("risk_gru", patients[5], "KILLED_WORKER")
    assert scores(found, spark) == {row for row in scores(whole, spark) if row[2] != patients[5]} != before


def test_a_worker_that_dies_of_a_segmentation_fault_once_is_replaced(found, spark, dying, tmp_path, after_second_night):
    (_, patients), *_ = shards_of(found, spark)
    dying(patients[0], mark=str(tmp_path / "it-died"))
    workplace(found, spark, tasks_per_part=1).run(score_population.main)
    assert (tmp_path / "it-died").exists()
    assert scores(found, spark) == scores(after_second_night, spark)


# Of the broken patients one list is an element short.
CUT = """
select * except (days_before),
    case when {broken} then slice(days_before, 1, size(days_before) - 1) else days_before end as days_before
from {{rows}}
"""
