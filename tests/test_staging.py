import json
import os
import re
import shutil

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from delta.tables import DeltaTable

from medpipe import log, staging
from medpipe.errors import ContractError, DataError
from medpipe.stream.reader import local_path, read
from medpipe.stream.shards import plan

DAY = {"as_of": "2026-01-31", "role": "apply"}
COLUMNS = ["patient_id", "concepts"]


@pytest.fixture(scope="module")
def plain(spark, tmp_path_factory):
    """Nine patients in three files."""
    rows = spark.range(9).selectExpr("concat('p', 8 - id) as patient_id", "array(id) as concepts")
    rows = rows.selectExpr("*", f"DATE'{DAY['as_of']}' as as_of", "'apply' as role").repartition(3)
    path = str(tmp_path_factory.mktemp("plain") / "table")
    rows.write.format("delta").partitionBy("as_of", "role").save(path)
    return path


@pytest.fixture(scope="module")
def vectors(spark, plain, tmp_path_factory):
    """The same without p3, who is still in the files."""
    path = shutil.copytree(plain, str(tmp_path_factory.mktemp("vectors") / "table"))
    spark.sql(f"alter table delta.`{path}` set tblproperties ('delta.enableDeletionVectors' = true)")
    spark.sql(f"delete from delta.`{path}` where patient_id = 'p3'")
    return path


WITHOUT_P3 = [(f"p{i}", [8 - i]) for i in range(9) if i != 3]


@pytest.fixture
def table(plain, tmp_path):
    """A table of one's own, in a folder whose name needs decoding."""
    return shutil.copytree(plain, str(tmp_path / "a table"))


@pytest.fixture
def deleted(vectors, tmp_path):
    """The same with a deletion vector."""
    return shutil.copytree(vectors, str(tmp_path / "a table"))


@pytest.fixture
def staged(spark, tmp_path):
    """Where the copy of a table's newest version is, and what is to be read."""

    def make(table, columns=COLUMNS, partition=DAY):
        folder, version = str(tmp_path / "staged"), DeltaTable.forPath(spark, table).history(1).first().version
        return folder, staging.readable(spark, table, folder, partition, list(columns), version)

    return make


def rows_read(snapshot, columns=COLUMNS):
    shards = plan(snapshot.files, 100)
    batches = [batch for shard in shards for batch in read(shard.url, shard.row_groups, columns, 100)]
    return [tuple(row.values()) for batch in batches for row in batch.to_pylist()]


def test_a_plain_table_is_read_where_it_lies(plain, staged):
    folder, snapshot = staged(plain)
    assert (snapshot.staged, snapshot.num_rows, os.path.exists(folder)) == ("", 9, False)


def test_deleted_rows_are_not_in_the_copy_which_lies_in_the_order_of_the_ids(vectors, staged, tmp_path):
    log.configure(str(tmp_path / "log.jsonl"))
    _, snapshot = staged(vectors)
    assert rows_read(snapshot) == WITHOUT_P3
    assert (snapshot.staged, snapshot.num_rows) == ("TABLE_FEATURE", 8)
    (told,) = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert (told["event"], told["table"], told["code"], told["rows"]) == ("table staged", vectors, "TABLE_FEATURE", 8)
    assert "deletionVectors" in told["detail"]


def test_renamed_columns_are_read_by_the_name_they_have(spark, table, staged):
    spark.sql(
        f"alter table delta.`{table}` set tblproperties ('delta.columnMapping.mode' = 'name', "
        "'delta.minReaderVersion' = '2', 'delta.minWriterVersion' = '5')"
    )
    spark.sql(f"alter table delta.`{table}` rename column patient_id to person_id")
    _, snapshot = staged(table, ("person_id", "concepts"))
    assert rows_read(snapshot, ("person_id", "concepts")) == [(f"p{i}", [8 - i]) for i in range(9)]


