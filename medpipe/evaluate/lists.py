"""Figures of ranked lists, patient by patient, in numpy: one definition for the night's table and for the benchmarks.

B patients, M treatments, K places.
"""

import numpy as np
from scipy import sparse

from medpipe.recommend.parts import rows_of
from medpipe.recommend.topk import MASKED, largest, pack, steps_of, unpack

# Columns of `measured`.
NDCG, RECALL, AVERAGE_PRECISION, JACCARD = range(4)
NOTHING = -1


def best_left(scores: np.ndarray, had: sparse.csr_matrix, num_places: int) -> np.ndarray:
    """int64 (B, K): the best treatments a patient does not have, best first, ties by column.

    Args:
        scores: float64 (B, M), between -2000 and 2000. had: (B, M).
    Returns:
        NOTHING in the places for which no treatment is left.
    """
    keys = pack(steps_of(scores), np.arange(scores.shape[1]))
    keys[rows_of(had), had.indices] = MASKED
    best = largest(keys, num_places)
    return np.where(best == MASKED, NOTHING, unpack(best)[1])


def measured(items: np.ndarray, later: sparse.csr_matrix) -> np.ndarray:
    """float64 (B, 4): NDCG, recall, average precision and Jaccard at K; NaN for a patient of whom nothing is held out.

    Args:
        items: of best_left. later: (B, M), entries where a treatment was held out.
    Source: NDCG with gain 1 / log2(place + 1) over that of the best list possible (Järvelin and Kekäläinen, TOIS
        2002); average precision over min(K, held out), as Spark's meanAveragePrecisionAtK; recall over all held out;
        Jaccard the hits over all that is listed or held out.
    """
    num_places = items.shape[1]
    wanted = np.zeros(later.shape, bool)
    wanted[rows_of(later), later.indices] = True
    hits = np.take_along_axis(wanted, np.maximum(items, 0), axis=1) & (items != NOTHING)
    gains = 1 / np.log2(np.arange(2, num_places + 2))
    num_later = np.diff(later.indptr)
    reachable = np.minimum(num_later, num_places)
    with np.errstate(invalid="ignore"):
        ndcg = hits @ gains / np.append(0, np.cumsum(gains))[reachable]
        precision = np.cumsum(hits, axis=1) / np.arange(1, num_places + 1)
        recall = hits.sum(axis=1) / num_later
        average_precision = (precision * hits).sum(axis=1) / reachable
        either = num_later + (items != NOTHING).sum(axis=1) - hits.sum(axis=1)
        found = np.stack([ndcg, recall, average_precision, hits.sum(axis=1) / np.maximum(either, 1)], axis=1)
    found[num_later == 0] = np.nan
    return found
