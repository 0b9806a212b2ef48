"""Implicit ALS with each side solved exactly, one pass over the patients an iteration, and a prior from features.

M treatments, N features, R factors, B patients.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from scipy import sparse

from medpipe.recommend.gram import Gram
from medpipe.recommend.histories import Histories
from medpipe.recommend.parts import Parts, rows_of
from medpipe.recommend.population import Population
from medpipe.recommend.settings import ExactAlsSettings
from medpipe.recommend.solve import ridges


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
        return self.factors(histories) @ self.of_treatments.T

    def factors(self, histories: Histories) -> np.ndarray:
        """(B, R), in the type of V. Without any treatment known: what the features let expect, W'f."""
        expected = self.expected(histories)
        right = self._confidences(histories, 1.0) @ self.of_treatments
        right = right + self._prior_weights(histories)[:, None] * expected
        return self._solved(histories, right[:, :, None])[:, :, 0]

    def expected(self, histories: Histories) -> np.ndarray:
        """(B, R): W'f."""
        return histories.features.astype(self.of_features.dtype) @ self.of_features[:-1] + self.of_features[-1]

    def parts(self, histories: Histories, items: np.ndarray) -> Parts:
        """v_i'x is the sum of (1 + c_j) v_j'h over treatments and kappa w'h over features, with h = A^-1 v_i."""
        answers = self._solved(histories, self.of_treatments[items].swapaxes(1, 2))  # (B, R, K)
        weights = self._prior_weights(histories)[:, None]
        had, features = histories.had, histories.features
        of_treatments = _products(self.of_treatments[had.indices], answers, had.indptr)
        of_features = _products(self.of_features[features.indices], answers, features.indptr)
        return Parts(
            base=weights * np.einsum("r,brk->bk", self.of_features[-1], answers),
            of_treatments=of_treatments * self._confidences(histories, 1.0).data[:, None],
            of_features=of_features * weights[rows_of(features)],
        )

    def _solved(self, histories: Histories, right: np.ndarray) -> np.ndarray:
        """(B, R, K): A^-1 right; for a patient without a treatment A is 1, not G: nothing known is not all refused."""
        is_known = np.diff(histories.had.indptr) > 0
        found = right.copy()
        counts = np.diff(histories.had.indptr)[is_known]
        penalties = self.settings.reg * counts + self.settings.kappa
        confidences = self._confidences(histories, 0.0)[is_known]
        found[is_known] = ridges(self.of_treatments).solved(confidences, penalties, right[is_known])
        return found

    def _confidences(self, histories: Histories, more: float) -> sparse.csr_matrix:
        """(B, M): alpha * rating + more where there is a rating."""
        had = histories.had
        values = (self.settings.alpha * had.data + more).astype(self.of_treatments.dtype)
        return sparse.csr_matrix((values, had.indices, had.indptr), shape=had.shape)

    def _prior_weights(self, histories: Histories) -> np.ndarray:
        """(B,): kappa, and 1 where A is 1."""
        return np.where(np.diff(histories.had.indptr) > 0, self.settings.kappa, 1.0).astype(self.of_treatments.dtype)


def exact_als(population: Population, gram: Gram, settings: ExactAlsSettings) -> ExactAls:
    """Fits V and W; patients of whom no treatment is known teach it nothing.

    Each pass solves every patient with the V and W of the pass before, in float32, and sums what both need next: V
    solves its normal equations, W is the ridge regression of the patients' factors on their features.

    Args:
        gram: of the same population.
    Cost: iterations passes; per block 4 * M * R**2 bytes to the driver, which solves M systems of R.
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
        """float32, end to end: by treatment c uu' (M, R, R) and (1 + c) u (M, R); uu' (R, R); fu' (N + 1, R)."""
        known = np.flatnonzero(np.diff(histories.had.indptr))
        histories = Histories(histories.patient_ids.take(known), histories.had[known], histories.features[known])
        factors = self.model.factors(histories)
        by_treatment = self.model._confidences(histories, 0.0).tocsc()
        squares = np.zeros((by_treatment.shape[1], factors.shape[1], factors.shape[1]), np.float32)
        for column, (start, stop) in enumerate(pairwise(by_treatment.indptr)):
            own = factors[by_treatment.indices[start:stop]]
            squares[column] = (own * by_treatment.data[start:stop, None]).T @ own
        sides = self.model._confidences(histories, 1.0).T @ factors
        expected = np.vstack([histories.features.T @ factors, factors.sum(axis=0)])
        parts = (squares, sides, factors.T @ factors, expected)
        return np.concatenate([part.ravel() for part in parts]).astype(np.float32)


def _split(sums: np.ndarray, num_treatments: int, num_features: int, rank: int) -> list[np.ndarray]:
    """The parts of what _Sides sums."""
    shapes = [(num_treatments, rank, rank), (num_treatments, rank), (rank, rank), (num_features + 1, rank)]
    ends = np.cumsum([np.prod(shape) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(sums, ends[:-1]), shapes, strict=True)]


def _treatments(squares: np.ndarray, sides: np.ndarray, counts: np.ndarray, reg: float) -> np.ndarray:
    """(M, R): each treatment's own ridge regression; zero for one that nobody had."""
    rank = sides.shape[1]
    penalties = np.where(counts > 0, reg * counts, 1.0)
    matrices = torch.from_numpy(squares + penalties[:, None, None] * np.eye(rank))
    return torch.cholesky_solve(torch.from_numpy(sides)[:, :, None], torch.linalg.cholesky(matrices))[:, :, 0].numpy()


def _products(vectors: np.ndarray, answers: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(E, K): each entry's vector (E, R) times its patient's answers (B, R, K); starts (B + 1,) of the entries."""
    found = np.empty((len(vectors), answers.shape[2]))
    for patient, (start, stop) in enumerate(pairwise(starts)):
        found[start:stop] = vectors[start:stop] @ answers[patient]
    return found
