"""Models in which each treatment had and each feature adds a fixed number to a score: closed forms of the counts.

M treatments, N features, B patients.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from medpipe.recommend.gram import Gram
from medpipe.recommend.histories import Histories
from medpipe.recommend.parts import Parts, Scored, apart, rows_of
from medpipe.recommend.settings import EaseSettings


@dataclass(frozen=True)
class Linear:
    """A score is base + the sum of what the patient's treatments and features say; how often given does not count.

    Attributes:
        base: float64 (M,).
        by_treatment: float64 (M, M), row j: what having j says. by_feature: float64 (N, M).
    """

    base: np.ndarray
    by_treatment: np.ndarray
    by_feature: np.ndarray

    def scores(self, histories: Histories) -> np.ndarray:
        """float64 (B, M)."""
        found = torch.from_numpy(self.base).expand(histories.had.shape).clone()
        for matrix, said in ((histories.had, self.by_treatment), (histories.features, self.by_feature)):
            if matrix.nnz:
                torch.addmm(found, _once(matrix), torch.from_numpy(said), out=found)
        return found.numpy()

    def parts(self, histories: Histories, items: np.ndarray) -> Parts:
        """Of scores[b, items[b, k]]."""
        return Parts(
            base=self.base[items],
            of_treatments=_said(self.by_treatment, histories.had, items),
            of_features=_said(self.by_feature, histories.features, items),
        )

    def scored(self, histories: Histories) -> Scored:
        """Both."""
        return apart(self, histories)


@dataclass(frozen=True)
class CosineSettings:
    """num_neighbours: most alike treatments that a treatment speaks for. shrinkage: patients added to each norm."""

    num_neighbours: int = 100
    shrinkage: float = 10.0


def popularity(gram: Gram) -> Linear:
    """The share of patients who have it, whoever the patient is."""
    return _of(gram, base=np.diag(gram.treatments) / max(gram.num_patients, 1.0))


def popularity_by_feature(gram: Gram, shrinkage: float = 20.0) -> Linear:
    """The share among all, plus for each feature of the patient the share among those who have it.

    Args:
        shrinkage: patients of average habits added to those with a feature.
    """
    share = np.diag(gram.treatments) / max(gram.num_patients, 1.0)
    with_feature = np.diag(gram.features_and_one)[:-1, None]
    by_feature = (gram.treatments_by_feature + shrinkage * share) / (with_feature + shrinkage)
    return _of(gram, base=share, by_feature=by_feature)


def feature_ridge(gram: Gram, reg: float = 30.0) -> Linear:
    """Ridge regression of each treatment on the features, with a free intercept: what is known before any treatment.

    Cost: N**3, once, on the driver.
    """
    counts = gram.features_and_one
    penalties = np.append(np.full(len(counts) - 1, reg), 1e-9)
    weights = np.linalg.solve(counts + np.diag(penalties), gram.counts[gram.num_treatments :, : gram.num_treatments])
    return _of(gram, base=weights[-1], by_feature=weights[:-1])


def treatment_cosine(gram: Gram, settings: CosineSettings) -> Linear:
    """Treatments that the same patients have: n_ij / (sqrt(n_i n_j) + shrinkage), the nearest only.

    Source: Sarwar, Karypis, Konstan and Riedl, WWW 2001, section 3.1; ties of the last neighbour all stay.
    """
    sizes = np.sqrt(np.diag(gram.treatments))
    alike = gram.treatments / np.maximum(np.outer(sizes, sizes) + settings.shrinkage, 1e-9)
    np.fill_diagonal(alike, 0)
    if settings.num_neighbours < len(alike):
        # By what is recommended, so that a rare treatment is not drowned: each column keeps its nearest.
        least = np.partition(alike, -settings.num_neighbours, axis=0)[-settings.num_neighbours]
        alike = np.where(alike >= least, alike, 0)
    return _of(gram, by_treatment=alike)


def ease(gram: Gram, settings: EaseSettings) -> Linear:
    """The best linear guess of each treatment from all others, and from features where they weigh.

    Source: Steck, WWW 2019: B = I - P diag(1 / diag P) with P = (X'X + reg I)^-1; and NeurIPS 2020: hiding a share p
    adds p / (1 - p) diag(X'X) to reg I. Features are more columns of X that nobody is recommended.
    Cost: (M + N)**3, once, on the driver.
    """
    num_treatments = gram.num_treatments
    is_used = np.ones(len(gram.counts) - 1, bool)
    is_used[num_treatments:] = settings.feature_weight > 0
    loud = np.where(np.arange(len(is_used)) < num_treatments, 1.0, settings.feature_weight)[is_used]
    counts = gram.counts[:-1, :-1][np.ix_(is_used, is_used)] * np.outer(loud, loud)
    inverse = np.linalg.inv(counts + np.diag(settings.reg + settings.dropout_odds * np.diag(counts)))
    weights = -inverse[:, :num_treatments] / np.diag(inverse)[:num_treatments]
    by_treatment = weights[:num_treatments]
    np.fill_diagonal(by_treatment, 0)
    if settings.feature_weight == 0:
        return _of(gram, by_treatment=by_treatment)
    return _of(gram, by_treatment=by_treatment, by_feature=settings.feature_weight * weights[num_treatments:])


def _of(
    gram: Gram,
    base: np.ndarray | None = None,
    by_treatment: np.ndarray | None = None,
    by_feature: np.ndarray | None = None,
) -> Linear:
    """What is not given says nothing."""
    num_treatments = gram.num_treatments
    num_features = len(gram.counts) - 1 - num_treatments
    return Linear(
        base=np.zeros(num_treatments) if base is None else base,
        by_treatment=np.zeros((num_treatments, num_treatments)) if by_treatment is None else by_treatment,
        by_feature=np.zeros((num_features, num_treatments)) if by_feature is None else by_feature,
    )


def _once(matrix: sparse.csr_matrix) -> Tensor:
    """float64: 1 where an entry is stored; MKL multiplies such a one with an array twice as fast as scipy."""
    ones = torch.ones(matrix.nnz, dtype=torch.float64)
    with warnings.catch_warnings():
        # Of Arrow's arrays, which are read only, and of sparse ones, which are new in torch and not checked by it.
        warnings.simplefilter("ignore", UserWarning)
        starts, columns = torch.from_numpy(matrix.indptr), torch.from_numpy(matrix.indices)
        return torch.sparse_csr_tensor(starts, columns, ones, matrix.shape, check_invariants=False)


def _said(weights: np.ndarray, matrix: sparse.csr_matrix, items: np.ndarray) -> np.ndarray:
    """(E, K): what each stored entry says of its patient's items."""
    # Counted by hand, numpy finds them three times as fast.
    return weights.take(matrix.indices.astype(np.int64)[:, None] * weights.shape[1] + items[rows_of(matrix)])