def test_files_of_different_types_become_one(table, staged):
    values = {"patient_id": pa.array(["p9"], pa.large_string()), "concepts": [[7]], "role": [DAY["role"]]}
    rows = pa.table(values).append_column("as_of", pa.array([DAY["as_of"]]).cast(pa.date32()))
    deltalake.write_deltalake(table, rows, mode="append")
    _, snapshot = staged(table)
    assert snapshot.staged == "FILES_DIFFER"
    assert rows_read(snapshot) == [(f"p{i}", [8 - i]) for i in range(9)] + [("p9", [7])]


def test_a_column_that_stands_in_the_path_is_in_the_copy(plain, staged):
    columns = ("patient_id", "role")
    _, snapshot = staged(plain, columns)
    assert snapshot.staged == "PARTITION_COLUMN"
    assert rows_read(snapshot, columns) == [(f"p{i}", "apply") for i in range(9)]
    assert pq.read_schema(local_path(snapshot.files[0].url)).names == list(columns)


def test_rows_are_chosen_by_a_column_that_is_no_folder(plain, staged):
    _, snapshot = staged(plain, partition=DAY | {"patient_id": "p4"})
    assert (snapshot.staged, rows_read(snapshot)) == ("NOT_PARTITIONED_BY", [("p4", [4])])


def test_nobody_is_an_empty_copy(vectors, staged):
    _, snapshot = staged(vectors, partition=DAY | {"role": "fit"})
    assert (snapshot.num_rows, plan(snapshot.files, 100)) == (0, [])


def test_the_same_rows_give_the_same_plan(vectors, staged, monkeypatch):
    monkeypatch.setattr(staging, "ROWS_PER_FILE", 3)
    found = []
    for _ in range(2):
        folder, snapshot = staged(vectors)
        found.append((len(snapshot.files), rows_read(snapshot)))
        staging.remove(folder)
    assert found[0] == found[1] and found[0][0] > 1 and sorted(found[0][1]) == WITHOUT_P3


def test_neither_optimize_nor_vacuum_reaches_a_copy(spark, deleted, staged):
    _, snapshot = staged(deleted)
    DeltaTable.forPath(spark, deleted).optimize().executeCompaction()
    spark.conf.set("spark.databricks.delta.retentionDurationCheck.enabled", "false")
    try:
        DeltaTable.forPath(spark, deleted).vacuum(0)
    finally:
        spark.conf.unset("spark.databricks.delta.retentionDurationCheck.enabled")
    assert rows_read(snapshot) == WITHOUT_P3


def test_a_whole_copy_is_read_again_a_half_one_is_made_anew_and_a_removed_one_is_gone(vectors, staged):
    folder, first = staged(vectors)
    assert staged(vectors)[1] == first
    os.remove(f"{folder}/_SUCCESS")
    _, anew = staged(vectors)
    assert not {file.url for file in anew.files} & {file.url for file in first.files}
    assert rows_read(anew) == WITHOUT_P3
    os.remove(local_path(anew.files[0].url))
    with pytest.raises(DataError, match=f"ROW_COUNT: {re.escape(folder)} holds 0 rows, .* 8; remove the folder"):
        staged(vectors)
    for _ in range(2):
        staging.remove(folder)
        assert not os.path.exists(folder)


def test_what_is_missing_or_null_is_not_copied(spark, deleted, staged, tmp_path):
    with pytest.raises(ContractError, match="NO_COLUMN.*lacks amounts"):
        staged(deleted, [*COLUMNS, "amounts"])
    spark.sql(f"insert into delta.`{deleted}` values (null, array(1L), DATE'{DAY['as_of']}', 'apply')")
    with pytest.raises(ContractError, match="NULLS.*1 nulls in patient_id"):
        staged(deleted)
    shutil.rmtree(f"{deleted}/as_of={DAY['as_of']}")
    with pytest.raises(DataError, match="FILE_MISSING.*not on the store"):
        staged(deleted)
    assert not (tmp_path / "staged").exists()
