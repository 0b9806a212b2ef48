"""Sums over all patients, whatever they are sums of: the one thing that fitting a model asks of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch
from pyspark.sql import DataFrame
from scipy import sparse

from medpipe.recommend.histories import Histories, of_batch

# Of a few patients, (S,), float32 or float64; for mapInArrow, so it pickles. Counts below 2**24 are exact in float32.
Statistic = Callable[[Histories], np.ndarray]
# Patients summed at a time, whatever the session's Arrow batches hold: float32 rounds by the company.
SUMMED_ROWS = 16384
_SUM = pa.schema([("sum", pa.binary())])


class Population(Protocol):
    """Patients to learn from; M treatments and N features."""

    num_treatments: int
    num_features: int

    def summed(self, statistic: Statistic) -> np.ndarray:
        """float64: the statistic of everybody. It must be additive: of two groups together, the sum of both."""


@dataclass(frozen=True)
class InBlocks:
    """Patients in Spark; a task sums its block, the driver adds the sums in the blocks' order.

    Attributes:
        rows: of `in_blocks`.
    """

    rows: DataFrame
    num_treatments: int
    num_features: int

    def summed(self, statistic: Statistic) -> np.ndarray:
        """float64; the driver holds one sum of each block."""
        block = _BlockSum(statistic, self.num_treatments, self.num_features)
        # In the order of the partitions, so the last bits do not depend on which ended first.
        sums = self.rows.mapInArrow(block, "sum binary").toArrow().column("sum")
        none = statistic(nobody(self.num_treatments, self.num_features))
        total, kind = none.astype(np.float64), none.dtype
        for found in sums:
            total += np.frombuffer(found.as_buffer(), kind)
        return total


@dataclass(frozen=True)
class InMemory:
    """Patients of this process, e.g. of a sample or an open data set."""

    histories: Histories

    @property
    def num_treatments(self) -> int:
        return self.histories.had.shape[1]

    @property
    def num_features(self) -> int:
        return self.histories.features.shape[1]

    def summed(self, statistic: Statistic) -> np.ndarray:
        """float64."""
        return statistic(self.histories).astype(np.float64)


def in_blocks(rows: DataFrame, num_treatments: int, num_features: int, num_blocks: int = 4) -> InBlocks:
    """Deals patients into blocks by their id, so that the same patients give the same bits on every cluster.

    Args:
        rows: HISTORIES, patient_id unique. The blocks are persisted: unpersist `.rows` when the models are fitted.
        num_blocks: never to be derived from the cluster's size: another number rounds otherwise.
    """
    blocks = rows.repartition(num_blocks, "patient_id").sortWithinPartitions("patient_id")
    return InBlocks(blocks.persist(), num_treatments, num_features)


def nobody(num_treatments: int, num_features: int) -> Histories:
    """No patients."""
    had, features = (sparse.csr_matrix((0, width), dtype=np.float32) for width in (num_treatments, num_features))
    return Histories(pa.array([], pa.string()), had, features)


@dataclass(frozen=True)
class _BlockSum:
    """For mapInArrow: one row, the sum over the partition's patients; of none, if there are none."""

    statistic: Statistic
    num_treatments: int
    num_features: int

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        torch.set_num_threads(1)  # Spark has given this task one core
        none = self.statistic(nobody(self.num_treatments, self.num_features))
        total = none.astype(np.float64)
        for batch in _even(batches):
            total += self.statistic(of_batch(batch, self.num_treatments, self.num_features))
        # It travels as the statistic is: half the bytes where float32 will do.
        yield pa.RecordBatch.from_arrays([pa.array([total.astype(none.dtype).tobytes()], pa.binary())], schema=_SUM)


def _even(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of SUMMED_ROWS; the last may be smaller."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(part.num_rows for part in held) >= SUMMED_ROWS:
            rows = pa.Table.from_batches(held).combine_chunks()
            whole = rows.num_rows // SUMMED_ROWS * SUMMED_ROWS
            yield from rows.slice(0, whole).to_batches(max_chunksize=SUMMED_ROWS)
            held = rows.slice(whole).to_batches()
    if held:
        yield from pa.Table.from_batches(held).combine_chunks().to_batches()
