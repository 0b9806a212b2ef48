"""Several models' scores as one: each in standard deviations of the patient's own scores, and weighed.

B patients, M treatments, C models.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from medpipe.recommend.histories import Histories
from medpipe.recommend.parts import Model, Parts, rows_of

# Rows of weights: a patient of whom few treatments are known, and everybody else.
FEW, MANY = 0, 1


@dataclass(frozen=True)
class Blend:
    """A weighted sum of z-scores over the treatments that a patient does not have.

    Attributes:
        models: C fitted models on the same catalogue.
        weights: float64 (2, C): for patients of few known treatments, and of more.
        few: who has fewer than so many has few; 1: who has none.
    """

    models: tuple[Model, ...]
    weights: np.ndarray
    few: int = 1

    def scores(self, histories: Histories) -> np.ndarray:
        """float64 (B, M). A model that says the same of every treatment adds nothing."""
        total = np.zeros(histories.had.shape)
        for model, weights in zip(self.models, self._of_patients(histories).T, strict=True):
            if weights.any():
                scores = model.scores(histories)
                mean, spread = moments(scores, histories.had)
                total += (scores - mean[:, None]) * (weights * spread)[:, None]
        return total

    def parts(self, histories: Histories, items: np.ndarray) -> Parts:
        """The models' own parts, weighed; the patient's means are in the base."""
        total = None
        for model, weights in zip(self.models, self._of_patients(histories).T, strict=True):
            mean, spread = moments(model.scores(histories), histories.had)
            found = model.parts(histories, items)
            found = Parts(found.base - mean[:, None], found.of_treatments, found.of_features)
            found = found.scaled(histories, weights * spread)
            total = found if total is None else total.plus(found)
        return total

    def _of_patients(self, histories: Histories) -> np.ndarray:
        """(B, C)."""
        return self.weights[np.where(np.diff(histories.had.indptr) < self.few, FEW, MANY)]


def moments(scores: np.ndarray, had: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """(mean, 1 / standard deviation), float64 (B,), over what the patient does not have; 0 where all are alike."""
    num_left = np.maximum(scores.shape[1] - np.diff(had.indptr), 1)
    rows = rows_of(had)
    taken = scores[rows, had.indices]

    def mean(values: np.ndarray, of_taken: np.ndarray) -> np.ndarray:
        return (values.sum(axis=1) - np.bincount(rows, of_taken, len(scores))) / num_left

    middle = mean(scores, taken)
    variance = mean((scores - middle[:, None]) ** 2, (taken - middle[rows]) ** 2)
    # Below the rounding of the scores themselves nothing differs.
    is_alike = variance <= (1e-9 * np.abs(scores).max(axis=1, initial=0)) ** 2
    return middle, np.where(is_alike, 0.0, 1 / np.sqrt(np.where(is_alike, 1.0, variance)))
