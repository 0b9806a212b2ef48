"""One ridge problem for each patient, all at once: exact, and cheap where a history is shorter than the factors.

B patients of a group, M treatments, R factors, K right sides, L the longest history of a group.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.nn.functional import embedding

# Bounds a group's memory: padded entries times their longest row; a few megabytes, which stay near a core.
GROUP_CELLS = 500_000
GROUP_ROWS = 256


@dataclass(frozen=True)
class Group:
    """Patients with histories of like length; all vectors stand in the eigenbasis of G.

    Attributes:
        rows: int64 (B,), which patients. entries: int64 (B, L), which stored entries are theirs.
        is_inside: bool (B, L), False beyond the end of a history, where entries and vectors are anything.
        vectors: (B, L, R), of the treatments had. weights: (B, L), c, 0 beyond the end.
        diagonal: (B, R), of G + penalty I.
    """

    rows: np.ndarray
    entries: np.ndarray
    is_inside: np.ndarray
    vectors: Tensor
    weights: Tensor
    diagonal: Tensor

    def solved(self, right: Tensor) -> Tensor:
        """(B, K, R): A_b^-1 right_bk.

        Args:
            right: (B, K, R); vectors lie in rows, as torch multiplies them fastest.
        Cost: per patient L**2 * R for L < R treatments (Woodbury), else L * R**2 + R**3.
        Source: Hu, Koren and Volinsky, ICDM 2008, section 4; Woodbury's identity.
        """
        if self.vectors.shape[1] >= self.vectors.shape[2]:
            return torch.cholesky_solve(right.mT, self._factored).mT
        shrunk = right * self._shrink
        answers = torch.cholesky_solve(self._scaled @ shrunk.mT, self._factored).mT
        return (shrunk - answers @ self._scaled) * self._shrink

    # Kept: what is asked of a group first is its factors, and then what they are made of.

    @cached_property
    def _shrink(self) -> Tensor:
        """(B, 1, R): diagonal ** -0.5."""
        return self.diagonal.rsqrt()[:, None, :]

    @cached_property
    def _scaled(self) -> Tensor:
        """S (B, L, R), with A = diagonal ** 0.5 (I + S'S) diagonal ** 0.5."""
        return (self.vectors * self.weights.sqrt()[:, :, None]).mul_(self._shrink)

    @cached_property
    def _factored(self) -> Tensor:
        """Cholesky factors of I + SS' (B, L, L), or of A (B, R, R) where that is smaller."""
        if self.vectors.shape[1] >= self.vectors.shape[2]:
            whole = (self.vectors * self.weights[:, :, None]).mT @ self.vectors
            whole.diagonal(dim1=1, dim2=2).add_(self.diagonal)
            return torch.linalg.cholesky(whole)
        inner = self._scaled @ self._scaled.mT
        inner.diagonal(dim1=1, dim2=2).add_(1)
        return torch.linalg.cholesky(inner)


@dataclass(frozen=True)
class Ridges:
    """The matrices A_b = G + sum over b's treatments of c_bj v_j v_j' + penalty_b I, with G = V'V.

    Attributes:
        turned: float32 or float64 (M, R), V in the eigenbasis of G; all sums are made in its type.
        values, vectors: eigenvalues (R,) and eigenvectors (R, R) of G; x @ vectors stands in that basis.
    """

    turned: Tensor
    values: Tensor
    vectors: Tensor

    def groups(self, confidences: sparse.csr_matrix, penalties: np.ndarray) -> Iterator[Group]:
        """Each patient in one group.

        Args:
            confidences: (B, M), c >= 0 where the patient had the treatment.
            penalties: (B,), > 0 where G is singular. Without any treatment A is 1, not G + penalty: that nothing is
                known does not say that all was refused.
        """
        lengths = np.diff(confidences.indptr)
        for rows in groups(lengths, self.turned.shape[1]):
            entries, is_inside = padded(confidences, rows)
            weights = np.where(is_inside, confidences.data[entries], 0)
            diagonal = self.values + torch.from_numpy(penalties[rows])[:, None]
            diagonal[torch.from_numpy(lengths[rows] == 0)] = 1
            yield Group(
                rows=rows,
                entries=entries,
                is_inside=is_inside,
                vectors=embedding(torch.from_numpy(confidences.indices[entries]), self.turned),
                weights=torch.from_numpy(weights).to(self.turned.dtype),
                diagonal=diagonal.to(self.turned.dtype),
            )


def ridges(factors: np.ndarray) -> Ridges:
    """Of the treatments' factors (M, R)."""
    values, vectors = np.linalg.eigh(factors.T.astype(np.float64) @ factors.astype(np.float64))
    vectors = vectors.astype(factors.dtype)
    turned = np.ascontiguousarray(factors @ vectors)
    return Ridges(torch.from_numpy(turned), torch.from_numpy(np.maximum(values, 0)), torch.from_numpy(vectors))


def groups(lengths: np.ndarray, rank: int) -> list[np.ndarray]:
    """Row numbers, those of like length together, each group small enough for memory."""
    order = np.argsort(lengths, kind="stable")
    found, start = [], 0
    while start < len(order):
        # The longest of the group is its last: try the most rows, and cut down to what that length allows.
        stop = min(start + GROUP_ROWS, len(order))
        longest = max(int(lengths[order[stop - 1]]), 1)
        stop = min(stop, start + max(1, GROUP_CELLS // (longest * (longest + rank))))
        found.append(order[start:stop])
        start = stop
    return found


def padded(matrix: sparse.csr_matrix, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(places of the rows' stored entries, whether there is one), both (B, L): beyond a row's end some other entry."""
    starts, lengths = matrix.indptr[rows], np.diff(matrix.indptr)[rows]
    place = np.arange(int(lengths.max(initial=0)))
    return np.minimum(starts[:, None] + place, matrix.nnz - 1), place < lengths[:, None]
