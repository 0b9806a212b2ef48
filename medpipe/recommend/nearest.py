"""Everybody's vector past one block of patients: a fast product in float32 names candidates, float64 decides.

B own patients of a block, C others of a slice, M treatments, K neighbours, P candidate pairs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from medpipe.recommend.topk import STEPS, largest, pack, scores_of, steps_of, unpack

NEAREST = "patient_id string, rank int, other_patient_id string, similarity double"
_ARROW = pa.schema(
    [("patient_id", pa.string()), ("rank", pa.int32()), ("other_patient_id", pa.string()), ("similarity", pa.float64())]
)
OWN_ROWS = 1024
OTHER_ROWS = 2048
# Pairs decided at a time: bounds the memory where many candidates tie.
EXACT_CELLS = 1_000_000
FLOAT32_ROUNDING = 2.0**-24


@dataclass(frozen=True)
class Vectors:
    """Sparse rows of unit length, and whose they are.

    Attributes:
        offsets: int64 (N + 1,). columns: int32 (E,), rising within a row. weights: float64 (E,).
    """

    patient_ids: pa.Array
    offsets: np.ndarray
    columns: np.ndarray
    weights: np.ndarray

    @property
    def num_rows(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int64 (N,): treatments of each row."""
        return np.diff(self.offsets)

    def dense(self, start: int, stop: int, num_columns: int) -> np.ndarray:
        """float64 (stop - start, num_columns)."""
        found = np.zeros((stop - start, num_columns))
        rows = np.repeat(np.arange(stop - start), self.lengths[start:stop])
        inside = slice(self.offsets[start], self.offsets[stop])
        found[rows, self.columns[inside]] = self.weights[inside]
        return found


@dataclass(frozen=True)
class Nearest:
    """For `mapInArrow` over rows sorted by block, is_other and patient_id; see similarity.nearest_patients."""

    num_treatments: int
    num_neighbours: int

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """NEAREST rows of every block in the stream."""
        torch.set_num_threads(1)  # Spark has given this task one core
        for _, parts in groupby(_runs(batches), key=lambda part: part[0]):
            yield from self._block((is_other, part) for _, is_other, part in parts)

    def _block(self, parts: Iterator[tuple[bool, pa.RecordBatch]]) -> Iterator[pa.RecordBatch]:
        """The block's own patients come first (is_other false), then everybody."""
        own: list[pa.RecordBatch] = []
        other_ids: list[pa.Array] = []
        num_others = 0
        for is_other, part in parts:
            if not is_other:
                own.append(part)
                continue
            if num_others == 0:
                mine = _vectors(own)
                keys = np.zeros((mine.num_rows, self.num_neighbours), np.int64)
            others = _vectors([part])
            keys = self._compare(mine, keys, others, num_others)
            num_others += others.num_rows
            other_ids.append(others.patient_ids)
        if num_others:
            yield from _rows(mine.patient_ids, keys, pa.chunked_array(other_ids))

    def _compare(self, mine: Vectors, keys: np.ndarray, others: Vectors, num_before: int) -> np.ndarray:
        """int64 (N, K): keys, falling, with the best of the others in them; a key 0 is a free place.

        Others count from num_before and rise from call to call: of equals an earlier one stays.
        """
        keys = keys.copy()
        own_row = pc.index_in(others.patient_ids, value_set=mine.patient_ids).fill_null(-1).to_numpy()
        for start in range(0, others.num_rows, OTHER_ROWS):
            stop = min(start + OTHER_ROWS, others.num_rows)
            right = others.dense(start, stop, self.num_treatments)  # (C, M)
            fast_right = torch.from_numpy(right.astype(np.float32)).T
            for low in range(0, mine.num_rows, OWN_ROWS):
                high = min(low + OWN_ROWS, mine.num_rows)
                left = mine.dense(low, high, self.num_treatments)  # (B, M)
                fast = torch.from_numpy(left.astype(np.float32)) @ fast_right  # (B, C)
                is_here = (own_row[start:stop] >= low) & (own_row[start:stop] < high)
                fast.numpy()[own_row[start:stop][is_here] - low, np.flatnonzero(is_here)] = -1  # nobody with themselves
                bars = torch.from_numpy(_bars(keys[low:high], fast, mine.lengths[low:high]))
                rows, columns = (found.numpy() for found in (fast >= bars[:, None]).nonzero(as_tuple=True))
                steps = _exact_steps(left, right, rows, columns)
                found = np.where(steps > 0, pack(steps, num_before + start + columns), 0)
                keys[low:high] = _merged(keys[low:high], rows, found)
        return keys


