"""The model to beat: logistic regression, on how often each concept occurs and age, or on the pixels."""

import warnings

import numpy as np
from scipy.sparse import csr_matrix, hstack
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

# Inverse penalties tried; the one with the least log loss on the tune split is kept.
PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)

SIDE = 32


def count_inputs(offsets: np.ndarray, tokens: np.ndarray, days_before: np.ndarray, num_tokens: int) -> csr_matrix:
    """(N, num_tokens + 1): ln(1 + count) of each token, and ln(1 + days) of the first element, the birth, over 10.

    Args:
        offsets: int64 (N + 1,); tokens, days_before: (E,), as in stream.batches.Sequences.
    """
    patients = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    counts = csr_matrix((np.ones(len(tokens)), (patients, tokens)), shape=(len(offsets) - 1, num_tokens))
    counts.sum_duplicates()
    counts.data = np.log1p(counts.data)
    age = np.log1p(days_before[offsets[:-1]].astype(np.float64)) / 10
    return hstack([counts, csr_matrix(age[:, None])], format="csr")


def pixel_inputs(pixels: np.ndarray) -> np.ndarray:
    """(N, pixels) in [-.5, .5] from uint8 (N, H, W), at most SIDE * SIDE of them: larger images are thinned out."""
    step = -(-max(pixels.shape[1:]) // SIDE)
    thin = pixels[:, ::step, ::step]
    return thin.reshape(len(thin), -1) / 255.0 - 0.5


def logistic(inputs: csr_matrix | np.ndarray, labels: np.ndarray, train: np.ndarray, tune: np.ndarray) -> np.ndarray:
    """Probabilities (N,) for all patients from a model fitted on the rows `train`, its penalty chosen on `tune`."""
    best, best_loss = None, np.inf
    for penalty in PENALTIES:
        model = LogisticRegression(C=penalty, max_iter=500)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(inputs[train], labels[train])
        loss = log_loss(labels[tune], model.predict_proba(inputs[tune])[:, 1])
        if loss < best_loss:
            best, best_loss = model, loss
    return best.predict_proba(inputs)[:, 1]
