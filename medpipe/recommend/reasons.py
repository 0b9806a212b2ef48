"""The few parts of a score that weighed most, and all others as one number: together they are the score.

B patients, K treatments of each list, R reasons at most, E and G stored entries of Histories.had and .features.
"""

from dataclasses import dataclass

import numpy as np

from medpipe.recommend.histories import Histories
from medpipe.recommend.parts import Parts, rows_of
from medpipe.recommend.topk import MASKED, largest, pack, steps_of, unpack

# A stored contribution is rounded to so many digits, so that the bits do not depend on the batch.
DIGITS = 9


@dataclass(frozen=True)
class Reasons:
    """Reasons of entry (b, k), gravest first, ties by entry; L in all, in the order of b, then k.

    Attributes:
        counts: int64 (B, K), how many reasons each has; fewer than R where fewer parts are half a step or more.
        is_feature: bool (L,). columns: int64 (L,), of the treatment or the feature. contributions: float64 (L,).
        rest: float64 (B, K), the base and the parts that are not among the reasons.
    """

    counts: np.ndarray
    is_feature: np.ndarray
    columns: np.ndarray
    contributions: np.ndarray
    rest: np.ndarray


def reasons_of(parts: Parts, histories: Histories, num_reasons: int) -> Reasons:
    """The num_reasons parts of largest absolute value.

    Args:
        parts: of K treatments for each of B patients.
    Cost: memory of B x K x (the longest history and its features).
    """
    rows = np.concatenate([rows_of(histories.had), rows_of(histories.features)])
    columns = np.concatenate([histories.had.indices, histories.features.indices])
    order = np.argsort(rows, kind="stable")
    rows = rows[order]
    counts = np.bincount(rows, minlength=len(parts.base))
    starts = np.cumsum(counts) - counts
    values = np.concatenate([parts.of_treatments, parts.of_features])[order]  # (E + G, K)
    positions = np.arange(len(rows)) - starts[rows]
    keys = np.full((*parts.base.shape, counts.max(initial=0)), MASKED)  # (B, K, longest)
    steps = steps_of(np.abs(values))
    keys[rows, :, positions] = np.where(steps > 0, pack(steps, positions[:, None]), MASKED)
    best = largest(keys.reshape(parts.base.size, keys.shape[2]), num_reasons).reshape(*parts.base.shape, -1)
    patients, lists, places = np.nonzero(best != MASKED)
    entries = starts[patients] + unpack(best[patients, lists, places])[1]
    contributions = np.round(values[entries, lists], DIGITS)
    told = np.zeros(parts.base.shape)
    np.add.at(told, (patients, lists), values[entries, lists])
    return Reasons(
        counts=(best != MASKED).sum(axis=2),
        is_feature=order[entries] >= histories.had.nnz,
        columns=columns[order[entries]].astype(np.int64),
        contributions=contributions,
        rest=np.round(parts.totals(histories) - told, DIGITS),
    )
