import numpy as np
from sklearn.metrics import roc_auc_score

from medpipe.evaluate.baselines import count_inputs, logistic


def test_inputs_are_log_counts_and_log_age():
    inputs = count_inputs(np.array([0, 3, 4]), np.array([2, 3, 3, 1]), np.array([10000, 5, 4, 700]), num_tokens=4)
    expected = [[0, 0, np.log(2), np.log(3), np.log1p(10000) / 10], [0, np.log(2), 0, 0, np.log1p(700) / 10]]
    np.testing.assert_allclose(inputs.toarray(), expected)


def test_it_finds_the_concept_that_matters_on_patients_it_has_not_seen():
    random = np.random.default_rng(0)
    counts = random.poisson(1, (1500, 20))
    risk = 1 / (1 + np.exp(3 - 3 * np.log1p(counts[:, 4])))
    labels = (random.random(1500) < risk).astype(float)
    offsets = np.concatenate([[0], np.cumsum(counts.sum(axis=1))])
    tokens = np.concatenate([np.repeat(np.arange(20), row) for row in counts])
    has_event = np.diff(offsets) > 0
    assert has_event.all()
    inputs = count_inputs(offsets, tokens, np.full(len(tokens), 9000), 20)
    scores = logistic(inputs, labels, train=np.arange(900), tune=np.arange(900, 1200))
    held_out = slice(1200, None)
    assert roc_auc_score(labels[held_out], scores[held_out]) > roc_auc_score(labels[held_out], risk[held_out]) - 0.03
