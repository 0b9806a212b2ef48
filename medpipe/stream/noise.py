"""Shards of a generator: a seed and a count. What a table is to other recipes is noise here, and nothing is read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from medpipe.stream.shards import ShardFile

SCHEME = "noise:"


@dataclass(frozen=True, eq=False)
class Draws:
    """N molecules to make. ids: str objects (N,). seeds, places: int64 (N,), which name the noise of each."""

    ids: np.ndarray
    seeds: np.ndarray
    places: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """One is as much work as another, int64 (N,)."""
        return np.ones(len(self.ids), np.int64)

    def take(self, rows: np.ndarray) -> "Draws":
        """The molecules `rows` (int64 (M,)), in that order."""
        return Draws(self.ids[rows], self.seeds[rows], self.places[rows])

    @staticmethod
    def concatenate(parts: Sequence["Draws"]) -> "Draws":
        """The molecules of all parts, in order."""
        return Draws(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "seeds", "places")))


def noise_file(seed: int, num_rows: int, block_rows: int) -> ShardFile:
    """The molecules 0 to num_rows of a seed as a plan takes them: each row group is a block that is made in one go."""
    sizes = [min(block_rows, num_rows - start) for start in range(0, num_rows, block_rows)]
    return ShardFile(f"{SCHEME}{seed}/{num_rows}", 0, tuple(sizes))


def draw(url: str, row_groups: Sequence[int], columns: Sequence[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
    """molecule_id, seed and place of the blocks, one batch each; as reader.read, for a url of noise_file.

    Args:
        batch_rows: rows of a block, as the file was made with.
    """
    seed, num_rows = map(int, url.removeprefix(SCHEME).split("/"))
    for block in row_groups:
        places = np.arange(block * batch_rows, min((block + 1) * batch_rows, num_rows))
        ids = [f"{seed}-{place:09d}" for place in places]
        batch = pa.record_batch([pa.array(ids), np.full(len(places), seed), places], ["molecule_id", "seed", "place"])
        yield batch.select(list(columns))


def uniforms(draws: Draws, rows: np.ndarray, width: int) -> np.ndarray:
    """float32 (B, width) in [0, 1) of the molecules `rows`: each has a stream of its own, wherever it is made.

    Source: Philox, Salmon et al., SC 2011; its key is the seed and the place.
    """
    streams = [np.random.Philox(key=[draws.seeds[row], draws.places[row]]) for row in rows]
    return np.stack([np.random.Generator(stream).random(width, np.float32) for stream in streams])
