"""NIfTI-1 and -2 volumes in one file, plain or gzip: the header says how much may be inflated, and no more is.

A volume is turned to the closest of the axes right, anterior, superior and given as (slices, rows, columns), which is
(superior, anterior, right): an image and its mask meet whatever way each was stored.
Source: NIfTI-1.1 header (nifti1.h), NIfTI-2 header (nifti2.h).
"""

import io
import struct

import nibabel
import numpy as np
from nibabel.imageglobals import LoggingOutputSuppressor
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from nibabel.spatialimages import HeaderDataError

from medpipe.imaging.formats import Image, ImageError, Limits, exact, inflated

HEADER_BYTES = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}
# What precedes the voxels: header and extensions.
MAX_OFFSET = 2**20
MILLIMETRES = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}


def decode(content: bytes, limits: Limits) -> Image:
    """The volume, scaled by its slope and intercept.

    Raises:
        ImageError: BAD_GEOMETRY, BAD_IMAGE, FALSE_SIZE, IMAGE_TOO_LARGE, NOT_FINITE, TRUNCATED, UNSUPPORTED (pairs of
            files, series of volumes, colours and complex numbers).
    """
    is_gzip = content.startswith(b"\x1f\x8b")
    header = _header(inflated(content, 544)[0] if is_gzip else content[:544])
    shape = header.get_data_shape()
    if len(shape) > 3 and any(size != 1 for size in shape[3:]) or len(shape) < 2:
        raise ImageError("UNSUPPORTED")
    columns, rows, slices = (*shape, 1)[:3]
    limits.require(rows, columns, slices)
    kind, start = header.get_data_dtype(), int(header.get_data_offset())
    if kind.fields is not None or kind.kind not in "iuf" or kind.itemsize > 8:
        raise ImageError("UNSUPPORTED")
    if not 0 <= start <= MAX_OFFSET:
        raise ImageError("BAD_IMAGE")
    end = start + columns * rows * slices * kind.itemsize
    if end > limits.inflated_bytes:
        raise ImageError("IMAGE_TOO_LARGE")
    # One byte more would say that the header does not speak of all of them.
    held, is_whole = inflated(content, end + 1) if is_gzip else (content, True)
    if len(held) > end:
        raise ImageError("FALSE_SIZE")
    if len(held) < end or not is_whole:
        raise ImageError("TRUNCATED")
    stored = np.frombuffer(held, kind, columns * rows * slices, start).reshape((columns, rows, slices), order="F")
    voxels, affine = _turned(exact(_scaled(stored, header)), _affine(header))
    spacing = nibabel.affines.voxel_sizes(affine)
    return Image(
        pixels=np.ascontiguousarray(voxels.transpose(2, 1, 0)),
        format="nifti",
        spacing_mm=(float(spacing[2]), float(spacing[1]), float(spacing[0])),
        affine=affine,
    )


def _header(head: bytes) -> nibabel.Nifti1Header:
    if len(head) < 348:
        raise ImageError("TRUNCATED")
    if head[344:347] == b"ni1" or head[4:7] == b"ni2":
        raise ImageError("UNSUPPORTED")
    sizes = {struct.unpack(f"{order}i", head[:4])[0] for order in "<>"} & set(HEADER_BYTES)
    if not sizes:
        raise ImageError("BAD_IMAGE")
    with LoggingOutputSuppressor():
        try:
            return HEADER_BYTES[sizes.pop()].from_fileobj(io.BytesIO(head))
        except (HeaderDataError, nibabel.wrapstruct.WrapStructError, ValueError, KeyError):
            raise ImageError("BAD_IMAGE") from None


def _scaled(stored: np.ndarray, header: nibabel.Nifti1Header) -> np.ndarray:
    """Voxels times slope plus intercept; as stored where the header has none."""
    try:
        slope, intercept = header.get_slope_inter()
    except HeaderDataError:
        raise ImageError("BAD_IMAGE") from None
    if slope is None or (slope, intercept) == (1.0, 0.0):
        return stored
    return (stored * np.float64(slope) + intercept).astype(np.float32)


def _affine(header: nibabel.Nifti1Header) -> np.ndarray:
    """(4, 4) from voxel to millimetres."""
    try:
        affine = header.get_best_affine() @ np.eye(4)
        unit = header.get_xyzt_units()[0]
    except (HeaderDataError, KeyError, ValueError):
        raise ImageError("BAD_GEOMETRY") from None
    affine[:3] *= MILLIMETRES[unit]
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise ImageError("BAD_GEOMETRY")
    return affine


def _turned(voxels: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The volume along the axes closest to right, anterior, superior, and the affine that is then its."""
    turn = io_orientation(affine)
    if np.isnan(turn).any():
        raise ImageError("BAD_GEOMETRY")
    return apply_orientation(voxels, turn), affine @ inv_ornt_aff(turn, voxels.shape)
