"""NumPy archives (.npz): many images of one size in each array, read one at a time.

Arrays named `images`, or whose name ends in `_images`, hold images (N, H, W) or (N, H, W, 3); `labels` or the same
name with `_labels`, (N,) or (N, 1), holds their classes. Other arrays are not read. Nothing is unpickled.
Source: numpy.lib.format, versions 1.0 and 2.0.
"""

import io
import math
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib import format as npy

from medpipe.imaging.formats import Image, ImageError, Limits, exact

HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class Array:
    """An array of an archive: its member, shape, type and where its numbers begin."""

    member: str
    shape: tuple[int, ...]
    dtype: np.dtype
    start: int

    @property
    def size(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize


def count(file: io.BufferedIOBase, limits: Limits) -> int:
    """Images that the archive declares.

    Raises:
        ImageError: ARCHIVE where no array holds images; BAD_IMAGE, FALSE_SIZE, IMAGE_TOO_LARGE, TRUNCATED, UNSUPPORTED.
    """
    with _opened(file) as archive:
        return sum(array.shape[0] for array in _image_arrays(archive, limits))


def decode(content: bytes, limits: Limits) -> Iterator[Image | ImageError]:
    """Every image, array by array in the order of their names; NOT_FINITE or UNSUPPORTED in the place of a refused one.

    Raises:
        ImageError: as `count`.
    """
    with _opened(io.BytesIO(content)) as archive:
        for array in _image_arrays(archive, limits):
            labels = _labels(archive, array, limits)
            _require_checksum(archive, array.member)
            with archive.open(array.member) as file:
                file.read(array.start)
                for label in labels:
                    values = np.frombuffer(file.read(array.size), array.dtype).reshape(1, *array.shape[1:])
                    try:
                        yield Image(exact(values), "npz", label=label)
                    except ImageError as refused:
                        yield refused


def _opened(file: io.BufferedIOBase) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except zipfile.BadZipFile:
        # The directory stands at the end.
        raise ImageError("TRUNCATED") from None


def _image_arrays(archive: zipfile.ZipFile, limits: Limits) -> list[Array]:
    names = sorted(name for name in archive.namelist() if name.endswith(".npy"))
    names = [name for name in names if name == "images.npy" or name.endswith("_images.npy")]
    if not names:
        raise ImageError("ARCHIVE")
    if len(names) != len(set(names)):
        raise ImageError("BAD_IMAGE")
    arrays = [_array(archive, name, limits) for name in names]
    if sum(array.shape[0] if array.shape else 0 for array in arrays) > limits.images:
        raise ImageError("IMAGE_TOO_LARGE")
    for array in arrays:
        if len(array.shape) not in (3, 4) or array.shape[3:] not in ((), (3,)) or array.shape[0] < 1:
            raise ImageError("UNSUPPORTED")
        limits.require(*array.shape[1:3], channels=math.prod(array.shape[3:]))
    return arrays


def _array(archive: zipfile.ZipFile, name: str, limits: Limits) -> Array:
    """What the header of an array says; its numbers are not read."""
    info = archive.getinfo(name)
    if info.file_size > limits.inflated_bytes:
        raise ImageError("IMAGE_TOO_LARGE")
    try:
        with archive.open(name) as file:
            shape, is_fortran, dtype = HEADERS[npy.read_magic(file)](file)
            start = file.tell()
    except (ValueError, KeyError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError):
        raise ImageError("BAD_IMAGE") from None
    if dtype.hasobject or dtype.kind not in "biuf" or (is_fortran and len(shape) > 1):
        raise ImageError("UNSUPPORTED")
    if start + math.prod(shape) * dtype.itemsize != info.file_size:
        raise ImageError("FALSE_SIZE")
    return Array(name, shape, dtype, start)


def _labels(archive: zipfile.ZipFile, images: Array, limits: Limits) -> list[int | None]:
    """One per image; None where the archive has no labels for the array.

    Raises:
        ImageError: FALSE_SIZE where there are other than one for each image.
    """
    name = images.member.removesuffix("images.npy") + "labels.npy"
    if name not in archive.namelist():
        return [None] * images.shape[0]
    array = _array(archive, name, limits)
    if math.prod(array.shape) != images.shape[0]:
        raise ImageError("FALSE_SIZE")
    _require_checksum(archive, name)
    with archive.open(name) as file:
        values = np.frombuffer(file.read()[array.start :], array.dtype)
    if array.dtype.kind == "f":
        raise ImageError("UNSUPPORTED")
    return [int(value) for value in values]


def _require_checksum(archive: zipfile.ZipFile, name: str) -> None:
    """The member inflates to what its checksum says; a chunk of it at a time is held."""
    try:
        with archive.open(name) as file:
            while file.read(CHUNK_BYTES):
                pass
    except (zipfile.BadZipFile, zlib.error, EOFError):
        raise ImageError("BAD_IMAGE") from None
