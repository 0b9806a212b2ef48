import os
from urllib.parse import unquote, urlsplit

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from delta.tables import DeltaTable

from medpipe.errors import ContractError, DataError
from medpipe.snapshots import pin, shard_frame
from medpipe.stream.shards import plan

COLUMNS = ["patient_id", "concepts"]
DAY = {"as_of": "2026-01-31", "role": "apply"}


@pytest.fixture
def write(spark, tmp_path):
    """Appends patients to a table partitioned by as_of and role; the folder's name needs decoding."""

    def make(ids, as_of=DAY["as_of"], role=DAY["role"], mode="append"):
        rows = spark.createDataFrame([(name, [1, 2]) for name in ids], "patient_id string, concepts array<long>")
        rows = rows.selectExpr("*", f"DATE'{as_of}' as as_of", f"'{role}' as role").coalesce(1)
        path = str(tmp_path / "a table")
        rows.write.format("delta").mode(mode).partitionBy("as_of", "role").save(path)
        return path

    return make


def local(file):
    return unquote(urlsplit(file.url).path)


def patients(snapshot):
    return sorted(
        name for file in snapshot.files for name in pq.ParquetFile(local(file)).read()["patient_id"].to_pylist()
    )


def test_one_partition_of_the_newest_version_is_pinned(spark, write):
    write(["p1", "p2"])
    write(["p3"])
    write(["other day"], as_of="2026-01-30")
    path = write(["other role"], role="fit")
    snapshot = pin(spark, path, DAY, COLUMNS)
    assert (snapshot.version, snapshot.num_rows) == (3, 3)
    assert patients(snapshot) == ["p1", "p2", "p3"]
    assert sorted(file.row_group_rows for file in snapshot.files) == [(1,), (2,)]
    assert all(file.num_bytes == os.path.getsize(local(file)) for file in snapshot.files)


def test_an_older_version_has_its_own_files(spark, write):
    write(["p1"])
    path = write(["p2"], mode="overwrite")
    assert patients(pin(spark, path, DAY, COLUMNS, version=0)) == ["p1"]
    assert patients(pin(spark, path, DAY, COLUMNS)) == ["p2"]


def test_an_empty_partition_has_no_files(spark, write):
    path = write(["p1"])
    snapshot = pin(spark, path, DAY | {"role": "fit"}, COLUMNS)
    assert (snapshot.files, snapshot.num_rows) == ((), 0)
    assert shard_frame(spark, plan(snapshot.files, 10)).collect() == []


def test_a_table_with_deletion_vectors_is_refused(spark, write):
    path = write([f"p{i}" for i in range(20)])
    spark.sql(f"alter table delta.`{path}` set tblproperties ('delta.enableDeletionVectors' = true)")
    spark.sql(f"delete from delta.`{path}` where patient_id = 'p3'")
    with pytest.raises(ContractError, match="TABLE_FEATURE.*uses deletionVectors.*rewrite the table"):
        pin(spark, path, DAY, COLUMNS)


def test_a_table_with_renamed_columns_is_refused(spark, write):
    path = write(["p1"])
    spark.sql(
        f"alter table delta.`{path}` set tblproperties ('delta.columnMapping.mode' = 'name', "
        "'delta.minReaderVersion' = '2', 'delta.minWriterVersion' = '5')"
    )
    spark.sql(f"alter table delta.`{path}` rename column patient_id to person_id")
    with pytest.raises(ContractError, match="TABLE_FEATURE.*uses columnMapping"):
        pin(spark, path, DAY, ["person_id", "concepts"])


def test_files_of_different_types_are_refused(spark, write):
    path = write(["p1"])
    values = {"patient_id": pa.array(["p2"], pa.large_string()), "concepts": [[1]], "role": [DAY["role"]]}
    rows = pa.table(values).append_column("as_of", pa.array([DAY["as_of"]]).cast(pa.date32()))
    deltalake.write_deltalake(path, rows, mode="append")
    with pytest.raises(ContractError, match="FILES_DIFFER.*patient_id large_string.* / patient_id string"):
        pin(spark, path, DAY, COLUMNS)


def test_a_column_that_older_files_lack_is_full_of_nulls_there(spark, write):
    path = write(["p1"])
    rows = spark.sql(f"select 'p2' patient_id, array(1L) concepts, DATE'{DAY['as_of']}' as_of, 'apply' role, 5 label")
    rows.write.format("delta").mode("append").option("mergeSchema", "true").save(path)
    with pytest.raises(ContractError, match="NULLS.*1 nulls in label"):
        pin(spark, path, DAY, [*COLUMNS, "label"])
    assert pin(spark, path, DAY, COLUMNS).num_rows == 2


