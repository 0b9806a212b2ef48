"""Patients with a known label, read once from the shards into compact arrays, in an order that no file decides."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from medpipe.errors import DataError
from medpipe.recipes import Recipe
from medpipe.stream.batches import Sequences, buckets, concatenate, flat, take
from medpipe.stream.reader import read
from medpipe.stream.shards import Shard
from medpipe.stream.tokens import Vocabulary

BATCH_ROWS = 8192
# Batches are cut from so many patients sorted by length: little padding, and still a fresh mix every epoch.
BATCHES_PER_POOL = 16


@dataclass(frozen=True, eq=False)
class Examples:
    """N patients, ordered by a hash of patient_id. labels: float32 (N,), 0 or 1. splits: str objects (N,)."""

    sequences: Sequences
    labels: np.ndarray
    splits: np.ndarray

    def rows(self, split: str) -> np.ndarray:
        """Rows of one split, int64."""
        return np.flatnonzero(self.splits == split)


def read_examples(shards: Sequence[Shard], recipe: Recipe, vocabulary: Vocabulary, max_patients: int) -> Examples:
    """The labelled patients of the shards, encoded.

    Of a split with more than max_patients the ones with the smallest hash are kept, so memory has a bound and every
    layout of the files gives the same patients. About 12 bytes per event.

    Raises:
        DataError: SHARD_ROWS where a file holds other than the planned rows, NO_EXAMPLES where train or tune lacks one
            of the two labels.
    """
    chosen = _chosen(shards, max_patients)
    parts, labels, splits = [], [], []
    for shard in shards:
        for batch in _read(shard, (*recipe.columns, "label", "split")):
            rows = np.flatnonzero([patient in chosen for patient in flat(batch, "patient_id", pa.string())])
            parts.append(take(recipe.read(batch, vocabulary), rows))
            labels.append(flat(batch, "label", pa.int32())[rows].astype(np.float32))
            splits.append(flat(batch, "split", pa.string())[rows])
    sequences = concatenate(parts)
    order = hash_order(sequences.patient_ids, "examples")
    found = Examples(take(sequences, order), _joined(labels)[order], _joined(splits)[order])
    for split in ("train", "tune"):
        num_positive, num_patients = found.labels[found.rows(split)].sum(), len(found.rows(split))
        if not 0 < num_positive < num_patients:
            raise DataError(
                "NO_EXAMPLES",
                f"split {split} has {num_patients} labelled patients, {num_positive:.0f} with the outcome; "
                "both labels are needed: check the outcome's concepts and gold.cohort's exclusions; "
                "where most are CENSORED, raise cohort.lag_days",
            )
    return found


def hash_order(patient_ids: np.ndarray, salt: str) -> np.ndarray:
    """Rows sorted by BLAKE2b of salt and patient_id, int64 (N,): chance, and the same for every layout of the files."""
    keys = [hashlib.blake2b(f"{salt}/{patient}".encode(), digest_size=8).digest() for patient in patient_ids]
    return np.argsort(np.frombuffer(b"".join(keys), ">u8"), kind="stable")


def epoch_batches(examples: Examples, rows: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The patients `rows`, each once, in batches of similar length; order and company differ from epoch to epoch.

    They depend on the patients, the seed and the epoch alone.
    """
    order = rows[hash_order(examples.sequences.patient_ids[rows], f"{seed}/{epoch}")]
    pool_size = batch_size * BATCHES_PER_POOL
    pools = [order[start : start + pool_size] for start in range(0, len(order), pool_size)]
    lengths = examples.sequences.lengths
    batches = [pool[bucket] for pool in pools for bucket in buckets(lengths[pool], batch_size)]
    return [batches[place] for place in np.random.default_rng([seed, epoch]).permutation(len(batches))]


def _chosen(shards: Sequence[Shard], max_patients: int) -> set[str]:
    """Labelled patients to keep: the first max_patients of each split in hash order."""
    patients: dict[str, list[str]] = {}
    for shard in shards:
        for batch in _read(shard, ("patient_id", "label", "split")):
            is_known = flat(batch, "label", pa.int32()) >= 0
            ids, splits = (flat(batch, column, pa.string())[is_known] for column in ("patient_id", "split"))
            for split in np.unique(splits):
                patients.setdefault(split, []).extend(ids[splits == split])
    return {
        ids[place]
        for ids in (np.array(found, object) for found in patients.values())
        for place in hash_order(ids, "examples")[:max_patients]
    }


def _read(shard: Shard, columns: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    num_rows = 0
    for batch in read(shard.url, shard.row_groups, columns, BATCH_ROWS):
        num_rows += batch.num_rows
        yield batch
    if num_rows != shard.num_rows:
        raise DataError("SHARD_ROWS", f"{shard.url}: {num_rows} rows read, {shard.num_rows} planned; plan again")


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts or [np.empty(0, object)])
