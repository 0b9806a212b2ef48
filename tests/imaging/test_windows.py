import numpy as np

from medpipe.imaging.blocks import BLOCK_BYTES, cut, joined, slices_per_block
from medpipe.imaging.windows import grey, resized
from tests.images import RAMP


def test_grey_of_eight_bits_stays_as_it_is():
    assert grey(RAMP, "DX", None) is RAMP


def test_a_window_cuts_as_dicom_says():
    # PS3.3 C.11.2.1.2.1 with centre 2048 and width 4096: 0 is black, 4095 white.
    values = np.array([[-5, 0, 4095, 9000]], np.int16)
    assert grey(values, "MR", (2048.0, 4096.0)).tolist() == [[0, 0, 255, 255]]


def test_a_ct_without_a_window_shows_soft_tissue():
    found = grey(np.array([[-1000, -160, 40, 239, 3000]], np.int16), "CT", None)
    assert found.tolist() == [[0, 0, 128, 255, 255]]


def test_other_values_run_from_their_low_to_their_high_percentile():
    values = np.arange(1000, dtype=np.float32).reshape(20, 50)
    values[0, 0] = -1e6
    found = grey(values, "MR", None)
    assert found.min() == 0 and found.max() == 255 and abs(int(found[10, 0]) - 128) <= 1
    assert grey(np.full((3, 3), 7, np.int16), "MR", None).tolist() == [[0] * 3] * 3


def test_colours_become_luminance():
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    assert grey(colours, None, None).tolist() == [[76, 150, 29, 255]]
    assert grey(colours.astype(np.uint16) * 257, None, None).tolist() == [[76, 150, 29, 255]]


def test_an_image_is_brought_to_a_size():
    assert resized(np.full((30, 40), 9, np.uint8), 7, 5).tolist() == [[9] * 5] * 7
    assert resized(RAMP, *RAMP.shape) is RAMP


def test_blocks_are_whole_slices_and_give_the_volume_back():
    volume = np.arange(300 * 100 * 100, dtype=">i2").reshape(300, 100, 100)
    size = slices_per_block(volume)
    parts = list(cut(volume, size))
    assert size == BLOCK_BYTES // 20_000 and len(parts) == 2 and len(parts[0]) == size * 20_000
    assert (joined(parts, "int16", volume.shape) == volume).all()
    assert slices_per_block(np.zeros((1, 4000, 4000), np.uint8)) == 1
