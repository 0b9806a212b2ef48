"""How many patients have what together: all that the closed forms of this room learn from.

M treatments, N features.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from medpipe.errors import DataError
from medpipe.recommend.histories import Histories
from medpipe.recommend.population import Population

# Squared in 4 bytes from each block, and in 8 on the driver: half a gigabyte.
MAX_WIDTH = 8192


@dataclass(frozen=True)
class Gram:
    """Counts of patients of whom at least one treatment is known.

    Attributes:
        counts: float64 (M + N + 1, M + N + 1), whole numbers: patients who have both; treatments, features, and last
            a column that everybody has.
        num_treatments: M.
    """

    counts: np.ndarray
    num_treatments: int

    @property
    def treatments(self) -> np.ndarray:
        """(M, M)."""
        return self.counts[: self.num_treatments, : self.num_treatments]

    @property
    def features_and_one(self) -> np.ndarray:
        """(N + 1, N + 1)."""
        return self.counts[self.num_treatments :, self.num_treatments :]

    @property
    def treatments_by_feature(self) -> np.ndarray:
        """(N, M)."""
        return self.counts[self.num_treatments : -1, : self.num_treatments]

    @property
    def num_patients(self) -> float:
        return self.counts[-1, -1]


def gram(population: Population) -> Gram:
    """One pass over the patients; the number of blocks does not show in the result.

    Raises:
        DataError: CATALOGUE_TOO_LARGE.
    Cost: per patient the square of what they have; 4 * (M + N)**2 bytes per block to the driver.
    """
    width = population.num_treatments + population.num_features + 1
    if width > MAX_WIDTH:
        raise DataError(
            "CATALOGUE_TOO_LARGE",
            f"{width - 1} treatments and features; their counts are held whole for at most {MAX_WIDTH - 1}: lower "
            "recommend.max_treatments or recommend.max_features",
        )
    return Gram(population.summed(_counts).reshape(width, width), population.num_treatments)


def _counts(histories: Histories) -> np.ndarray:
    """float32, (M + N + 1)**2."""
    known = np.flatnonzero(np.diff(histories.had.indptr))
    had = histories.had[known]
    had.data[:] = 1
    rows = sparse.hstack([had, histories.features[known], np.ones((len(known), 1), np.float32)], format="csr")
    return (rows.T @ rows).toarray().ravel()
