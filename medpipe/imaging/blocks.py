"""Pixels as bytes that fit a table: a volume in blocks of whole slices, little endian, row by row."""

from collections.abc import Iterator, Sequence

import numpy as np

BLOCK_BYTES = 4 * 2**20


def slices_per_block(pixels: np.ndarray) -> int:
    """Slices of (frames, ...) whose bytes fit BLOCK_BYTES; one at least, however large."""
    return max(1, BLOCK_BYTES // max(1, pixels[:1].nbytes))


def cut(array: np.ndarray, num_slices: int) -> Iterator[bytes]:
    """The bytes of so many slices at a time."""
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    for start in range(0, len(little), num_slices):
        yield np.ascontiguousarray(little[start : start + num_slices]).tobytes()


def joined(parts: Sequence[bytes], dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `cut`, from all blocks in order.

    Raises:
        ValueError: the bytes are not those of the shape.
    """
    return np.frombuffer(b"".join(parts), np.dtype(dtype).newbyteorder("<")).reshape(shape)
