import numpy as np
import pyarrow as pa
import pytest

from medpipe.errors import ContractError
from medpipe.stream.images import Images, image_faults, images_of

SHAPE = {"height": 2, "width": 3}


def batch(*rows):
    """(height, width, pixels) of images i0, i1 ..."""
    height, width, pixels = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.RecordBatch.from_arrays(
        [
            pa.array([f"i{i}" for i in range(len(rows))], pa.string()),
            pa.array(height, pa.int32()),
            pa.array(width, pa.int32()),
            pa.array(pixels, pa.binary()),
        ],
        ["image_id", "height", "width", "pixels"],
    )


def test_pixels_are_a_view_row_by_row():
    found = batch((2, 3, bytes(range(6))), (2, 3, bytes(range(6, 12))))
    images = images_of(found)
    assert images.ids.tolist() == ["i0", "i1"]
    assert images.pixels.tolist() == np.arange(12).reshape(2, 2, 3).tolist()
    assert images.pixels.__array_interface__["data"][0] == found.column("pixels").buffers()[2].address


def test_a_slice_has_its_own_images_only():
    images = images_of(batch((1, 1, b"a"), (1, 1, b"b"), (1, 1, b"c")).slice(1, 2))
    assert images.ids.tolist() == ["i1", "i2"] and images.pixels.tolist() == [[[98]], [[99]]]


def test_no_image_is_no_image():
    assert images_of(batch()).pixels.shape == (0, 0, 0)
    assert image_faults(batch(), SHAPE).tolist() == []


def test_an_image_that_is_cut_or_of_another_size_has_a_code():
    rows = batch((2, 3, bytes(6)), (2, 3, bytes(5)), (2, 3, b""), (3, 2, bytes(6)), (30_000, 90_000, bytes(6)))
    assert image_faults(rows, SHAPE).tolist() == ["", "TRUNCATED", "TRUNCATED", "OTHER_SIZE", "TRUNCATED"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(2, 3, bytes(6)), (3, 2, bytes(6))], "OTHER_SIZE: pixels: found images of 2 x 3, 3 x 2"),
        ([(2, 3, bytes(6)), (2, 3, bytes(7))], r"TRUNCATED: pixels: found other than 2 \* 3 bytes"),
        ([(2, 3, None)], "BAD_COLUMN: model input pixels: found 1 nulls"),
    ],
)
def test_what_cannot_be_read_as_one_block_is_refused(rows, message):
    with pytest.raises(ContractError, match=message):
        images_of(batch(*rows))


def test_images_taken_and_put_together_stay_whole():
    images = images_of(batch((1, 1, b"a"), (1, 1, b"b"), (1, 1, b"c")))
    again = Images.concatenate([images.take(np.array([2])), images_of(batch()), images.take(np.array([0, 1]))])
    assert again.ids.tolist() == ["i2", "i0", "i1"] and again.pixels.ravel().tolist() == [99, 97, 98]
    with pytest.raises(ContractError, match="OTHER_SIZE"):
        Images.concatenate([images, images_of(batch((1, 2, b"ab")))])
