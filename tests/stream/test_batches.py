import numpy as np
import pyarrow as pa
import pytest

from medpipe.errors import ContractError
from medpipe.stream.batches import Sequences, buckets, flat, pad, ragged, sequences_of
from medpipe.stream.tokens import vocabulary_of

NAN = float("nan")
VOCABULARY = vocabulary_of([10, 20], [2, 3], [0, 0], [1, 1])


def batch(concepts, days_before, amounts):
    return pa.RecordBatch.from_arrays(
        [
            pa.array([f"p{i}" for i in range(len(concepts))], pa.string()),
            pa.array(concepts, pa.list_(pa.int64())),
            pa.array(days_before, pa.list_(pa.int32())),
            pa.array(amounts, pa.list_(pa.float32())),
        ],
        ["patient_id", "concepts", "days_before", "amounts"],
    )


def sequences(*lengths):
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    events = np.arange(offsets[-1], dtype=np.int32)
    return Sequences(
        np.array([f"p{i}" for i in range(len(lengths))], object), offsets, events, events, events.astype(np.float32)
    )


def test_a_ragged_column_is_a_view_of_the_arrow_buffer():
    column = pa.array([[1, 2], [], [3]], pa.list_(pa.int64()))
    values, offsets = ragged(pa.RecordBatch.from_arrays([column], ["x"]), "x", pa.int64())
    assert values.tolist() == [1, 2, 3] and offsets.tolist() == [0, 2, 2, 3]
    assert values.__array_interface__["data"][0] == column.values.buffers()[1].address


def test_a_slice_of_a_batch_has_its_own_rows_only():
    column = pa.array([[1, 2], [3], [4, 5, 6], [7]], pa.list_(pa.int64()))
    values, offsets = ragged(pa.RecordBatch.from_arrays([column], ["x"]).slice(1, 2), "x", pa.int64())
    assert values.tolist() == [3, 4, 5, 6] and offsets.tolist() == [0, 1, 4]


def test_an_empty_batch_is_no_patient():
    read = sequences_of(batch([], [], []), VOCABULARY)
    assert len(read.ids) == 0 and read.offsets.tolist() == [0]


@pytest.mark.parametrize(
    ("column", "found"),
    [
        (pa.array([[1], None], pa.list_(pa.int64())), "1 nulls"),
        (pa.array([[1], [None]], pa.list_(pa.int64())), "a null element"),
        (pa.array([[1], [2]], pa.list_(pa.int32())), r"list<item: int32>, expected list<item: int64>"),
        (pa.array([1, 2], pa.int64()), "int64, expected list<item: int64>"),
    ],
)
def test_a_list_with_a_null_or_of_another_type_is_refused_by_name(column, found):
    with pytest.raises(ContractError, match=f"BAD_COLUMN: model input concepts: found {found}"):
        ragged(pa.RecordBatch.from_arrays([column], ["concepts"]), "concepts", pa.int64())


def test_a_plain_column_with_a_null_is_refused_by_name():
    rows = pa.RecordBatch.from_arrays([pa.array([1, None], pa.int32())], ["label"])
    with pytest.raises(ContractError, match="BAD_COLUMN: model input label: found 1 nulls, expected none"):
        flat(rows, "label", pa.int32())


def test_a_missing_column_is_refused_by_name():
    with pytest.raises(ContractError, match="BAD_COLUMN: model input label: found only x"):
        flat(pa.RecordBatch.from_arrays([pa.array([1])], ["x"]), "label", pa.int32())


def test_lists_of_different_length_are_refused():
    with pytest.raises(ContractError, match="RAGGED: concepts, days_before and amounts differ in length"):
        sequences_of(batch([[10, 20]], [[5]], [[NAN, NAN]]), VOCABULARY)


def test_a_history_without_events_is_refused():
    with pytest.raises(ContractError, match="RAGGED: a history without an event"):
        sequences_of(batch([[10], []], [[5], []], [[NAN], []]), VOCABULARY)


def test_histories_are_encoded():
    read = sequences_of(batch([[10, 20], [99]], [[900, 3], [4]], [[NAN, 1.5], [2.0]]), VOCABULARY)
    assert read.ids.tolist() == ["p0", "p1"]
    assert read.lengths.tolist() == [2, 1]
    assert read.tokens.tolist() == [2, 3, 1]
    assert read.days_before.tolist() == [900, 3, 4]
    np.testing.assert_array_equal(read.amounts, np.array([NAN, 1.5, NAN], np.float32))


def test_shorter_histories_are_filled_up_on_the_right():
    padded = pad(sequences(3, 1, 2), np.array([1, 0]), max_events=10)
    assert padded.tokens.tolist() == [[3, 0, 0], [0, 1, 2]]
    assert padded.days_before.tolist() == [[3, 0, 0], [0, 1, 2]]
    np.testing.assert_array_equal(padded.amounts, np.array([[3, NAN, NAN], [0, 1, 2]], np.float32))
    assert padded.lengths.tolist() == [1, 3]


def test_of_a_long_history_the_birth_and_the_latest_events_stay():
    padded = pad(sequences(2, 6), np.array([1, 0]), max_events=3)
    assert padded.tokens.tolist() == [[2, 6, 7], [0, 1, 0]]
    assert padded.lengths.tolist() == [3, 2]


def test_patients_taken_and_put_together_keep_their_events():
    all_of_them = sequences(3, 1, 2)
    again = Sequences.concatenate([all_of_them.take(np.array([2])), all_of_them.take(np.array([0, 1]))])
    assert again.ids.tolist() == ["p2", "p0", "p1"]
    assert again.offsets.tolist() == [0, 2, 5, 6]
    assert again.tokens.tolist() == [4, 5, 0, 1, 2, 3]


def test_nobody_taken_is_nobody():
    assert sequences(3, 1).take(np.empty(0, np.int64)).offsets.tolist() == [0]


def test_buckets_hold_every_row_once_shortest_first():
    found = list(buckets(np.array([5, 1, 9, 1, 7]), 2))
    assert [rows.tolist() for rows in found] == [[1, 3], [0, 4], [2]]
