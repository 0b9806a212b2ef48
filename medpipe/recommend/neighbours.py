"""What patients alike had: the cosine of patients, of the nearest only.

P patients who are asked, B patients who ask, M treatments, N features.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy import sparse

from medpipe.recommend.histories import Histories, of_batch, once
from medpipe.recommend.parts import Parts, Scored, apart, rows_of

ASKED_ROWS = 512
# Cosines nearer than this are tied: their last bits depend on the order of a sum.
ROUNDING = 1e-9


@dataclass(frozen=True)
class NeighbourSettings:
    """Whom a patient resembles.

    Attributes:
        num_neighbours: the most alike; those tied with the last all count.
        power: of the cosine, as a neighbour's weight: 1 the plain formula, more listens to the nearest.
        feature_weight: how loud a feature is beside a treatment; 0 leaves features out.
        max_patients: patients who are kept to be asked, chosen by a hash of their id: the model holds their histories.
    """

    num_neighbours: int = 100
    power: float = 2.0
    feature_weight: float = 0.0
    max_patients: int = 20_000


@dataclass(frozen=True)
class Neighbours:
    """Attributes:
    asked: the patients who may be neighbours; nobody is their own.
    """

    asked: Histories
    settings: NeighbourSettings

    def scores(self, histories: Histories) -> np.ndarray:
        """float64 (B, M): the sum of similarity ** power over the neighbours who had it.

        Cost: B * P * (treatments of a patient).
        """
        had = once(self.asked.had)
        found = np.empty((len(histories.patient_ids), had.shape[1]))
        for start, weights in self._weights(histories):
            found[start : start + weights.shape[0]] = (weights @ had).toarray()
        return found

    def parts(self, histories: Histories, items: np.ndarray) -> Parts:
        """A cosine is a sum over what both have, so each shared treatment and feature carries its share of it."""
        power, num_treatments = self.settings.power, self.asked.had.shape[1]
        mine, theirs = self._unit(histories), self._unit(self.asked)
        had = once(self.asked.had).tocsc()
        of_all = np.zeros((mine.nnz, items.shape[1]))
        for start, weights in self._weights(histories):
            for place in range(weights.shape[0]):
                patient = start + place
                near = weights.indices[weights.indptr[place] : weights.indptr[place + 1]]
                similar = weights.data[weights.indptr[place] : weights.indptr[place + 1]]
                own = slice(mine.indptr[patient], mine.indptr[patient + 1])
                # similarity ** power = similarity * similarity ** (power - 1), and the first is the sum of the shares.
                shared = theirs[near][:, mine.indices[own]].multiply(mine.data[own]).toarray()
                shared *= (similar ** ((power - 1) / power))[:, None]
                of_all[own] = shared.T @ had[:, items[patient]][near].toarray()
        is_treatment = mine.indices < num_treatments
        return Parts(np.zeros(items.shape), of_all[is_treatment], of_all[~is_treatment])

    def scored(self, histories: Histories) -> Scored:
        """Both."""
        return apart(self, histories)

    def _weights(self, histories: Histories) -> Iterator[tuple[int, sparse.csr_matrix]]:
        """(first row, (b, P) similarity ** power of the nearest, 0 for all others)."""
        mine, theirs = self._unit(histories), self._unit(self.asked).T.tocsr()
        own = pc.index_in(histories.patient_ids, value_set=self.asked.patient_ids).fill_null(-1).to_numpy()
        num_kept = min(self.settings.num_neighbours, theirs.shape[1])
        for start in range(0, mine.shape[0], ASKED_ROWS):
            similar = (mine[start : start + ASKED_ROWS] @ theirs).toarray()
            itself = own[start : start + ASKED_ROWS]
            similar[np.flatnonzero(itself >= 0), itself[itself >= 0]] = 0
            if num_kept:
                least = np.partition(similar, -num_kept, axis=1)[:, -num_kept]
                similar[similar < least[:, None] - ROUNDING] = 0
            yield start, sparse.csr_matrix(similar**self.settings.power)

    def _unit(self, histories: Histories) -> sparse.csr_matrix:
        """(B, M + N): ratings and features, each row of length 1; treatments first, all entries kept."""
        features = histories.features * np.float64(self.settings.feature_weight)
        rows = sparse.hstack([histories.had.astype(np.float64), features], format="csr")
        norms = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
        # Entry by entry: a product of matrices might drop zeros, and the parts are told entry by entry.
        rows.data /= np.maximum(norms, 1e-12)[rows_of(rows)]
        return rows


def neighbours(rows: DataFrame, num_treatments: int, num_features: int, settings: NeighbourSettings) -> Neighbours:
    """Keeps the histories of patients of whom a treatment is known.

    Args:
        rows: HISTORIES.
    """
    known = rows.where(F.size("treatments") > 0)
    kept = known.orderBy(F.xxhash64("patient_id"), "patient_id").limit(settings.max_patients).toArrow()
    batch = pa.RecordBatch.from_arrays(
        [kept.column(name).combine_chunks() for name in kept.column_names], names=kept.column_names
    )
    return Neighbours(of_batch(batch, num_treatments, num_features), settings)