def test_nulls_in_a_needed_column_are_refused(spark, write):
    path = write(["p1"])
    rows = spark.sql(
        f"select cast(null as string) patient_id, array(1L) concepts, DATE'{DAY['as_of']}' as_of, 'apply' role"
    )
    rows.write.format("delta").mode("append").save(path)
    with pytest.raises(ContractError, match="NULLS.*1 nulls in patient_id"):
        pin(spark, path, DAY, COLUMNS)


@pytest.mark.parametrize(
    ("partition", "columns", "message"),
    [
        ({"split": "train"}, COLUMNS, "NOT_PARTITIONED_BY.*by as_of, role, not by split"),
        (DAY, ["patient_id", "role"], "PARTITION_COLUMN.*role stands in the path"),
        (DAY, ["patient_id", "amounts"], "NO_COLUMN.*lacks amounts"),
    ],
)
def test_what_cannot_be_read_from_the_files_is_refused(spark, write, partition, columns, message):
    with pytest.raises(ContractError, match=message):
        pin(spark, write(["p1"]), partition, columns)


def test_a_file_of_another_size_is_refused(spark, write):
    path = write(["p1"])
    file = local(pin(spark, path, DAY, COLUMNS).files[0])
    # Hadoop's local checksum would be noticed first; other stores have none.
    os.remove(os.path.join(os.path.dirname(file), f".{os.path.basename(file)}.crc"))
    pq.write_table(pq.ParquetFile(file).read(), file, compression="none")
    with pytest.raises(DataError, match="FILE_SIZE.*the log says"):
        pin(spark, path, DAY, COLUMNS)


def test_a_file_that_is_not_the_one_written_is_refused(spark, write):
    path = write(["p1"])
    file = local(pin(spark, path, DAY, COLUMNS).files[0])
    pq.write_table(pa.concat_tables([pq.ParquetFile(file).read()] * 3), file)
    with pytest.raises(DataError, match="FILE_UNREADABLE.*a table: Spark cannot read"):
        pin(spark, path, DAY, COLUMNS)


def test_a_changed_bit_in_any_page_of_a_column_that_is_read_is_refused(spark, tmp_path):
    rows = spark.range(4000).selectExpr("concat('p', id % 50) as patient_id", "array(id % 7, id % 300) as concepts")
    rows = rows.selectExpr("*", f"DATE'{DAY['as_of']}' as as_of", f"'{DAY['role']}' as role").coalesce(1)
    pages = rows.write.format("delta").option("parquet.page.row.count.limit", "1000")
    pages.partitionBy("as_of", "role").save(str(tmp_path / "table"))
    file = local(pin(spark, str(tmp_path / "table"), DAY, COLUMNS).files[0])
    os.remove(os.path.join(os.path.dirname(file), f".{os.path.basename(file)}.crc"))
    with open(file, "rb") as source:
        content = source.read()
    group = pq.read_metadata(file).row_group(0)
    for chunk in (group.column(index) for index in range(2)):
        end = chunk.dictionary_page_offset + chunk.total_compressed_size
        # The last byte of the dictionary, of the last page, and one between.
        for place in (chunk.data_page_offset - 1, (chunk.data_page_offset + end) // 2, end - 1):
            with open(file, "wb") as damaged:
                damaged.write(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
            with pytest.raises(DataError, match="FILE_UNREADABLE"):
                pin(spark, str(tmp_path / "table"), DAY, COLUMNS)


def test_a_missing_file_is_refused(spark, write):
    path = write(["p1"])
    os.remove(local(pin(spark, path, DAY, COLUMNS).files[0]))
    with pytest.raises(DataError, match="FILE_MISSING.*not on the store"):
        pin(spark, path, DAY, COLUMNS)


def test_rows_deleted_by_rewriting_are_not_in_the_files(spark, write):
    path = write([f"p{i}" for i in range(5)])
    DeltaTable.forPath(spark, path).delete("patient_id = 'p3'")
    assert patients(pin(spark, path, DAY, COLUMNS)) == ["p0", "p1", "p2", "p4"]


def test_every_shard_is_a_task_of_its_own_in_the_order_of_the_plan(spark, write):
    for number in range(5):
        path = write([f"p{number}-{i}" for i in range(number + 1)])
    shards = plan(pin(spark, path, DAY, COLUMNS).files, 100)
    tasks = shard_frame(spark, shards).rdd.glom().collect()
    assert [[(row.shard_id, row.url, tuple(row.row_groups), row.num_rows) for row in task] for task in tasks] == [
        [(shard.shard_id, shard.url, shard.row_groups, shard.num_rows)] for shard in shards
    ]
