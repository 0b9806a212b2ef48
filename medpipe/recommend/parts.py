"""What carried a score: of each treatment had, of each feature, and a base, so that they add up to it.

B patients, K treatments asked about for each, M treatments of the catalogue, N features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from scipy import sparse

from medpipe.recommend.histories import Histories


@dataclass(frozen=True)
class Parts:
    """Contributions to the scores of K treatments for each of B patients.

    Attributes:
        base: float64 (B, K), what nothing of the patient's own stands behind.
        of_treatments: float64 (E, K), a row for each stored entry of `Histories.had`, in its order: patient b's are
            the rows indptr[b] to indptr[b + 1], and `had.indices` says which treatment each is.
        of_features: float64 (G, K), the same for `Histories.features`.
    """

    base: np.ndarray
    of_treatments: np.ndarray
    of_features: np.ndarray

    def totals(self, histories: Histories) -> np.ndarray:
        """float64 (B, K): the scores that the parts add up to."""
        return self.base + _by_row(histories.had) @ self.of_treatments + _by_row(histories.features) @ self.of_features

    def scaled(self, histories: Histories, factors: np.ndarray) -> "Parts":
        """All parts of patient b times factors[b]; float64 (B,)."""
        return Parts(
            self.base * factors[:, None],
            self.of_treatments * factors[rows_of(histories.had), None],
            self.of_features * factors[rows_of(histories.features), None],
        )

    def plus(self, other: "Parts") -> "Parts":
        """The parts of the sum of both scores."""
        return Parts(
            self.base + other.base,
            self.of_treatments + other.of_treatments,
            self.of_features + other.of_features,
        )


@dataclass(frozen=True)
class Scored:
    """What a model says of some patients, and of what it is made.

    Attributes:
        scores: float64 (B, M).
        parts: for items int64 (B, K), what carried scores[b, items[b, k]].
    """

    scores: np.ndarray
    parts: Callable[[np.ndarray], Parts]


class Model(Protocol):
    """What every fitted recommender is: a frozen dataclass of arrays that pickles to the executors."""

    def scores(self, histories: Histories) -> np.ndarray:
        """float64 (B, M), higher is better, comparable within a patient; finite for everybody, known or not."""

    def parts(self, histories: Histories, items: np.ndarray) -> Parts:
        """What carried scores[b, items[b, k]]; items int64 (B, K), columns of the catalogue."""

    def scored(self, histories: Histories) -> Scored:
        """Both, for less than both cost apart where they have something in common."""


def nothing(histories: Histories, num_items: int) -> Parts:
    """Parts of nothing: all 0, to be filled or added to."""
    sizes = (histories.had.shape[0], histories.had.nnz, histories.features.nnz)
    return Parts(*(np.zeros((size, num_items)) for size in sizes))


def apart(model: Model, histories: Histories) -> Scored:
    """Of a model whose scores and parts have nothing to share."""
    return Scored(model.scores(histories), partial(model.parts, histories))


def rows_of(matrix: sparse.csr_matrix) -> np.ndarray:
    """int64 (E,): the row of each stored entry."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def _by_row(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """(B, E) with a one where a stored entry belongs to the row."""
    num_entries = matrix.indptr[-1]
    shape = (matrix.shape[0], num_entries)
    return sparse.csr_matrix((np.ones(num_entries), np.arange(num_entries), matrix.indptr), shape=shape)
