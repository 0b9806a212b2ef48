import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

from medpipe.errors import DataError
from medpipe.recommend.gram import gram
from medpipe.recommend.histories import Histories
from medpipe.recommend.linear import (
    CosineSettings,
    EaseSettings,
    ease,
    feature_ridge,
    popularity,
    popularity_by_feature,
    treatment_cosine,
)
from medpipe.recommend.population import InMemory
from tests.recommend.drawn import NUM_TREATMENTS, drawn

HISTORIES = drawn(200, seed=1)
GRAM = gram(InMemory(HISTORIES))
KNOWN = np.diff(HISTORIES.had.indptr) > 0
HAD = (HISTORIES.had.toarray()[KNOWN] > 0).astype(float)
FEATURES = HISTORIES.features.toarray()[KNOWN].astype(float)


def test_counts_are_of_patients_with_a_treatment_however_often_it_was_given():
    whole = np.hstack([HAD, FEATURES, np.ones((len(HAD), 1))])
    assert (GRAM.counts == whole.T @ whole).all()
    assert GRAM.num_patients == KNOWN.sum() == len(HAD) < 200
    assert HISTORIES.had.data.max() > 1, "the ratings themselves are left as they were"


def test_a_catalogue_too_large_to_be_counted_whole_is_refused():
    had, features = sparse.csr_matrix((1, 8000)), sparse.csr_matrix((1, 192))
    with pytest.raises(DataError, match="CATALOGUE_TOO_LARGE: 8192 treatments and features; .* at most 8191"):
        gram(InMemory(Histories(pa.array(["ann"]), had, features)))


@pytest.mark.parametrize(("weight", "odds"), [(0.0, 0.0), (0.5, 0.0), (0.5, 0.7)])
def test_ease_is_for_each_treatment_the_ridge_regression_on_all_else(weight, odds):
    columns = np.hstack([HAD, weight * FEATURES]) if weight else HAD
    model = ease(GRAM, EaseSettings(reg=15, feature_weight=weight, dropout_odds=odds))
    for treatment in (0, 7, 29):
        others = np.delete(np.arange(columns.shape[1]), treatment)
        x = columns[:, others]
        # To hide a share of each column at random is, on average, a penalty by its length.
        penalties = 15 + odds * (x**2).sum(axis=0)
        wanted = np.linalg.solve(x.T @ x + np.diag(penalties), x.T @ HAD[:, treatment])
        found = np.concatenate([model.by_treatment[:, treatment], model.by_feature[:, treatment] / (weight or 1)])
        assert found[others] == pytest.approx(wanted, abs=1e-9)
        assert found[treatment] == 0


def test_the_cosine_of_treatments_keeps_the_nearest_of_each():
    model = treatment_cosine(GRAM, CosineSettings(num_neighbours=NUM_TREATMENTS, shrinkage=0))
    lengths = np.maximum(np.sqrt((HAD**2).sum(axis=0)), 1e-9)
    wanted = (HAD / lengths).T @ (HAD / lengths)
    np.fill_diagonal(wanted, 0)
    assert model.by_treatment == pytest.approx(wanted)
    few = treatment_cosine(GRAM, CosineSettings(num_neighbours=3, shrinkage=0)).by_treatment
    assert np.sort(few, axis=0)[-3:] == pytest.approx(np.sort(wanted, axis=0)[-3:])
    assert few.sum() < wanted.sum() and set(few[few > 0].round(9)) <= set(wanted.round(9).ravel())


def test_popularity_is_a_share_and_features_shift_it():
    assert popularity(GRAM).base == pytest.approx(HAD.mean(axis=0))
    model = popularity_by_feature(GRAM, shrinkage=4)
    with_first = FEATURES[:, 0] > 0
    wanted = (HAD[with_first].sum(axis=0) + 4 * HAD.mean(axis=0)) / (with_first.sum() + 4)
    assert model.by_feature[0] == pytest.approx(wanted)


def test_the_ridge_of_features_is_the_regression_with_a_free_intercept():
    model = feature_ridge(GRAM, reg=7)
    middle, target = FEATURES - FEATURES.mean(axis=0), HAD - HAD.mean(axis=0)
    wanted = np.linalg.solve(middle.T @ middle + 7 * np.eye(FEATURES.shape[1]), middle.T @ target)
    assert model.by_feature == pytest.approx(wanted, abs=1e-6)
    assert FEATURES.mean(axis=0) @ model.by_feature + model.base == pytest.approx(HAD.mean(axis=0), abs=1e-6)
