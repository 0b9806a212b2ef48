import numpy as np
import pytest

from medpipe.imaging.formats import Image, ImageError
from medpipe.imaging.masks import mask_of

IMAGE = Image(np.zeros((1, 3, 4), np.uint8), "png")
CLASSES = np.array([[[0, 1, 2, 0], [0, 0, 2, 0], [0, 0, 0, 1]]])


def mask(values, **more):
    return Image(np.asarray(values), "png", **more)


def code(*masks, image=IMAGE):
    with pytest.raises(ImageError) as raised:
        mask_of(image, masks)
    return raised.value.code


def test_classes_are_kept_whatever_type_they_have():
    for kind in (np.uint8, np.int16, np.float32):
        found = mask_of(IMAGE, [mask(CLASSES.astype(kind))])
        assert found.dtype == np.uint8 and (found == CLASSES).all()


def test_black_and_white_is_class_one():
    assert (mask_of(IMAGE, [mask((CLASSES > 0).astype(np.uint8) * 255)]) == (CLASSES > 0)).all()


def test_of_several_masks_the_union_is_taken():
    assert (mask_of(IMAGE, [mask(CLASSES == 1), mask((CLASSES == 2) * 255)]) == (CLASSES > 0)).all()


def test_a_mask_that_does_not_fit_is_refused():
    assert code(mask(CLASSES[:, :2])) == "MASK_SHAPE"
    assert code(mask(np.zeros((1, 3, 4, 3), np.uint8))) == "MASK_SHAPE"
    assert code(mask(CLASSES * 0)) == "MASK_EMPTY"
    assert code(mask(CLASSES * 100)) == "MASK_VALUES"
    assert code(mask(-CLASSES)) == "MASK_VALUES"
    assert code(mask(CLASSES * 0.5)) == "MASK_VALUES"


def test_a_mask_of_another_place_is_refused():
    here, there = np.eye(4), np.eye(4)
    there[0, 3] = 5
    assert code(mask(CLASSES, affine=there), image=Image(IMAGE.pixels, "nifti", affine=here)) == "MASK_SHAPE"
    assert mask_of(Image(IMAGE.pixels, "nifti", affine=here), [mask(CLASSES, affine=here + 1e-4)]).any()
