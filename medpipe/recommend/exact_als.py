"""Implicit ALS with each side solved exactly, one pass over the patients an iteration, and a prior from features.

M treatments, N features, R factors, B patients.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.nn.functional import embedding

from medpipe.recommend.gram import Gram
from medpipe.recommend.histories import Histories
from medpipe.recommend.parts import Parts, Scored, nothing
from medpipe.recommend.population import Population
from medpipe.recommend.settings import ExactAlsSettings
from medpipe.recommend.solve import Group, Ridges, padded, ridges


@dataclass(frozen=True)
class ExactAls:
    """A fitted model.

    Attributes:
        of_treatments: V, float64 (M, R).
        of_features: W, float64 (N + 1, R); the last row is everybody's.
    """

    of_treatments: np.ndarray
    of_features: np.ndarray
    settings: ExactAlsSettings

    def scores(self, histories: Histories) -> np.ndarray:
        """float64 (B, M): what a full solve with V fixed gives, for patients the fit has never seen as well."""
        return self._scores(self.factors(histories))

    def parts(self, histories: Histories, items: np.ndarray) -> Parts:
        """v_i'x is the sum of (1 + c_j) v_j'h over treatments and kappa w'h over features, with h = A^-1 v_i."""
        return self._parts(histories, self._groups(histories), items)

    def scored(self, histories: Histories) -> Scored:
        """Both, each patient's matrix factored once; until the parts are told, all are held."""
        groups = list(self._groups(histories))
        return Scored(self._scores(self._factors(histories, groups)), partial(self._parts, histories, groups))

    def factors(self, histories: Histories) -> np.ndarray:
        """(B, R), in the type of V. Without any treatment known: what the features let expect, W'f."""
        return self._factors(histories, self._groups(histories))

    def _scores(self, factors: np.ndarray) -> np.ndarray:
        return (torch.from_numpy(factors) @ torch.from_numpy(self.of_treatments).T).numpy()

    def _factors(self, histories: Histories, groups: Iterable["_Told"]) -> np.ndarray:
        vectors, expected = self._ridges.vectors, torch.from_numpy(self._expected(histories))
        found = np.empty(expected.shape, self.of_treatments.dtype)
        for group, told, prior in groups:
            right = (told[:, None, :] @ group.vectors)[:, 0] + prior[:, None] * (expected[group.rows] @ vectors)
            found[group.rows] = (group.solved(right[:, None, :])[:, 0] @ vectors.T).numpy()
        return found

    def _parts(self, histories: Histories, groups: Iterable["_Told"], items: np.ndarray) -> Parts:
        turned, of_features = self._ridges.turned, torch.from_numpy(self.of_features) @ self._ridges.vectors
        columns, features = torch.from_numpy(items), histories.features
        parts = nothing(histories, items.shape[1])
        for group, told, prior in groups:
            answers = group.solved(embedding(columns[group.rows], turned)).mT  # (B, R, K)
            parts.base[group.rows] = prior[:, None] * (of_features[-1] @ answers)
            products = (told[:, :, None] * (group.vectors @ answers)).numpy()
            parts.of_treatments[group.entries[group.is_inside]] = products[group.is_inside]
            entries, is_inside = padded(features, group.rows)
            products = embedding(torch.from_numpy(features.indices[entries]), of_features) @ answers
            parts.of_features[entries[is_inside]] = (prior[:, None, None] * products).numpy()[is_inside]
        return parts

    @cached_property
    def _ridges(self) -> Ridges:
        return ridges(self.of_treatments)

    def _expected(self, histories: Histories) -> np.ndarray:
        """(B, R): W'f."""
        return histories.features.astype(self.of_features.dtype) @ self.of_features[:-1] + self.of_features[-1]

    def _groups(self, histories: Histories) -> Iterator["_Told"]:
        counts, settings = np.diff(histories.had.indptr), self.settings
        for group in self._ridges.groups(self._confidences(histories), settings.reg * counts + settings.kappa):
            told = group.weights + torch.from_numpy(group.is_inside)
            prior = np.where(counts[group.rows] > 0, settings.kappa, 1.0)
            yield _Told(group, told, torch.from_numpy(prior).to(told.dtype))

    def _confidences(self, histories: Histories) -> sparse.csr_matrix:
        """(B, M): c = alpha * rating."""
        had = histories.had
        values = (self.settings.alpha * had.data).astype(self.of_treatments.dtype)
        return sparse.csr_matrix((values, had.indices, had.indptr), shape=had.shape)


