import pickle
import threading
import time
import warnings
from pathlib import Path
from urllib.parse import quote

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from petastorm.etl.dataset_metadata import ROW_GROUPS_PER_FILE_KEY, UNISCHEMA_KEY
from petastorm.workers_pool.thread_pool import ThreadPool

from medpipe.errors import ContractError, DataError, MissingEnvironmentError
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


class Bomb:
    """Unpickled, it leaves a trace."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def test_code_hidden_in_a_folders_metadata_does_not_run(write, tmp_path):
    """Petastorm unpickles what it finds in _common_metadata when it is given a folder."""
    path, trace = Path(write()), tmp_path / "it-ran"
    hostile = {UNISCHEMA_KEY: pickle.dumps(Bomb(trace)), ROW_GROUPS_PER_FILE_KEY: b"{}"}
    rows = pq.read_table(path)
    rows = rows.replace_schema_metadata(hostile)
    pq.write_table(rows, path, row_group_size=3)
    for name in ("_common_metadata", "_metadata"):
        pq.write_metadata(rows.schema, path.parent / name)
    assert patients(read(str(path), [0, 3], ["patient_id"], 100)) == ["p0", "p1", "p2", "p9"]
    assert not trace.exists()
    with pytest.raises(DataError, match="UNREADABLE_FILE"):
        list(read(str(path.parent), [0], ["patient_id"], 100))
    assert not trace.exists()
    # The trap is real: opened as Petastorm's own folders are, it goes off.
    pickle.loads(pq.read_schema(path.parent / "_common_metadata").metadata[UNISCHEMA_KEY])
    assert trace.exists()


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


def test_a_file_on_another_store_is_read_as_a_local_one(write):
    files = fsspec.filesystem("memory")
    files.put_file(write(), "/bucket/a b/part.parquet")
    batches = list(read("memory://bucket/a%20b/part.parquet", [1, 3], ["concepts", "patient_id"], 2))
    assert patients(batches) == ["p3", "p4", "p5", "p9"]
    assert [len(found) for batch in batches for found in batch.column("concepts").to_pylist()] == [4, 5, 6, 10]
    with pytest.raises(DataError, match="UNREADABLE_FILE: memory://bucket/gone.parquet: FileNotFoundError"):
        list(read("memory://bucket/gone.parquet", [0], ["patient_id"], 2))


def test_a_store_without_its_package_is_told_with_the_remedy():
    with pytest.raises(MissingEnvironmentError, match="NO_FILESYSTEM: nowhere://bucket/part.parquet: Protocol"):
        list(read("nowhere://bucket/part.parquet", [0], ["patient_id"], 10))


def test_memory_does_not_grow_with_a_row_group(tmp_path):
    rows = [np.random.default_rng(i).bytes(4096) for i in range(8000)]
    pq.write_table(pa.table({"pixels": rows}), tmp_path / "large.parquet", use_dictionary=False)
    del rows
    before = pa.total_allocated_bytes()
    grown = [pa.total_allocated_bytes() - before for _ in read(str(tmp_path / "large.parquet"), [0], ["pixels"], 64)]
    assert len(grown) == 125 and max(grown) < 16 << 20  # of 32 MiB; reader and decoder hold some batches
