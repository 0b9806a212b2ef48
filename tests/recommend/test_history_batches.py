import pyarrow as pa
import pytest

from medpipe.errors import DataError
from medpipe.recommend.histories import of_batch, to_batch
from tests.recommend.drawn import NUM_FEATURES, NUM_TREATMENTS, drawn


def test_a_batch_and_its_histories_are_the_same_patients_also_when_it_is_cut():
    histories = drawn(50, seed=1)
    cut = to_batch(histories).slice(7, 20)
    found = of_batch(cut, NUM_TREATMENTS, NUM_FEATURES)
    assert found.patient_ids.equals(histories.patient_ids[7:27])
    assert (found.had != histories.had[7:27]).nnz == 0 and (found.features != histories.features[7:27]).nnz == 0


@pytest.mark.parametrize("treatments", [[2, 2], [3, 1]])
def test_a_treatment_twice_in_a_history_is_refused(treatments):
    kinds = {"patient_id": pa.string(), "treatments": pa.list_(pa.int32()), "weights": pa.list_(pa.float32())}
    kinds["features"] = pa.list_(pa.int32())
    rows = [("ann", [5], [1.0], [0]), ("bob", treatments, [1.0, 1.0], []), ("cat", [], [], [0, 1])]
    columns = [pa.array(values, kind) for values, kind in zip(zip(*rows, strict=True), kinds.values(), strict=True)]
    with pytest.raises(DataError, match="DUPLICATE_RATINGS: 1 entries of histories stand twice or out of order"):
        of_batch(pa.RecordBatch.from_arrays(columns, names=list(kinds)), 6, 2)
