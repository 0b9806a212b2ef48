"""Several models' scores as one: each in standard deviations of the patient's own scores, and weighed.

B patients, M treatments, C models.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse

from medpipe.recommend.histories import Histories
from medpipe.recommend.parts import Model, Parts, Scored, apart, nothing, rows_of

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
        return self._asked(histories, apart).scores

    def parts(self, histories: Histories, items: np.ndarray) -> Parts:
        """The models' own parts, weighed; the patient's means are in the base."""
        return self._asked(histories, apart).parts(items)

    def scored(self, histories: Histories) -> Scored:
        """Both."""
        return self._asked(histories, lambda model, histories: model.scored(histories))

    def _asked(self, histories: Histories, ask: Callable[[Model, Histories], Scored]) -> Scored:
        """Each model is asked once."""
        offset, weighed, used = np.zeros(len(histories.patient_ids)), [], []
        for model, weights in zip(self.models, self._of_patients(histories).T, strict=True):
            if weights.any():
                scored = ask(model, histories)
                mean, spread = moments(scored.scores, histories.had)
                offset -= mean * weights * spread
                weighed.append((scored.scores, weights * spread))
                used.append((scored.parts, mean, weights * spread))
        total = torch.from_numpy(offset)[:, None].expand(histories.had.shape)
        for scores, factors in weighed:
            total = torch.addcmul(total, torch.from_numpy(scores), torch.from_numpy(factors)[:, None])

        def parts(items: np.ndarray) -> Parts:
            found = nothing(histories, items.shape[1])
            for parts_of, mean, factors in used:
                own = parts_of(items)
                own = Parts(own.base - mean[:, None], own.of_treatments, own.of_features)
                found = found.plus(own.scaled(histories, factors))
            return found

        return Scored(total.numpy(), parts)

    def _of_patients(self, histories: Histories) -> np.ndarray:
        """(B, C)."""
        return self.weights[np.where(np.diff(histories.had.indptr) < self.few, FEW, MANY)]


def moments(scores: np.ndarray, had: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """(mean, 1 / standard deviation), float64 (B,), over what the patient does not have; 0 where all are alike."""
    num_left = np.maximum(scores.shape[1] - np.diff(had.indptr), 1)
    rows = rows_of(had)
    taken = scores[rows, had.indices]
    squares = np.einsum("bm,bm->b", scores, scores)
    mean = (scores.sum(axis=1) - np.bincount(rows, taken, len(scores))) / num_left
    variance = (squares - np.bincount(rows, taken**2, len(scores))) / num_left - mean**2
    # Below the rounding of such a difference nothing differs.
    is_alike = variance <= 1e-12 * squares / max(scores.shape[1], 1)
    return mean, np.where(is_alike, 0.0, 1 / np.sqrt(np.where(is_alike, 1.0, variance)))
