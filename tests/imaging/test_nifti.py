import gzip
import tracemalloc

import numpy as np
import pytest

from medpipe.imaging.formats import ImageError, Limits
from medpipe.imaging.reading import images
from tests.images import nifti

VOXELS = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)


def read(content, limits=None):
    (found,) = images(content, limits or Limits())
    return found


def code(content, limits=None):
    found = read(content, limits)
    return found.code if isinstance(found, ImageError) else "decoded"


@pytest.mark.parametrize("compress", [True, False])
def test_a_volume_comes_as_slices_of_rows_of_columns(compress):
    found = read(nifti(VOXELS, np.diag([2.0, 3.0, 4.0, 1.0]), compress))
    assert (found.pixels == VOXELS.transpose(2, 1, 0)).all() and found.pixels.dtype == np.int16
    assert found.spacing_mm == (4.0, 3.0, 2.0)


def test_a_volume_stored_the_other_way_round_is_turned():
    turned = np.diag([-2.0, 3.0, 4.0, 1.0])
    turned[0, 3] = 2.0
    assert (
        read(nifti(VOXELS[::-1].copy(), turned)).pixels == read(nifti(VOXELS, np.diag([2.0, 3, 4, 1]))).pixels
    ).all()


def test_a_gzip_file_of_several_members_is_one_volume():
    plain = nifti(VOXELS, compress=False)
    assert (read(gzip.compress(plain[:390]) + gzip.compress(plain[390:])).pixels == VOXELS.transpose(2, 1, 0)).all()


def test_slope_and_intercept_are_applied():
    found = read(nifti(VOXELS, scl_slope=0.5, scl_inter=10.0))
    assert (found.pixels == VOXELS.transpose(2, 1, 0) * 0.5 + 10).all()


@pytest.mark.parametrize(
    "content, expected",
    [
        (nifti(np.full((2, 2, 2), np.nan, np.float32)), "NOT_FINITE"),
        (nifti(np.zeros((2, 2, 2, 5), np.int16)), "UNSUPPORTED"),
        (nifti(np.zeros((2, 2, 2), np.complex64)), "UNSUPPORTED"),
        (nifti(VOXELS, dim=[3, 30000, 30000, 30000, 1, 1, 1, 1]), "IMAGE_TOO_LARGE"),
        (nifti(VOXELS, dim=[3, 2, 3, 5, 1, 1, 1, 1]), "TRUNCATED"),
        (nifti(VOXELS, dim=[3, 2, 3, 3, 1, 1, 1, 1]), "FALSE_SIZE"),
        (nifti(VOXELS, dim=[3, 0, 3, 4, 1, 1, 1, 1]), "BAD_IMAGE"),
        (nifti(VOXELS, dim=[3, -2, 3, 4, 1, 1, 1, 1]), "BAD_IMAGE"),
        (nifti(VOXELS, datatype=77), "BAD_IMAGE"),
        (nifti(VOXELS, vox_offset=1e9), "BAD_IMAGE"),
        (nifti(VOXELS, srow_x=[np.nan, 0, 0, 0]), "BAD_GEOMETRY"),
        (nifti(VOXELS, srow_x=[0, 0, 0, 0]), "BAD_GEOMETRY"),
        (nifti(VOXELS)[:-30], "TRUNCATED"),
        (nifti(VOXELS)[:-4], "TRUNCATED"),
        (nifti(VOXELS)[:-4] + b"junk", "BAD_IMAGE"),
        (nifti(VOXELS, compress=False)[:200], "UNKNOWN_FORMAT"),
        (nifti(VOXELS, compress=False)[:350], "TRUNCATED"),
    ],
)
def test_a_volume_that_cannot_be_trusted_is_refused(content, expected):
    assert code(content) == expected


def test_a_gzip_bomb_is_inflated_no_further_than_its_header_says():
    bomb = gzip.compress(nifti(VOXELS, compress=False) + bytes(64 * 2**20))
    tracemalloc.start()
    assert code(bomb) == "FALSE_SIZE"
    assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    tracemalloc.stop()
    large = nifti(np.zeros((64, 64, 64), np.float32))
    assert code(large, Limits(inflated_bytes=2**19)) == "IMAGE_TOO_LARGE"
