import pytest

from medpipe import catalog, cli, contracts
from medpipe.tables import Lake

SIMILARITY = """
    as_of date | patient_id string | rank int | other_patient_id string | similarity double
    2026-01-30 | ann               | 1        | bob                     | 0.25
    2026-01-31 | ann               | 1        | bob                     | 0.5
    2026-01-31 | bob               | 1        | ann                     | 0.5
"""


@pytest.fixture
def lake(spark, table, tmp_path):
    lake = Lake(spark, str(tmp_path / "lake"), str(tmp_path / "phi")).for_run("run1")
    lake.append(table(SIMILARITY), "gold.patient_similarity")
    return lake


def sql(lake, *words):
    return cli.main(["sql", "--lake", lake.root, "--phi", lake.phi_root, *words])


def test_a_query_reads_tables_by_name(lake, capsys):
    query = "select as_of, count(*) as num from gold.patient_similarity group by as_of order by as_of"
    assert sql(lake, "--csv", query) == 0
    assert capsys.readouterr().out.split() == ["as_of,num", "2026-01-30,1", "2026-01-31,2"]


def test_a_long_answer_says_that_it_was_cut(lake, capsys):
    assert sql(lake, "--rows", "1", "select patient_id from gold.patient_similarity order by as_of") == 0
    shown = capsys.readouterr()
    assert shown.out.split() == ["patient_id", "ann"]
    assert "more rows than 1" in shown.err


def test_a_wrong_query_exits_2_and_says_why(lake, capsys):
    assert sql(lake, "select patient from gold.patient_similarity") == 2
    assert "BAD_QUERY" in (said := capsys.readouterr().err)
    assert "patient_id" in said


def test_a_query_on_a_table_not_written_yet_exits_2(lake, capsys):
    assert sql(lake, "select * from gold.rating") == 2
    assert "TABLE_OR_VIEW_NOT_FOUND" in capsys.readouterr().err


def test_a_lake_that_is_not_named_exits_2(spark, capsys):
    assert cli.main(["history"]) == 2
    assert "NO_LAKE" in capsys.readouterr().err


def test_history_of_an_empty_lake_shows_no_run(lake, capsys):
    assert cli.main(["history", "--lake", lake.root, "--phi", lake.phi_root]) == 0
    assert capsys.readouterr().out.split() == [
        "finished", "job", "target", "status", "in", "out", "quarantined", "seconds", "run"
    ]  # fmt: skip


def test_a_lake_without_metastore_cannot_be_registered(lake, capsys):
    assert cli.main(["register", "--lake", lake.root, "--phi", lake.phi_root]) == 6
    assert "NO_METASTORE" in capsys.readouterr().err


def test_registered_tables_are_queried_by_name(lake, spark):
    assert catalog.register(lake) == ["gold.patient_similarity"]
    rows = spark.sql("select patient_id from gold.patient_similarity where similarity < 0.4").collect()
    assert [row.patient_id for row in rows] == ["ann"]
    doc = contracts.load("gold.patient_similarity").struct["similarity"].metadata["comment"]
    assert doc in {row.comment for row in spark.sql("describe gold.patient_similarity").collect()}
