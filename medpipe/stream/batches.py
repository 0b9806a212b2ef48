"""Arrow batches to numpy without a copy, and ragged histories to padded arrays. No torch, no Spark."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from medpipe.errors import ContractError
from medpipe.stream.tokens import PADDING, Vocabulary, encode


class Encoded(Protocol):
    """N rows as a model reads them: their ids, str objects (N,), and how much work each is, int64 (N,)."""

    ids: np.ndarray

    @property
    def lengths(self) -> np.ndarray: ...

    def take(self, rows: np.ndarray) -> "Encoded": ...

    @staticmethod
    def concatenate(parts: Sequence["Encoded"]) -> "Encoded": ...


@dataclass(frozen=True, eq=False)
class Sequences:
    """Encoded histories of N patients end to end, E events in all, each patient's oldest event first.

    Attributes:
        ids: of the patients, str objects (N,).
        offsets: int64 (N + 1,), from 0 to E: patient i has the events offsets[i] to offsets[i + 1].
        tokens: int32 (E,). days_before: int32 (E,). amounts: float32 (E,) z-scores, NaN where there is none.
    """

    ids: np.ndarray
    offsets: np.ndarray
    tokens: np.ndarray
    days_before: np.ndarray
    amounts: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Events of each patient, int64 (N,)."""
        return np.diff(self.offsets)

    def take(self, rows: np.ndarray) -> "Sequences":
        """The patients `rows` (int64 (M,)), in that order."""
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        events = np.repeat(self.offsets[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Sequences(self.ids[rows], offsets, self.tokens[events], self.days_before[events], self.amounts[events])

    @staticmethod
    def concatenate(parts: Sequence["Sequences"]) -> "Sequences":
        """The patients of all parts, in order."""
        lengths = np.concatenate([part.lengths for part in parts])
        return Sequences(
            ids=np.concatenate([part.ids for part in parts]),
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            tokens=np.concatenate([part.tokens for part in parts]),
            days_before=np.concatenate([part.days_before for part in parts]),
            amounts=np.concatenate([part.amounts for part in parts]),
        )


@dataclass(frozen=True, eq=False)
class Padded:
    """B histories of at most T events, filled up on the right.

    Attributes:
        tokens: int64 (B, T), 0 = padding. days_before: float32 (B, T), 0 in the padding.
        amounts: float32 (B, T), NaN where there is none. lengths: int64 (B,), each >= 1.
    """

    tokens: np.ndarray
    days_before: np.ndarray
    amounts: np.ndarray
    lengths: np.ndarray


def flat(batch: pa.RecordBatch, column: str, arrow_type: pa.DataType) -> np.ndarray:
    """A column of plain values as numpy: a view for numbers, str objects for strings.

    Raises:
        ContractError: BAD_COLUMN, naming the column, for another type or a null.
    """
    array = column_of(batch, column, arrow_type)
    return array.to_numpy(zero_copy_only=not pa.types.is_string(arrow_type))


def ragged(batch: pa.RecordBatch, column: str, element_type: pa.DataType) -> tuple[np.ndarray, np.ndarray]:
    """A list column as (values (E,), offsets int64 (N + 1,) from 0 to E); the values are a view.

    Raises:
        ContractError: BAD_COLUMN, naming the column, for another type, a null list or a null element.
    """
    array = column_of(batch, column, pa.list_(element_type))
    offsets = np.frombuffer(array.buffers()[1], np.int32, len(array) + 1, array.offset * 4) if len(array) else [0]
    offsets = np.asarray(offsets, np.int64)
    values = array.values.slice(offsets[0], offsets[-1] - offsets[0])
    if values.null_count:
        raise _bad(column, "a null element")
    return values.to_numpy(zero_copy_only=True), offsets - offsets[0]


def column_of(batch: pa.RecordBatch, column: str, arrow_type: pa.DataType) -> pa.Array:
    """A column as Arrow has it.

    Raises:
        ContractError: BAD_COLUMN, naming the column, for another type or a null.
    """
    if column not in batch.schema.names:
        raise _bad(column, f"only {', '.join(batch.schema.names)}")
    array = batch.column(column)
    # The name of a list's element field differs between writers and means nothing.
    found, wanted = array.type, arrow_type
    if pa.types.is_list(found) and pa.types.is_list(wanted):
        found, wanted = found.value_type, wanted.value_type
    if found != wanted:
        raise _bad(column, f"{array.type}, expected {arrow_type}")
    if array.null_count:
        raise _bad(column, f"{array.null_count} nulls, expected none")
    return array


def _bad(column: str, found: str) -> ContractError:
    return ContractError("BAD_COLUMN", f"model input {column}: found {found}; rebuild the table from its contract")


def sequence_faults(batch: pa.RecordBatch, config: dict) -> np.ndarray:
    """Why each row of a batch of gold.sequence cannot be encoded: RAGGED, EMPTY or "", str objects (N,).

    Args:
        config: of the model; a history of any length can be encoded.
    Raises:
        ContractError: BAD_COLUMN for a wrong type or a null: that is the table's fault, not the row's.
    """
    lengths = [
        np.diff(ragged(batch, column, kind)[1])
        for column, kind in (("concepts", pa.int64()), ("days_before", pa.int32()), ("amounts", pa.float32()))
    ]
    is_ragged = (lengths[0] != lengths[1]) | (lengths[0] != lengths[2])
    return np.where(is_ragged, "RAGGED", np.where(lengths[0] < 1, "EMPTY", "")).astype(object)


def sequences_of(batch: pa.RecordBatch, vocabulary: Vocabulary) -> Sequences:
    """A batch of gold.sequence, encoded.

    Raises:
        ContractError: BAD_COLUMN for a wrong type or a null, RAGGED where a patient's three lists differ in length or
            are empty.
    """
    concepts, offsets = ragged(batch, "concepts", pa.int64())
    days_before, day_offsets = ragged(batch, "days_before", pa.int32())
    amounts, amount_offsets = ragged(batch, "amounts", pa.float32())
    if not (np.array_equal(offsets, day_offsets) and np.array_equal(offsets, amount_offsets)):
        raise ContractError("RAGGED", "concepts, days_before and amounts differ in length; rebuild gold.sequence")
    if (np.diff(offsets) < 1).any():
        raise ContractError("RAGGED", "a history without an event; rebuild gold.sequence")
    tokens, z = encode(vocabulary, concepts, amounts)
    return Sequences(flat(batch, "patient_id", pa.string()), offsets, tokens, days_before, z)


def pad(sequences: Sequences, rows: np.ndarray, max_events: int) -> Padded:
    """The histories of the patients `rows` (B,) side by side.

    Of a history longer than max_events (>= 2) the first element, which is the birth, and the latest ones are kept.
    """
    lengths = np.minimum(sequences.lengths[rows], max_events)
    places = np.arange(lengths.max(initial=1))[None, :]  # (1, T)
    is_event = places < lengths[:, None]  # (B, T)
    # Counted from the end, but for the first: what is cut lies between them.
    events = sequences.offsets[rows + 1][:, None] - lengths[:, None] + places
    events = np.where(places == 0, sequences.offsets[rows][:, None], events)
    events = np.where(is_event, events, 0)
    return Padded(
        tokens=np.where(is_event, sequences.tokens[events], PADDING).astype(np.int64),
        days_before=np.where(is_event, sequences.days_before[events], 0).astype(np.float32),
        amounts=np.where(is_event, sequences.amounts[events], np.nan).astype(np.float32),
        lengths=lengths.astype(np.int64),
    )


def buckets(lengths: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Every row once, in groups of at most batch_size of similar length (int64 (B,)), shortest first; ties by row."""
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
