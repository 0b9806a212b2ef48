import threading
import time
import warnings
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from petastorm.workers_pool.thread_pool import ThreadPool

from medpipe.errors import ContractError, DataError
from medpipe.stream.reader import read


@pytest.fixture
def write(tmp_path):
    """Ten patients in row groups of 3, 3, 3 and 1; patient i has i + 1 events."""

    def make(folder="t"):
        path = tmp_path / folder / "part-0.parquet"
        path.parent.mkdir()
        ids = pa.array([f"p{i}" for i in range(10)])
        rows = pa.table({"patient_id": ids, "concepts": pa.array([[2**53 + i] * (i + 1) for i in range(10)])})
        pq.write_table(rows, path, row_group_size=3)
        return str(path)

    return make


def patients(batches):
    return [patient for batch in batches for patient in batch.column("patient_id").to_pylist()]


def test_the_planned_row_groups_come_whole_and_in_order(write):
    assert patients(read(write(), [1, 3], ["patient_id"], 100)) == ["p3", "p4", "p5", "p9"]


def test_ragged_lists_arrive_unchanged_and_columns_as_asked(write):
    batch = next(read(write(), [1], ["concepts", "patient_id"], 100))
    assert batch.schema.names == ["concepts", "patient_id"]
    assert batch.column("concepts").to_pylist() == [[2**53 + i] * (i + 1) for i in (3, 4, 5)]


def test_batches_are_no_larger_than_asked(write):
    assert [batch.num_rows for batch in read(write(), [0, 1], ["patient_id"], 2)] == [2, 1, 2, 1]


@pytest.mark.parametrize("folder", ["a b", "a#b", "a%20b", "as_of=2026-01-31", "é"])
def test_any_folder_name_is_read_as_a_path_and_as_the_url_spark_gives(write, folder):
    path = write(folder)
    for name in (path, "file://" + quote(path), "file:" + quote(path)):
        assert patients(read(name, [0], ["patient_id"], 100)) == ["p0", "p1", "p2"]


def test_the_last_row_group_is_never_lost_however_the_threads_meet(write, monkeypatch):
    """Petastorm's own end of data, when its last row group is given out between the two questions it asks."""
    path, done, late = write(), ThreadPool.all_workers_done, []

    def asked(pool):
        answer = done(pool)
        given_out = pool._ventilated_items
        while answer and not pool._ventilator.completed() and pool._ventilated_items == given_out:
            time.sleep(0.0005)
        # Between the thread's counting the item as given out and its marking the end.
        time.sleep(0.002 if answer else 0)
        late.append(answer and pool._ventilated_items > given_out and pool._ventilator.completed())
        return answer

    monkeypatch.setattr(ThreadPool, "all_workers_done", asked)
    monkeypatch.setattr("petastorm.reader._VENTILATE_EXTRA_ROWGROUPS", 0)
    for _ in range(3):
        assert patients(read(path, [0, 1, 2, 3], ["patient_id"], 100)) == [f"p{i}" for i in range(10)]
    assert any(late), "the case did not arise"


def test_nothing_planned_reads_nothing(write):
    assert list(read(write(), [], ["patient_id"], 100)) == []


def test_reading_leaves_no_thread_no_output_and_no_warning(write, capfd):
    path = write()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(read(path, [0, 1, 2, 3], ["patient_id"], 1))
        half_read = read(path, [0, 1, 2, 3], ["patient_id"], 1)
        next(half_read)
        half_read.close()
    assert not [thread for thread in threading.enumerate() if type(thread).__name__ == "WorkerThread"]
    assert capfd.readouterr() == ("", "")


def test_a_broken_page_is_an_error_that_names_the_file_and_not_half_a_result(tmp_path, capfd):
    path = str(tmp_path / "part.parquet")
    ids = pa.array([f"p{i}" for i in np.random.default_rng(0).integers(0, 10**9, 3000)])
    pq.write_table(pa.table({"patient_id": ids}), path, row_group_size=1000, compression="snappy", use_dictionary=False)
    second = pq.read_metadata(path).row_group(1).column(0).data_page_offset
    with open(path, "r+b") as file:
        file.seek(second)
        file.write(b"\xff" * 400)
    with pytest.raises(DataError, match="UNREADABLE_FILE.*part.parquet"):
        list(read(path, [0, 1, 2], ["patient_id"], 100))
    assert capfd.readouterr() == ("", "")


def test_a_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(DataError, match="UNREADABLE_FILE.*gone.parquet: FileNotFoundError"):
        list(read(str(tmp_path / "gone.parquet"), [0], ["patient_id"], 10))


def test_a_column_the_file_lacks_is_named(write):
    with pytest.raises(ContractError, match="NO_COLUMN.*lacks amounts"):
        list(read(write(), [0], ["patient_id", "amounts"], 10))


def test_a_plan_of_another_file_is_refused(write):
    with pytest.raises(DataError, match="ROW_GROUPS.*has 4 row groups, the plan names 4"):
        list(read(write(), [0, 4], ["patient_id"], 10))


def test_a_remote_file_is_refused_with_the_remedy():
    with pytest.raises(ContractError, match="REMOTE_FILE.*stage the table"):
        list(read("s3://bucket/part.parquet", [0], ["patient_id"], 10))
