import numpy as np
import pytest
from scipy import sparse

from medpipe.recommend.blend import Blend, moments
from medpipe.recommend.gram import gram
from medpipe.recommend.linear import EaseSettings, ease, feature_ridge, popularity
from medpipe.recommend.population import InMemory
from medpipe.recommend.served import blended
from medpipe.recommend.settings import BlendSettings
from tests.recommend.drawn import drawn

TAUGHT = drawn(300, seed=1)
GRAM = gram(InMemory(TAUGHT))
MODELS = (ease(GRAM, EaseSettings(20, 0)), feature_ridge(GRAM), popularity(GRAM))


def test_moments_are_of_what_the_patient_does_not_have_and_alike_scores_weigh_nothing():
    scores = np.array([[1.0, 2.0, 9.0, 3.0], [7.0, 7.0, 7.0, 7.0], [0.1, 0.1, 0.1, 5.0]])
    had = sparse.csr_matrix([[0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]])
    mean, spread = moments(scores, had)
    assert mean == pytest.approx([2, 7, 0.1])
    assert spread == pytest.approx([1 / np.std([1, 2, 3]), 0, 0])


@pytest.mark.parametrize("few", [1, 4])
def test_patients_of_few_treatments_have_weights_of_their_own_and_the_parts_add_up(few):
    blend = Blend(MODELS, np.array([[0.0, 1.0, 0.0], [0.7, 0.1, 0.2]]), few)
    patients = drawn(60, seed=2)
    scores = blend.scores(patients)
    items = np.argsort(-scores, axis=1)[:, :5]
    totals = blend.parts(patients, items).totals(patients)
    assert np.abs(totals - np.take_along_axis(scores, items, axis=1)).max() < 1e-9
    assert (blend.scored(patients).parts(items).totals(patients) == totals).all()
    none = Blend(MODELS, np.zeros((2, 3)))
    assert not none.scores(patients).any() and not none.parts(patients, items).totals(patients).any()
    of_few = np.flatnonzero(np.diff(patients.had.indptr) < few)
    by_features = MODELS[1].scores(patients)
    assert 0 < len(of_few) < 60
    alone = Blend(MODELS, np.array([[0.7, 0.1, 0.2]] * 2)).scores(patients)
    of_more = np.diff(patients.had.indptr) >= few
    assert (np.diff(patients.had.indptr) == few).any() and scores[of_more] == pytest.approx(alone[of_more], abs=1e-12)
    for patient in of_few:
        assert (np.argsort(-scores[patient]) == np.argsort(-by_features[patient])).all()


def test_the_night_weighs_exact_als_ease_and_the_ridge_in_this_order():
    found = blended(MODELS, BlendSettings(als=0.5, ease=0.2, few=3, als_of_few=0.7))
    assert found.models == MODELS and found.few == 3
    assert found.weights == pytest.approx(np.array([[0.7, 0, 0.3], [0.5, 0.2, 0.3]]))
