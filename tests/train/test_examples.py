import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medpipe.errors import DataError
from medpipe.recipes import RISK_GRU
from medpipe.stream.shards import ShardFile, plan
from medpipe.stream.tokens import vocabulary_of
from medpipe.train.examples import epoch_batches, hash_order, read_examples

VOCABULARY = vocabulary_of([10, 11], [2, 3], [0, 0], [1, 1])
SCHEMA = pa.schema(
    [
        ("patient_id", pa.string()),
        ("label", pa.int32()),
        ("split", pa.string()),
        ("concepts", pa.list_(pa.int64())),
        ("days_before", pa.list_(pa.int32())),
        ("amounts", pa.list_(pa.float32())),
    ]
)


def patients(count):
    """Patient i has i % 4 + 1 events; every fifth label is not known."""
    rows = []
    for i in range(count):
        length = i % 4 + 1
        label = -1 if i % 5 == 4 else i % 2
        split = ("train", "train", "tune")[i % 3]
        rows.append((f"p{i}", label, split, [10 + i % 2] * length, list(range(length, 0, -1)), [float(i)] * length))
    return rows


def shards(folder, rows, num_files, row_group_size):
    files = []
    for index in range(num_files):
        columns = [
            pa.array(values, field.type)
            for values, field in zip(zip(*rows[index::num_files], strict=True), SCHEMA, strict=True)
        ]
        path = folder / f"part-{num_files}-{index}.parquet"
        pq.write_table(pa.table(columns, SCHEMA), path, row_group_size=row_group_size)
        footer = pq.read_metadata(path)
        counts = tuple(footer.row_group(i).num_rows for i in range(footer.num_row_groups))
        files.append(ShardFile(str(path), path.stat().st_size, counts))
    return plan(files, 20)


def test_only_patients_with_a_label_are_read_and_each_keeps_its_own(tmp_path):
    rows = patients(60)
    examples = read_examples(shards(tmp_path, rows, 2, 7), RISK_GRU, VOCABULARY, max_patients=1000)
    found = dict(zip(examples.encoded.ids, zip(examples.labels, examples.splits, strict=True), strict=True))
    assert found == {row[0]: (row[1], row[2]) for row in rows if row[1] >= 0}
    lengths = dict(zip(examples.encoded.ids, examples.encoded.lengths, strict=True))
    assert lengths == {row[0]: len(row[3]) for row in rows if row[1] >= 0}


def test_another_layout_of_the_files_gives_the_same_arrays(tmp_path):
    rows = patients(60)
    one = read_examples(shards(tmp_path, rows, 1, 60), RISK_GRU, VOCABULARY, max_patients=10)
    many = read_examples(shards(tmp_path, rows[::-1], 3, 4), RISK_GRU, VOCABULARY, max_patients=10)
    assert one.encoded.ids.tolist() == many.encoded.ids.tolist()
    for name in ("offsets", "tokens", "days_before", "amounts"):
        np.testing.assert_array_equal(getattr(one.encoded, name), getattr(many.encoded, name))
    np.testing.assert_array_equal(one.labels, many.labels)


def test_the_cap_holds_for_each_split(tmp_path):
    examples = read_examples(shards(tmp_path, patients(60), 2, 7), RISK_GRU, VOCABULARY, max_patients=10)
    assert {split: len(examples.rows(split)) for split in ("train", "tune")} == {"train": 10, "tune": 10}


def test_a_split_with_one_label_only_is_refused(tmp_path):
    rows = [row for row in patients(60) if row[2] == "train" or row[1] == 0]
    said = "NO_EXAMPLES: gold.sequence: split tune has 8 labelled rows, 0 with the outcome; .* raise cohort.lag_days"
    with pytest.raises(DataError, match=said):
        read_examples(shards(tmp_path, rows, 1, 60), RISK_GRU, VOCABULARY, max_patients=1000)


def test_a_file_with_other_rows_than_planned_is_refused(tmp_path):
    planned = shards(tmp_path, patients(60), 1, 30)
    shards(tmp_path, patients(58), 1, 30)
    with pytest.raises(DataError, match="SHARD_ROWS.*28 rows read, 30 planned"):
        read_examples(planned, RISK_GRU, VOCABULARY, max_patients=1000)


def test_hash_order_depends_on_the_patients_not_on_their_places():
    ids = np.array([f"p{i}" for i in range(100)], object)
    other = ids[::-1]
    assert ids[hash_order(ids, "a")].tolist() == other[hash_order(other, "a")].tolist()
    assert ids[hash_order(ids, "a")].tolist() != ids[hash_order(ids, "b")].tolist()


def test_every_epoch_holds_each_patient_once_in_a_new_order(tmp_path):
    examples = read_examples(shards(tmp_path, patients(60), 2, 7), RISK_GRU, VOCABULARY, max_patients=1000)
    rows = examples.rows("train")
    first, again, second = (epoch_batches(examples, rows, 8, seed=1, epoch=epoch) for epoch in (0, 0, 1))
    assert sorted(np.concatenate(first)) == sorted(rows) == sorted(np.concatenate(second))
    assert [batch.tolist() for batch in first] == [batch.tolist() for batch in again]
    assert [batch.tolist() for batch in first] != [batch.tolist() for batch in second]
    assert max(len(batch) for batch in first) <= 8
