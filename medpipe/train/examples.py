"""Rows with a known label, read once from the shards into compact arrays, in an order that no file decides."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from medpipe.errors import DataError
from medpipe.recipes import Recipe
from medpipe.stream.batches import Encoded, buckets, flat
from medpipe.stream.reader import read
from medpipe.stream.shards import Shard
from medpipe.stream.tokens import Vocabulary

BATCH_ROWS = 8192
# Batches are cut from so many patients sorted by length: little padding, and still a fresh mix every epoch.
BATCHES_PER_POOL = 16


@dataclass(frozen=True, eq=False)
class Examples:
    """N rows, ordered by a hash of their ids. labels: float32 (N,), 0 or 1. splits: str objects (N,)."""

    encoded: Encoded
    labels: np.ndarray
    splits: np.ndarray

    def rows(self, split: str) -> np.ndarray:
        """Rows of one split, int64."""
        return np.flatnonzero(self.splits == split)


def read_examples(
    shards: Sequence[Shard], recipe: Recipe, vocabulary: Vocabulary | None, max_patients: int
) -> Examples:
    """The labelled rows of the shards, encoded.

    Of a split with more than max_patients the ones with the smallest hash are kept, so memory has a bound and every
    layout of the files gives the same rows. About 12 bytes per event, or one per pixel.

    Raises:
        DataError: SHARD_ROWS where a file holds other than the planned rows, NO_EXAMPLES where train or tune lacks one
            of the two labels.
    """
    chosen = _chosen(shards, recipe.columns[0], max_patients)
    parts, labels, splits = [], [], []
    for shard in shards:
        for batch in read_shard(shard, (*recipe.columns, "label", "split"), recipe.batch_rows):
            rows = np.flatnonzero([row_id in chosen for row_id in flat(batch, recipe.columns[0], pa.string())])
            parts.append(recipe.read(batch, vocabulary).take(rows))
            labels.append(flat(batch, "label", pa.int32())[rows].astype(np.float32))
            splits.append(flat(batch, "split", pa.string())[rows])
    _require_both_labels(_joined(labels), _joined(splits), recipe.table)
    encoded = type(parts[0]).concatenate(parts)
    order = hash_order(encoded.ids, "examples")
    return Examples(encoded.take(order), _joined(labels)[order], _joined(splits)[order])


def hash_order(ids: np.ndarray, salt: str) -> np.ndarray:
    """Rows sorted by BLAKE2b of salt and id, int64 (N,): chance, and the same for every layout of the files."""
    keys = [hashlib.blake2b(f"{salt}/{name}".encode(), digest_size=8).digest() for name in ids]
    return np.argsort(np.frombuffer(b"".join(keys), ">u8"), kind="stable")


def epoch_batches(examples: Examples, rows: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The rows `rows`, each once, in batches of similar length; order and company differ from epoch to epoch.

    They depend on the ids, the seed and the epoch alone.
    """
    order = rows[hash_order(examples.encoded.ids[rows], f"{seed}/{epoch}")]
    return in_pools(order, examples.encoded.lengths, batch_size, np.random.default_rng([seed, epoch]))


def in_pools(order: np.ndarray, lengths: np.ndarray, batch_size: int, random: np.random.Generator) -> list[np.ndarray]:
    """The rows of `order`, each once, in batches of similar length from the same pool, the batches in random order."""
    pool_size = batch_size * BATCHES_PER_POOL
    pools = [order[start : start + pool_size] for start in range(0, len(order), pool_size)]
    batches = [pool[bucket] for pool in pools for bucket in buckets(lengths[pool], batch_size)]
    return [batches[place] for place in random.permutation(len(batches))]


def _require_both_labels(labels: np.ndarray, splits: np.ndarray, table: str) -> None:
    for split in ("train", "tune"):
        num_rows, num_positive = (splits == split).sum(), labels[splits == split].sum()
        if not 0 < num_positive < num_rows:
            remedy = (
                "check the outcome's concepts and gold.cohort's exclusions; of CENSORED, raise cohort.lag_days"
                if table == "gold.sequence"
                else f"label more rows of {table}"
            )
            raise DataError(
                "NO_EXAMPLES",
                f"{table}: split {split} has {num_rows} labelled rows, {num_positive:.0f} with the outcome; "
                f"both labels are needed: {remedy}",
            )


def _chosen(shards: Sequence[Shard], id_column: str, max_patients: int) -> set[str]:
    """Labelled rows to keep: the first max_patients of each split in hash order."""
    known: dict[str, list[str]] = {}
    for shard in shards:
        for batch in read_shard(shard, (id_column, "label", "split"), BATCH_ROWS):
            is_known = flat(batch, "label", pa.int32()) >= 0
            ids, splits = (flat(batch, column, pa.string())[is_known] for column in (id_column, "split"))
            for split in np.unique(splits):
                known.setdefault(split, []).extend(ids[splits == split])
    return {
        ids[place]
        for ids in (np.array(found, object) for found in known.values())
        for place in hash_order(ids, "examples")[:max_patients]
    }


def read_shard(shard: Shard, columns: tuple[str, ...], batch_rows: int) -> Iterator[pa.RecordBatch]:
    """Its batches.

    Raises:
        DataError: SHARD_ROWS where the file holds other than the planned rows.
    """
    num_rows = 0
    for batch in read(shard.url, shard.row_groups, columns, batch_rows):
        num_rows += batch.num_rows
        yield batch
    if num_rows != shard.num_rows:
        raise DataError("SHARD_ROWS", f"{shard.url}: {num_rows} rows read, {shard.num_rows} planned; plan again")


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts or [np.empty(0, object)])
