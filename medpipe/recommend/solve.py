"""One ridge problem for each patient, all at once: exact, and cheap where a history is shorter than the factors.

B patients, M treatments, R factors, K right sides, L the longest history of a group.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

# Bounds a group's memory: padded entries times their longest row.
GROUP_CELLS = 8_000_000
GROUP_ROWS = 1024


@dataclass(frozen=True)
class Ridges:
    """The matrices A_b = G + sum over b's treatments of c_bj v_j v_j' + penalty_b I, with G = V'V.

    Attributes:
        factors: V, float32 or float64 (M, R); all sums are made in its type.
        values, vectors: eigenvalues (R,) and eigenvectors (R, R) of G.
    """

    factors: np.ndarray
    values: np.ndarray
    vectors: np.ndarray

    def solved(self, confidences: sparse.csr_matrix, penalties: np.ndarray, right: np.ndarray) -> np.ndarray:
        """(B, R, K): A_b^-1 right_b.

        Args:
            confidences: (B, M), c > 0 where the patient had the treatment.
            penalties: (B,), > 0 where G is singular.
            right: (B, R, K).
        Cost: per patient L**2 * R for L < R treatments (Woodbury in the eigenbasis of G), else L * R**2 + R**3.
        Source: Hu, Koren and Volinsky, ICDM 2008, section 4; Woodbury's identity.
        """
        kind = self.factors.dtype
        turned = torch.from_numpy(np.ascontiguousarray(self.factors @ self.vectors))
        vectors, values = torch.from_numpy(self.vectors), torch.from_numpy(self.values)
        found = np.empty(right.shape, kind)
        for rows in groups(np.diff(confidences.indptr), self.factors.shape[1]):
            columns, weights = padded(confidences, rows)
            diagonal = values + torch.from_numpy(penalties[rows].astype(kind))[:, None]  # (B, R)
            given = vectors.T @ torch.from_numpy(right[rows].astype(kind, copy=False))
            # A padded entry weighs nothing.
            scaled = turned[torch.from_numpy(columns)] * torch.from_numpy(np.sqrt(weights).astype(kind))[:, :, None]
            found[rows] = (vectors @ _solved(scaled, diagonal, given)).numpy()
        return found


def ridges(factors: np.ndarray) -> Ridges:
    """Of the treatments' factors (M, R)."""
    product = factors.T.astype(np.float64) @ factors.astype(np.float64)
    values, vectors = np.linalg.eigh(product)
    return Ridges(factors, np.maximum(values, 0).astype(factors.dtype), vectors.astype(factors.dtype))


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
    """(columns int64, values), both (B, L), of the rows' entries; column 0 and value 0 beyond a row's end."""
    starts, lengths = matrix.indptr[rows], np.diff(matrix.indptr)[rows]
    place = np.arange(int(lengths.max(initial=0)))
    is_inside = place < lengths[:, None]
    entries = np.where(is_inside, starts[:, None] + place, 0)
    if not matrix.nnz:
        return np.zeros(entries.shape, np.int64), np.zeros(entries.shape)
    columns = np.where(is_inside, matrix.indices[entries], 0).astype(np.int64)
    return columns, np.where(is_inside, matrix.data[entries], 0)


def _solved(scaled: Tensor, diagonal: Tensor, right: Tensor) -> Tensor:
    """(B, R, K): (D + S'S)^-1 right from S (B, L, R), D (B, R) and right (B, R, K)."""
    if scaled.shape[1] >= scaled.shape[2]:
        whole = scaled.mT @ scaled + torch.diag_embed(diagonal)
        return torch.cholesky_solve(right, torch.linalg.cholesky(whole))
    shrunk = scaled / diagonal[:, None, :]
    inner = shrunk @ scaled.mT + torch.eye(scaled.shape[1], dtype=scaled.dtype)
    first = right / diagonal[:, :, None]
    return first - shrunk.mT @ torch.cholesky_solve(scaled @ first, torch.linalg.cholesky(inner))
