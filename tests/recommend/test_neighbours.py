import numpy as np
import pytest

from medpipe.recommend.histories import HISTORIES, to_batch
from medpipe.recommend.neighbours import Neighbours, NeighbourSettings, neighbours
from tests.recommend.drawn import NUM_FEATURES, NUM_TREATMENTS, drawn

ASKED = drawn(150, seed=1)


def written_out(new, settings):
    """The formula, patient by patient."""
    vectors = [np.hstack([h.had.toarray(), settings.feature_weight * h.features.toarray()]) for h in (new, ASKED)]
    mine, theirs = (v / np.maximum(np.sqrt((v.astype(float) ** 2).sum(axis=1, keepdims=True)), 1e-12) for v in vectors)
    similar = mine @ theirs.T
    similar[new.patient_ids.to_numpy(False)[:, None] == ASKED.patient_ids.to_numpy(False)] = 0
    least = np.sort(similar, axis=1)[:, -settings.num_neighbours]
    return np.where(similar >= least[:, None] - 1e-9, similar, 0) ** settings.power @ (ASKED.had.toarray() > 0)


@pytest.mark.parametrize("settings", [NeighbourSettings(10, 1.0, 0.0), NeighbourSettings(10, 2.0, 0.4)])
def test_scores_sum_the_nearest_patients_similarity_and_nobody_is_their_own_neighbour(settings):
    for new in (ASKED, drawn(700, seed=2)):
        assert Neighbours(ASKED, settings).scores(new) == pytest.approx(written_out(new, settings), abs=1e-9)


def test_of_too_many_patients_the_same_are_kept_whatever_their_order(spark):
    rows = to_batch(ASKED).to_pylist()
    settings = NeighbourSettings(max_patients=40)
    kept = [
        neighbours(spark.createDataFrame(given, HISTORIES).repartition(parts), NUM_TREATMENTS, NUM_FEATURES, settings)
        for given, parts in ((rows, 1), (rows[::-1], 3))
    ]
    assert kept[0].asked.patient_ids.equals(kept[1].asked.patient_ids)
    assert len(kept[0].asked.patient_ids) == 40 and np.diff(kept[0].asked.had.indptr).min() > 0
    assert (kept[0].scores(ASKED) == kept[1].scores(ASKED)).all()
