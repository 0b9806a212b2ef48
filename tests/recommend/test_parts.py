import pickle

import numpy as np
import pytest

from medpipe.recommend.exact_als import ExactAlsSettings, exact_als
from medpipe.recommend.gram import gram
from medpipe.recommend.linear import (
    CosineSettings,
    EaseSettings,
    ease,
    feature_ridge,
    popularity,
    popularity_by_feature,
    treatment_cosine,
)
from medpipe.recommend.neighbours import Neighbours, NeighbourSettings
from medpipe.recommend.population import InMemory
from tests.recommend.drawn import NUM_TREATMENTS, drawn

TAUGHT = InMemory(drawn(300, seed=1))
GRAM = gram(TAUGHT)
MODELS = {
    "exact_als": exact_als(TAUGHT, GRAM, ExactAlsSettings(rank=6, iterations=3, kappa=2.0)),
    "plain_als": exact_als(TAUGHT, GRAM, ExactAlsSettings(rank=40, iterations=3, kappa=0.0)),
    "ease": ease(GRAM, EaseSettings(reg=20)),
    "ease_alone": ease(GRAM, EaseSettings(reg=20, feature_weight=0)),
    "treatment_cosine": treatment_cosine(GRAM, CosineSettings(num_neighbours=10)),
    "popularity": popularity(GRAM),
    "popularity_by_feature": popularity_by_feature(GRAM),
    "feature_ridge": feature_ridge(GRAM),
    "neighbours": Neighbours(TAUGHT.histories, NeighbourSettings(20, 2.0, 0.7)),
    "cosine_formula": Neighbours(TAUGHT.histories, NeighbourSettings(50, 1.0, 0.0)),
}


@pytest.mark.parametrize("name", MODELS)
def test_parts_add_up_to_the_scores_of_everybody_known_or_not(name):
    patients, model = drawn(80, seed=2), pickle.loads(pickle.dumps(MODELS[name]))
    scores = model.scores(patients)
    assert scores.shape == (80, NUM_TREATMENTS) and scores.dtype == np.float64 and np.isfinite(scores).all()
    items = np.argsort(-scores, axis=1)[:, :7]
    parts = model.parts(patients, items)
    wanted = np.take_along_axis(scores, items, axis=1)
    assert np.abs(parts.totals(patients) - wanted).max() < 1e-9
    assert parts.of_treatments.shape == (patients.had.nnz, 7)
    both = model.scored(patients)
    assert (both.scores == scores).all() and (both.parts(items).totals(patients) == parts.totals(patients)).all()
    half = parts.scaled(patients, np.full(80, 0.5))
    assert np.allclose(half.plus(half).totals(patients), wanted)
