"""Masks: which class each pixel of an image belongs to."""

from collections.abc import Sequence

import numpy as np

from medpipe.imaging.formats import Image, ImageError

# Anatomical atlases have about a hundred; a photograph given as a mask has more values than this.
MAX_CLASS = 127
# An affine is written in float32 and passes through quaternions.
AFFINE_TOLERANCE_MM = 1e-2


def mask_of(image: Image, masks: Sequence[Image]) -> np.ndarray:
    """Classes uint8 (frames, height, width) of the image, 0 where there is none.

    Args:
        masks: one with class numbers, or with 0 and 255 alone, which is read as 1; or several, one for each object,
            of which the union is 1.
    Raises:
        ImageError: MASK_SHAPE where a mask is of another size or place than the image, or has colours; MASK_VALUES
            where it holds other than class numbers up to MAX_CLASS; MASK_EMPTY.
    """
    found = [_classes(image, mask) for mask in masks]
    classes = found[0] if len(found) == 1 else np.any(found, axis=0).astype(np.uint8)
    if not classes.any():
        raise ImageError("MASK_EMPTY")
    return classes


def _classes(image: Image, mask: Image) -> np.ndarray:
    if mask.channels != 1 or mask.pixels.shape != image.pixels.shape[:3]:
        raise ImageError("MASK_SHAPE")
    if image.affine is not None and mask.affine is not None:
        if np.abs(image.affine - mask.affine).max() > AFFINE_TOLERANCE_MM:
            raise ImageError("MASK_SHAPE")
    values = mask.pixels
    high = values.max()
    if high == 255 and np.isin(values, (0, 255)).all():
        return (values == 255).astype(np.uint8)
    if values.min() < 0 or high > MAX_CLASS or (values.dtype.kind == "f" and (values != np.floor(values)).any()):
        raise ImageError("MASK_VALUES")
    return values.astype(np.uint8)
