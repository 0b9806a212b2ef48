import numpy as np
import pytest

from medpipe.recommend import population
from medpipe.recommend.exact_als import ExactAls, ExactAlsSettings, _Sides
from medpipe.recommend.histories import to_batch
from tests.recommend.drawn import NUM_FEATURES, NUM_TREATMENTS, drawn


@pytest.mark.parametrize("num_rows", [7, 64, 100, 1000])
def test_the_sessions_batches_do_not_change_a_bit_of_a_sum(num_rows, monkeypatch):
    monkeypatch.setattr(population, "SUMMED_ROWS", 64)
    draw = np.random.default_rng(1)
    shapes = [(NUM_TREATMENTS, 4), (NUM_FEATURES + 1, 4)]
    model = ExactAls(*(draw.standard_normal(shape).astype(np.float32) for shape in shapes), ExactAlsSettings(rank=4))
    block = population._BlockSum(_Sides(model), NUM_TREATMENTS, NUM_FEATURES)
    rows = to_batch(drawn(500, seed=2))
    parts = [rows.slice(start, num_rows) for start in range(0, rows.num_rows, num_rows)]
    (found,), (whole,) = (list(block(iter(batches))) for batches in (parts, [rows]))
    assert found.equals(whole)
    assert [part.num_rows for part in population._even(iter(parts))] == [64] * 7 + [52]