def _bars(keys: np.ndarray, fast: torch.Tensor, lengths: np.ndarray) -> np.ndarray:
    """float32 (B,): no pair whose product in float32 lies below its row's bar can enter the row's keys.

    Products are sums of at most `lengths` positive terms, so float32 is wrong by a share of the sum at most.
    """
    error = (lengths + 5) * FLOAT32_ROUNDING
    bars = (unpack(keys[:, -1])[0] + 0.5) / STEPS * (1 - error)
    num_neighbours = keys.shape[1]
    is_free = keys[:, -1] == 0
    if is_free.any() and fast.shape[1] > num_neighbours:
        # So many of this slice reach this value that nothing lower by a rounding step can stay.
        kth = fast.topk(num_neighbours, sorted=False).values.amin(1).numpy().astype(np.float64)
        bars = np.where(is_free, np.maximum(bars, kth * (1 - 2 * error) - 1.5 / STEPS), bars)
    return np.nextafter(bars.astype(np.float32), np.float32(0))


def _exact_steps(left: np.ndarray, right: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """int64 (P,): similarity of each pair in steps. Each sum runs over the row alone, so company changes no bit."""
    steps = np.empty(len(rows), np.int64)
    num_pairs = max(1, EXACT_CELLS // left.shape[1])
    for start in range(0, len(rows), num_pairs):
        part = slice(start, start + num_pairs)
        steps[part] = steps_of((left[rows[part]] * right[columns[part]]).sum(axis=1))
    return steps


def _merged(keys: np.ndarray, rows: np.ndarray, found: np.ndarray) -> np.ndarray:
    """int64 (B, K): the largest of keys (B, K) and of `found` (P,), whose rows (P,) rise."""
    if len(rows) == 0:
        return keys
    counts = np.bincount(rows, minlength=len(keys))
    position = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    more = np.zeros((len(keys), counts.max()), np.int64)
    more[rows, position] = found
    return largest(np.concatenate([keys, more], axis=1), keys.shape[1])


def _runs(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, bool, pa.RecordBatch]]:
    """(block, is_other, rows) for each stretch of a batch in which both stay the same."""
    for batch in batches:
        if batch.num_rows == 0:
            continue
        block = batch.column("block").to_numpy()
        is_other = batch.column("is_other").to_numpy(zero_copy_only=False)
        changes = np.flatnonzero((block[1:] != block[:-1]) | (is_other[1:] != is_other[:-1])) + 1
        starts = [0, *changes.tolist(), batch.num_rows]
        for start, stop in zip(starts, starts[1:], strict=False):
            yield int(block[start]), bool(is_other[start]), batch.slice(start, stop - start)


def _vectors(parts: list[pa.RecordBatch]) -> Vectors:
    """Arrow rows put together."""
    table = pa.Table.from_batches(parts).combine_chunks()
    ids, columns, weights = (table.column(name).chunk(0) for name in ("patient_id", "columns", "weights"))
    offsets = np.concatenate([[0], np.cumsum(columns.value_lengths().to_numpy())])
    return Vectors(ids, offsets, columns.flatten().to_numpy(), weights.flatten().to_numpy())


def _rows(patient_ids: pa.Array, keys: np.ndarray, other_ids: pa.ChunkedArray) -> Iterator[pa.RecordBatch]:
    """NEAREST from keys, a free place left out."""
    for start in range(0, len(keys), OWN_ROWS):
        rows, places = np.nonzero(keys[start : start + OWN_ROWS])
        steps, others = unpack(keys[start + rows, places])
        columns = [patient_ids.take(pa.array(start + rows)), pa.array(places + 1, pa.int32())]
        columns += [other_ids.take(pa.array(others)).combine_chunks(), pa.array(scores_of(steps))]
        yield pa.RecordBatch.from_arrays(columns, schema=_ARROW)
