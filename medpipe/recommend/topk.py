"""Top-k whose ties fall the same way on every machine and for every block size; numpy only."""

import numpy as np

# Scores count in steps of 1e-6: far above the rounding of a product in float64, so a step is the same everywhere.
STEPS = 1_000_000
# Of an int64 the lower half holds the column, the upper the score; no two columns of a row share a key.
COLUMN_BITS = 32
LAST_COLUMN = (1 << COLUMN_BITS) - 1
MASKED = np.iinfo(np.int64).min


def pack(steps: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """int64 keys that sort by score, and for equal scores by falling column.

    Args:
        steps: int64, score times STEPS, between -2**31 and 2**31 - 1. columns: int64, 0 to 2**32 - 1; broadcast.
    """
    return (steps << COLUMN_BITS) | (LAST_COLUMN - columns)


def unpack(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(steps, columns) of keys, both int64."""
    return keys >> COLUMN_BITS, LAST_COLUMN - (keys & LAST_COLUMN)


def steps_of(scores: np.ndarray) -> np.ndarray:
    """int64: float64 scores in steps, halves to even."""
    return np.rint(scores * STEPS).astype(np.int64)


def scores_of(steps: np.ndarray) -> np.ndarray:
    """float64: the decimal number nearest to each count of steps."""
    return steps / STEPS


def largest(keys: np.ndarray, k: int) -> np.ndarray:
    """int64 (B, min(k, C)): the largest keys of each row of (B, C), falling."""
    k = min(k, keys.shape[1])
    best = np.partition(keys, keys.shape[1] - k, axis=1)[:, keys.shape[1] - k :] if k else keys[:, :0]
    return np.sort(best, axis=1)[:, ::-1]
