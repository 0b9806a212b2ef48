import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from medpipe.errors import DataError
from medpipe.evaluate.classification import Bootstrap, differences, evaluate


@pytest.fixture
def patients():
    """4,000 patients whose outcomes follow their true risk."""
    random = np.random.default_rng(3)
    risk = 1 / (1 + np.exp(-random.normal(-2, 1.2, 4000)))
    return (random.random(4000) < risk).astype(np.float32), risk


def values(metrics):
    return {metric.name: metric.value for metric in metrics}


def test_ranking_metrics_equal_scikit_learn_with_and_without_ties(patients):
    labels, risk = patients
    for scores in (risk, np.round(risk, 1)):
        found = values(evaluate(labels, scores, Bootstrap(5)))
        assert found["auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
        assert found["auprc"] == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
        assert found["brier"] == pytest.approx(np.mean((labels - scores) ** 2), abs=1e-9)


def test_a_score_that_says_nothing_ranks_at_one_half():
    found = values(evaluate(np.array([0, 1, 0, 1, 1]), np.full(5, 0.3), Bootstrap(5)))
    assert found["auroc"] == 0.5 and found["auprc"] == pytest.approx(0.6)


def test_true_risks_are_calibrated_and_the_interval_says_so(patients):
    found = {metric.name: metric for metric in evaluate(*patients, Bootstrap(200))}
    assert found["calibration_intercept"].low < 0 < found["calibration_intercept"].high
    assert found["calibration_slope"].low < 1 < found["calibration_slope"].high


def test_too_extreme_and_too_low_scores_show_in_slope_and_intercept(patients):
    labels, risk = patients
    logit = np.log(risk / (1 - risk))
    extreme = values(evaluate(labels, 1 / (1 + np.exp(-2 * logit)), Bootstrap(5)))
    low = values(evaluate(labels, 1 / (1 + np.exp(-(logit - 1))), Bootstrap(5)))
    assert extreme["calibration_slope"] == pytest.approx(0.5, abs=0.06)
    assert low["calibration_intercept"] == pytest.approx(1, abs=0.15)


def test_the_interval_of_a_mean_is_the_known_one():
    errors = np.random.default_rng(0).random(2000)
    brier = {m.name: m for m in evaluate((errors > 0.5).astype(float), np.full(2000, 0.25), Bootstrap(500))}["brier"]
    spread = np.std(((errors > 0.5) - 0.25) ** 2) / np.sqrt(2000)
    assert (brier.high - brier.low) / 2 == pytest.approx(1.96 * spread, rel=0.1)


def test_a_seed_gives_the_same_interval_again(patients):
    assert evaluate(*patients, Bootstrap(20, seed=4)) == evaluate(*patients, Bootstrap(20, seed=4))
    assert evaluate(*patients, Bootstrap(20, seed=4)) != evaluate(*patients, Bootstrap(20, seed=5))


def test_a_paired_difference_is_narrower_than_two_intervals(patients):
    labels, risk = patients
    noisy = risk * np.exp(np.random.default_rng(1).normal(0, 0.3, len(risk)))
    alone = {metric.name: metric for metric in evaluate(labels, risk, Bootstrap(200))}["auroc"]
    paired = differences(labels, risk, noisy, "noisy", Bootstrap(200))
    assert [metric.name for metric in paired] == ["auroc_above_noisy", "auprc_above_noisy", "brier_above_noisy"]
    assert paired[0].value == pytest.approx(roc_auc_score(labels, risk) - roc_auc_score(labels, noisy))
    assert paired[0].low > 0
    assert paired[0].high - paired[0].low < alone.high - alone.low


def test_a_model_is_not_better_than_itself(patients):
    labels, risk = patients
    assert {(m.value, m.low, m.high) for m in differences(labels, risk, risk, "itself", Bootstrap(20))} == {(0, 0, 0)}


def test_patients_with_one_label_only_are_refused():
    with pytest.raises(DataError, match="ONE_LABEL: 3 patients with one label only"):
        evaluate(np.zeros(3), np.array([0.1, 0.2, 0.3]), Bootstrap(5))
