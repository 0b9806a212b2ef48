"""How good a probability is: ranking, calibration, and the difference of two models, with intervals over patients."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from medpipe.errors import DataError

# Probabilities are held this far from 0 and 1 before a logit.
EDGE = 1e-7


@dataclass(frozen=True)
class Metric:
    """One figure with the ends of its 95 % interval; None where none is computed."""

    name: str
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Bootstrap:
    """num_draws resamples of the patients; the same seed gives the same resamples to every model."""

    num_draws: int = 500
    seed: int = 1


def evaluate(labels: np.ndarray, scores: np.ndarray, bootstrap: Bootstrap) -> list[Metric]:
    """auroc, auprc, brier, calibration_intercept and calibration_slope of N patients.

    Args:
        labels: (N,), 0 or 1. scores: (N,), probabilities.
    Raises:
        DataError: ONE_LABEL when only one of the labels occurs.
    Cost: num_draws passes over the patients.
    """
    return [
        _with_interval(name, _values(labels, measure(labels, scores), bootstrap)) for name, measure in MEASURES.items()
    ]


def differences(
    labels: np.ndarray, scores: np.ndarray, other_scores: np.ndarray, other: str, bootstrap: Bootstrap
) -> list[Metric]:
    """auroc_above_OTHER, auprc_above_OTHER, brier_above_OTHER: paired, both models on the same resamples."""
    found = []
    for name in ("auroc", "auprc", "brier"):
        mine, theirs = (_values(labels, MEASURES[name](labels, given), bootstrap) for given in (scores, other_scores))
        found.append(_with_interval(f"{name}_above_{other}", mine - theirs))
    return found


Measure = Callable[[np.ndarray], float]


def auroc(labels: np.ndarray, scores: np.ndarray) -> Measure:
    """Chance that a patient with the outcome scores higher than one without, ties half; weights (N,) -> value.

    Source: Hanley and McNeil, Radiology 143 (1982) 29.
    """
    _, group = np.unique(scores, return_inverse=True)
    num_groups = group.max() + 1

    def measure(weights: np.ndarray) -> float:
        with_outcome = np.bincount(group, weights * labels, num_groups)
        without = np.bincount(group, weights * (1 - labels), num_groups)
        below = np.cumsum(without) - without
        return float(with_outcome @ (below + without / 2) / (with_outcome.sum() * without.sum()))

    return measure


def auprc(labels: np.ndarray, scores: np.ndarray) -> Measure:
    """Average precision: precision at each score, weighted by the recall won there; ties enter together."""
    _, group = np.unique(-scores, return_inverse=True)
    num_groups = group.max() + 1

    def measure(weights: np.ndarray) -> float:
        hits = np.bincount(group, weights * labels, num_groups)
        chosen = np.cumsum(np.bincount(group, weights, num_groups))
        precision = np.cumsum(hits) / np.maximum(chosen, 1)
        return float(hits @ precision / hits.sum())

    return measure


def brier(labels: np.ndarray, scores: np.ndarray) -> Measure:
    """Mean squared distance of the probability from the outcome. Source: Brier, Monthly Weather Review 78 (1950)."""
    errors = (scores.astype(np.float64) - labels) ** 2
    return lambda weights: float(weights @ errors / weights.sum())


def calibration_intercept(labels: np.ndarray, scores: np.ndarray) -> Measure:
    """Calibration in the large: a in logit P(y) = a + logit(score); 0 is right, above 0 the scores are too low.

    Source: Van Calster et al., BMC Medicine 17 (2019) 230.
    """
    offset = _logit(scores)
    return lambda weights: float(_logistic(np.ones((len(offset), 1)), offset, labels, weights)[0])


def calibration_slope(labels: np.ndarray, scores: np.ndarray) -> Measure:
    """b in logit P(y) = a + b logit(score); 1 is right, below 1 the scores are too extreme. Source: as above."""
    inputs = np.column_stack([np.ones(len(scores)), _logit(scores)])
    return lambda weights: float(_logistic(inputs, np.zeros(len(scores)), labels, weights)[1])


MEASURES = {
    "auroc": auroc,
    "auprc": auprc,
    "brier": brier,
    "calibration_intercept": calibration_intercept,
    "calibration_slope": calibration_slope,
}


def _values(labels: np.ndarray, measure: Measure, bootstrap: Bootstrap) -> np.ndarray:
    """(1 + num_draws,): of all patients, then of each resample; one without both labels is NaN."""
    if len(np.unique(labels)) < 2:
        raise DataError(
            "ONE_LABEL", f"{len(labels)} patients with one label only: nothing can be ranked; enlarge the split"
        )
    random = np.random.default_rng(bootstrap.seed)
    values = [measure(np.ones(len(labels)))]
    for _ in range(bootstrap.num_draws):
        weights = np.bincount(random.integers(0, len(labels), len(labels)), minlength=len(labels)).astype(np.float64)
        has_both = 0 < weights @ labels < weights.sum()
        values.append(measure(weights) if has_both else np.nan)
    return np.array(values)


def _with_interval(name: str, values: np.ndarray) -> Metric:
    """Percentile interval. Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13."""
    known = values[1:][np.isfinite(values[1:])]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
    return Metric(name, float(values[0]), float(low), float(high))


def _logit(scores: np.ndarray) -> np.ndarray:
    clipped = scores.astype(np.float64).clip(EDGE, 1 - EDGE)
    return np.log(clipped) - np.log1p(-clipped)


def _logistic(inputs: np.ndarray, offset: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Maximum likelihood by Newton's method; (K,) from inputs (N, K). A flat likelihood gives NaN."""
    beta = np.zeros(inputs.shape[1])
    for _ in range(30):
        # The logistic function, by an identity that cannot overflow where labels are separable.
        mean = (1 + np.tanh((offset + inputs @ beta) / 2)) / 2
        gradient = inputs.T @ (weights * (labels - mean))
        curvature = (inputs * (weights * mean * (1 - mean))[:, None]).T @ inputs
        if np.linalg.cond(curvature) > 1e12:
            return np.full_like(beta, np.nan)
        step = np.linalg.solve(curvature, gradient)
        beta = beta + step
        if np.abs(step).max() < 1e-9:
            return beta
    return beta
