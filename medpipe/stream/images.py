"""Image columns of Arrow batches as numpy, without a copy. No torch, no Spark."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from medpipe.errors import ContractError
from medpipe.stream.batches import column_of, flat


@dataclass(frozen=True, eq=False)
class Images:
    """N grey images of one size. ids: str objects (N,). pixels: uint8 (N, H, W)."""

    ids: np.ndarray
    pixels: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """One image is as much work as another, int64 (N,)."""
        return np.ones(len(self.ids), np.int64)

    def take(self, rows: np.ndarray) -> "Images":
        """The images `rows` (int64 (M,)), in that order."""
        return Images(self.ids[rows], self.pixels[rows])

    @staticmethod
    def concatenate(parts: Sequence["Images"]) -> "Images":
        """The images of all parts, in order.

        Raises:
            ContractError: OTHER_SIZE where parts differ in it.
        """
        parts = [part for part in parts if len(part.ids)] or list(parts)
        if len(sizes := {part.pixels.shape[1:] for part in parts}) > 1:
            raise _other_size(sizes)
        return Images(np.concatenate([part.ids for part in parts]), np.concatenate([part.pixels for part in parts]))


def image_faults(batch: pa.RecordBatch, config: dict) -> np.ndarray:
    """Why each row of a batch of gold.image cannot be read, str objects (N,).

    TRUNCATED: pixels are not height * width bytes; OTHER_SIZE: height and width are not the model's; else "".

    Args:
        config: height and width, as the model was trained.
    """
    height, width = (flat(batch, name, pa.int32()) for name in ("height", "width"))
    is_whole = np.diff(_bytes(batch)[1]) == height.astype(np.int64) * width
    is_size = (height == config["height"]) & (width == config["width"])
    return np.where(~is_whole, "TRUNCATED", np.where(~is_size, "OTHER_SIZE", "")).astype(object)


def images_of(batch: pa.RecordBatch) -> Images:
    """A batch of gold.image; pixels are a view of its buffer.

    Raises:
        ContractError: BAD_COLUMN for a wrong type or a null, OTHER_SIZE where images differ in size, TRUNCATED where
            there are other than height * width bytes.
    """
    height, width = (flat(batch, name, pa.int32()) for name in ("height", "width"))
    if len(sizes := set(zip(height.tolist(), width.tolist(), strict=True))) > 1:
        raise _other_size(sizes)
    (shape,) = sizes or {(0, 0)}
    pixels, offsets = _bytes(batch)
    if (np.diff(offsets) != shape[0] * shape[1]).any():
        raise ContractError("TRUNCATED", f"pixels: found other than {shape[0]} * {shape[1]} bytes; rebuild gold.image")
    return Images(flat(batch, "image_id", pa.string()), pixels.reshape(len(offsets) - 1, *shape))


def _bytes(batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
    """All pixels end to end uint8 (bytes,), and offsets int64 (N + 1,) from 0."""
    array = column_of(batch, "pixels", pa.binary())
    if not len(array):
        return np.empty(0, np.uint8), np.zeros(1, np.int64)
    offsets = np.frombuffer(array.buffers()[1], np.int32, len(array) + 1, array.offset * 4).astype(np.int64)
    pixels = np.frombuffer(array.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    return pixels, offsets - offsets[0]


def _other_size(sizes: set[tuple[int, int]]) -> ContractError:
    told = ", ".join(f"{height} x {width}" for height, width in sorted(sizes))
    return ContractError("OTHER_SIZE", f"pixels: found images of {told}, expected one size; bring them to one first")
