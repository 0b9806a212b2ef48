"""Two trained towers as a recommender: numpy only, and what each treatment and feature adds can be told.

M treatments, N features, R dimensions, B patients. Trained by train.two_tower.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from medpipe.recommend.histories import Histories
from medpipe.recommend.parts import Parts, Scored, apart, rows_of


@dataclass(frozen=True)
class TwoTower:
    """Attributes, float64: by_treatment (M, R), by_feature (N, R), everybody (R,), of_treatments (M, R), bias (M,)."""

    by_treatment: np.ndarray
    by_feature: np.ndarray
    everybody: np.ndarray
    of_treatments: np.ndarray
    bias: np.ndarray

    def scores(self, histories: Histories) -> np.ndarray:
        """float64 (B, M): logits."""
        patients = _shares(histories.had) @ self.by_treatment + _shares(histories.features) @ self.by_feature
        return (patients + self.everybody) @ self.of_treatments.T + self.bias

    def parts(self, histories: Histories, items: np.ndarray) -> Parts:
        """Of scores[b, items[b, k]]; products of vectors add up."""
        asked = self.of_treatments[items]  # (B, K, R)

        def said(matrix: sparse.csr_matrix, vectors: np.ndarray) -> np.ndarray:
            shares = _shares(matrix)
            own = vectors[matrix.indices] * shares.data[:, None]
            return np.einsum("er,ekr->ek", own, asked[rows_of(matrix)])

        return Parts(
            base=asked @ self.everybody + self.bias[items],
            of_treatments=said(histories.had, self.by_treatment),
            of_features=said(histories.features, self.by_feature),
        )

    def scored(self, histories: Histories) -> Scored:
        """Both."""
        return apart(self, histories)


def _shares(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """One over the root of the row's number of entries, in each entry."""
    lengths = np.diff(matrix.indptr)
    values = np.repeat(1 / np.sqrt(np.maximum(lengths, 1)), lengths)
    return sparse.csr_matrix((values, matrix.indices, matrix.indptr), shape=matrix.shape)
