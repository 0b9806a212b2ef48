"""Down each patient's ranking, from the best: what is safe is taken until the list is full.

B patients, M treatments, C causes, W places walked, K the length of a list. numpy and torch only; exact, and ties fall
to the treatment that comes first in the catalogue, whatever the block.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from medpipe.errors import DataError
from medpipe.recommend.parts import rows_of
from medpipe.recommend.rules import Rules
from medpipe.recommend.topk import MASKED, STEPS, largest, pack, steps_of, unpack

# Rows whose keys are made at a time: they stay in a core's cache.
CACHED_ROWS = 128
# Columns that have one maximum.
SET_SIZE = 16
# Of keys the upper half holds the score in steps.
MAX_SCORE = 2**31 / STEPS - 1


@dataclass(frozen=True)
class Walked:
    """Entries by row, then place.

    Attributes:
        rows, columns, ranks, steps: int64 (L,) each, what is listed: patient, treatment, 1 = first, score in steps.
        blocked: int64 (Q, 4): patient, place (1 = first) that the treatment would have had, treatment, and the cause:
            a place in rules.causes, or C + the column of the better treatment in the list that it clashes with. Only
            treatments that would have stood in the list had nothing been blocked: places 1 to K. Those that the
            patient has already are neither listed nor blocked.
    """

    rows: np.ndarray
    columns: np.ndarray
    ranks: np.ndarray
    steps: np.ndarray
    blocked: np.ndarray


def walked(scores: np.ndarray, had: sparse.csr_matrix, causes: sparse.csr_matrix, rules: Rules, top_k: int) -> Walked:
    """Lists of at most top_k; shorter where fewer safe treatments are left.

    Args:
        scores: float64 (B, M). had: (B, M). causes: (B, C), a stored entry for each cause in the record.
    Raises:
        DataError: BAD_SCORE for one that is not finite, or beyond MAX_SCORE.
    Cost: a second, twice longer look at patients of whose best top_k * 1.5 too many are blocked, and so on.
    """
    # Not a number is neither.
    if scores.size and not (scores.min() > -MAX_SCORE and scores.max() < MAX_SCORE):
        raise DataError("BAD_SCORE", f"the model gave a score that is not between -{MAX_SCORE:.0f} and {MAX_SCORE:.0f}")
    left, width, parts = np.arange(len(scores)), top_k + top_k // 2 if rules.causes else top_k, []
    while len(left):
        width = min(width, scores.shape[1])
        ranking = _best(scores[left], had[left], width) if parts else _best(scores, had, width)
        is_listed, by_record = _walk(ranking, causes[left], rules, top_k)
        # Places beyond the last treatment that the patient does not have are masked.
        is_done = (is_listed.sum(axis=1) == top_k) | (ranking[:, -1] == MASKED) | (width == scores.shape[1])
        done = np.flatnonzero(is_done)
        parts.append((left[done], ranking[done], is_listed[done], by_record[done]))
        left, width = left[~is_done], width * 2
    return _entries(parts, causes, rules, top_k)


def _best(scores: np.ndarray, had: sparse.csr_matrix, width: int) -> np.ndarray:
    """int64 (B, W): the largest keys of what a patient does not have, falling; MASKED where no more is left."""
    best = np.empty((len(scores), width), np.int64)
    for start in range(0, len(scores), CACHED_ROWS):
        rows = slice(start, start + CACHED_ROWS)
        left = scores[rows].copy()
        starts = had.indptr[start : start + len(left) + 1]
        left[np.repeat(np.arange(len(left)), np.diff(starts)), had.indices[starts[0] : starts[-1]]] = -np.inf
        best[rows] = _largest(left, width)
    return best


def _largest(scores: np.ndarray, width: int) -> np.ndarray:
    """int64 (B, W): keys, falling; MASKED for -inf. Only scores that may be among the largest are made keys."""
    num_patients, num_treatments = scores.shape
    # W columns have each at least the W-th largest of the maxima over disjoint sets of columns.
    num_sets = max(num_treatments // SET_SIZE, min(width * 4, num_treatments))
    whole = num_treatments // num_sets * num_sets
    maxima = scores[:, :whole].reshape(num_patients, -1, num_sets).max(axis=1)
    least = np.partition(maxima, num_sets - width, axis=1)[:, num_sets - width]
    # Rounded, what stands less than a step below it may be its equal.
    floors = np.maximum(least - 2 / STEPS, -MAX_SCORE)
    rows, columns = np.divmod(np.flatnonzero(scores >= floors[:, None]), num_treatments)
    places, counts = _within(rows, num_patients)
    keys = np.full((num_patients, max(counts.max(initial=0), width)), MASKED)
    keys[rows, places] = pack(steps_of(scores[rows, columns]), columns)
    return largest(keys, width)


def _within(rows: np.ndarray, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """(the place of each entry within its row, how many each row has); rows rise."""
    counts = np.bincount(rows, minlength=num_rows)
    return np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows], counts


def _walk(ranking: np.ndarray, causes: sparse.csr_matrix, rules: Rules, top_k: int) -> tuple[np.ndarray, np.ndarray]:
    """Of keys (B, W), falling: bool (B, W) is_listed, and whether something in the record blocks."""
    columns = unpack(ranking)[1]
    columns[ranking == MASKED] = 0
    by_record = np.zeros(ranking.shape, bool)
    has_any = np.diff(causes.indptr) > 0
    if has_any.any():
        rows = rows_of(causes)
        found = _among(rules.blocks, causes.indices[:, None], columns[rows])  # (E, W)
        by_record[has_any] = np.logical_or.reduceat(found, causes.indptr[:-1][has_any], axis=0)
    is_open = (ranking != MASKED) & ~by_record
    if not rules.together.any():
        return is_open & (np.cumsum(is_open, axis=1) <= top_k), by_record
    is_listed = np.zeros(ranking.shape, bool)
    listed = np.full((len(ranking), top_k), len(rules.together) - 1)
    num_listed = np.zeros(len(ranking), np.int64)
    for place in range(ranking.shape[1]):
        column = columns[:, place]
        clashes = _among(rules.together, column[:, None], listed).any(axis=1)
        taken = np.flatnonzero(is_open[:, place] & ~clashes & (num_listed < top_k))
        is_listed[taken, place] = True
        listed[taken, num_listed[taken]] = column[taken]
        num_listed[taken] += 1
    return is_listed, by_record


def _entries(parts: list[tuple[np.ndarray, ...]], causes: sparse.csr_matrix, rules: Rules, top_k: int) -> Walked:
    """Of (patients, ranking, is_listed, by_record) of every stretch of patients."""
    listed, blocked = [np.zeros((0, 4), np.int64)], [np.zeros((0, 4), np.int64)]
    for patients, ranking, is_listed, by_record in parts:
        steps, columns = unpack(ranking)
        rows, places = np.nonzero(is_listed)
        ranks = np.cumsum(is_listed, axis=1)[rows, places]
        listed.append(np.stack([patients[rows], ranks, columns[rows, places], steps[rows, places]], axis=1))
        first = (slice(None), slice(top_k))
        is_blocked = (ranking != MASKED)[first] & ~is_listed[first]
        own, places, numbers = _record_causes(columns[first], is_blocked & by_record[first], causes[patients], rules)
        blocked.append(np.stack([patients[own], places + 1, columns[own, places], numbers], axis=1))
        own, places, better = _list_causes(columns[first], is_listed[first], is_blocked & ~by_record[first], rules)
        numbers = len(rules.causes) + columns[own, better]
        blocked.append(np.stack([patients[own], places + 1, columns[own, places], numbers], axis=1))
    # Of each patient the ranks rise already.
    told, why = np.concatenate(listed), np.concatenate(blocked)
    rows, ranks, columns, steps = told[np.argsort(told[:, 0], kind="stable")].T
    return Walked(rows, columns, ranks, steps, why[np.lexsort(why.T[::-1])])


def _record_causes(
    columns: np.ndarray, is_blocked: np.ndarray, causes: sparse.csr_matrix, rules: Rules
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row, place, cause) of everything in the record that blocks a treatment; columns and is_blocked (B, K)."""
    rows = rows_of(causes)
    entries, places = np.nonzero(is_blocked[rows])
    blocks = rules.blocks[causes.indices[entries], columns[rows[entries], places]]
    return rows[entries][blocks], places[blocks], causes.indices[entries][blocks].astype(np.int64)


def _list_causes(
    columns: np.ndarray, is_listed: np.ndarray, is_blocked: np.ndarray, rules: Rules
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row, place, place of the better one) of every treatment that clashes with a better one of the same list."""
    rows, places = np.nonzero(is_blocked)
    entries, better = np.nonzero(is_listed[rows] & (np.arange(columns.shape[1]) < places[:, None]))
    clash = rules.together[columns[rows[entries], places[entries]], columns[rows[entries], better]]
    return rows[entries][clash], places[entries][clash], better[clash]


def _among(table: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """table[rows, columns], broadcast; counted by hand numpy finds them three times as fast."""
    return table.take(rows.astype(np.int64) * table.shape[1] + columns)
