import io
import zipfile

import numpy as np
import pytest

from medpipe.imaging.archives import count
from medpipe.imaging.formats import ImageError, Limits
from medpipe.imaging.reading import images
from tests.images import npz

STACK = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)


def codes(content, limits=None):
    return [image.code if isinstance(image, ImageError) else "decoded" for image in images(content, limits or Limits())]


def test_every_image_comes_with_its_label_and_other_arrays_are_not_read():
    content = npz(train_images=STACK, train_labels=np.array([[0], [1], [1]]), val_images=STACK[:1], extra=STACK)
    found = list(images(content, Limits()))
    assert [image.label for image in found] == [0, 1, 1, None]
    assert (np.concatenate([image.pixels for image in found]) == np.concatenate([STACK, STACK[:1]])).all()
    assert count(io.BytesIO(content), Limits()) == 4


def test_an_image_with_nan_is_refused_and_the_others_are_not():
    stack = STACK.astype(np.float32)
    stack[1, 0, 0] = np.nan
    assert codes(npz(images=stack)) == ["decoded", "NOT_FINITE", "decoded"]


def test_nothing_is_unpickled(tmp_path):
    class Payload:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    file = io.BytesIO()
    np.savez(file, images=np.array([Payload()], object), allow_pickle=True)
    assert codes(file.getvalue()) == ["UNSUPPORTED"]
    assert not (tmp_path / "ran").exists()


def changed(content, name, data):
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(info.filename, data(old.read(info)) if info.filename == name else old.read(info))
    return file.getvalue()


@pytest.mark.parametrize(
    "content, expected",
    [
        (npz(other=STACK), "ARCHIVE"),
        (npz(images=STACK[0]), "UNSUPPORTED"),
        (npz(images=np.zeros((2, 4, 4, 2), np.uint8)), "UNSUPPORTED"),
        (npz(images=np.asfortranarray(STACK)), "UNSUPPORTED"),
        (npz(images=STACK, labels=np.array([1, 0])), "FALSE_SIZE"),
        (npz(images=STACK)[:-30], "TRUNCATED"),
        (changed(npz(images=STACK), "images.npy", lambda data: data[:-5]), "FALSE_SIZE"),
        (changed(npz(images=STACK), "images.npy", lambda data: b"junk" + data), "BAD_IMAGE"),
    ],
)
def test_an_archive_that_cannot_be_trusted_is_refused(content, expected):
    assert codes(content) == [expected]


def test_sizes_are_asked_before_anything_is_inflated():
    content = npz(images=np.zeros((1000, 64, 64), np.uint8))
    assert codes(content, Limits(inflated_bytes=2**20)) == ["IMAGE_TOO_LARGE"]
    assert codes(content, Limits(images=999)) == ["IMAGE_TOO_LARGE"]


def test_a_flipped_byte_is_seen_before_the_first_image_is_given():
    content = bytearray(npz(images=np.random.default_rng(0).integers(0, 255, (5, 30, 30), np.uint8)))
    content[len(content) // 2] ^= 1
    assert codes(bytes(content)) == ["BAD_IMAGE"]