class _Told(NamedTuple):
    """A group, 1 + c of its treatments (B, L), 0 beyond the end, and what its prior weighs (B,)."""

    group: Group
    told: Tensor
    prior: Tensor


def exact_als(population: Population, gram: Gram, settings: ExactAlsSettings) -> ExactAls:
    """Fits V and W; patients of whom no treatment is known teach it nothing.

    Each pass solves every patient with the V and W of the pass before, in float32, and sums what both need next: V
    solves its normal equations, W is the ridge regression of the patients' factors on their features.

    Args:
        gram: of the same population.
    Cost: iterations passes; per block some 2 * M * R**2 bytes to the driver, which solves M systems of R.
    """
    num_treatments, num_features, rank = population.num_treatments, population.num_features, settings.rank
    draw = np.random.default_rng(settings.seed)
    factors = draw.standard_normal((num_treatments, rank)) * 0.1 / np.sqrt(rank)
    model = ExactAls(factors, np.zeros((num_features + 1, rank)), settings)
    penalty = np.diag(np.append(np.full(num_features, settings.feature_reg), 1e-9))
    for _ in range(settings.iterations):
        single = replace(
            model,
            of_treatments=model.of_treatments.astype(np.float32),
            of_features=model.of_features.astype(np.float32),
        )
        sums = population.summed(_Sides(single))
        squares, sides, whole, expected = _split(sums, num_treatments, num_features, rank)
        model = replace(
            model,
            of_treatments=_treatments(squares + whole, sides, np.diag(gram.treatments), settings.reg),
            of_features=np.linalg.solve(gram.features_and_one + penalty, expected),
        )
    return model


@dataclass(frozen=True)
class _Sides:
    """The statistic of a pass: what the normal equations of V and W are made of."""

    model: ExactAls

    def __call__(self, histories: Histories) -> np.ndarray:
        """float32, end to end, U = R (R + 1) / 2: by treatment c uu' (M, U) and (1 + c) u (M, R); uu' (U,); fu'
        (N + 1, R). Of the symmetric ones the upper triangle."""
        (num_treatments, rank), num_features = self.model.of_treatments.shape, histories.features.shape[1]
        factors = self.model.factors(histories)
        factors[np.diff(histories.had.indptr) == 0] = 0
        found = np.zeros(sum(_sizes(num_treatments, num_features, rank)), np.float32)
        squares, sides, whole, expected = _split(found, num_treatments, num_features, rank)
        upper = np.flatnonzero(np.triu(np.ones((rank, rank), bool)))
        by_treatment = self.model._confidences(histories).tocsc()
        for column, (start, stop) in enumerate(pairwise(by_treatment.indptr)):
            own, weights = factors[by_treatment.indices[start:stop]], by_treatment.data[start:stop]
            squares[column] = ((own * weights[:, None]).T @ own).ravel()[upper]
            sides[column] = (1 + weights) @ own
        whole[:] = (factors.T @ factors).ravel()[upper]
        expected[:-1], expected[-1] = histories.features.T @ factors, factors.sum(axis=0)
        return found


def _sizes(num_treatments: int, num_features: int, rank: int) -> list[int]:
    half = rank * (rank + 1) // 2
    return [num_treatments * half, num_treatments * rank, half, (num_features + 1) * rank]


def _split(sums: np.ndarray, num_treatments: int, num_features: int, rank: int) -> list[np.ndarray]:
    """The parts of what _Sides sums, as views."""
    ends = np.cumsum(_sizes(num_treatments, num_features, rank))
    squares, sides, whole, expected = np.split(sums, ends[:-1])
    return [squares.reshape(num_treatments, -1), sides.reshape(-1, rank), whole, expected.reshape(-1, rank)]


def _treatments(squares: np.ndarray, sides: np.ndarray, counts: np.ndarray, reg: float) -> np.ndarray:
    """(M, R): each treatment's own ridge regression; zero for one that nobody had."""
    rank = sides.shape[1]
    matrices = torch.empty(len(sides), rank, rank, dtype=torch.float64)
    rows, columns = np.triu_indices(rank)
    matrices[:, columns, rows] = torch.from_numpy(squares)
    matrices.diagonal(dim1=1, dim2=2).add_(torch.from_numpy(np.where(counts > 0, reg * counts, 1.0))[:, None])
    # Of a matrix the lower triangle is read.
    return torch.cholesky_solve(torch.from_numpy(sides)[:, :, None], torch.linalg.cholesky(matrices))[:, :, 0].numpy()
