import gzip
import io
import time
import zlib

import numpy as np
import PIL.Image
import pytest

from medpipe.imaging.formats import ImageError, Limits
from medpipe.imaging.reading import images
from tests.images import RAMP, picture, png_of_size

COLOURS = np.stack([RAMP, RAMP[::-1], RAMP // 2], axis=-1)


def read(content, **more):
    (found,) = images(content, Limits(), **more)
    return found


def code(content, **more):
    found = read(content, **more)
    return found.code if isinstance(found, ImageError) else "decoded"


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_and_colours_come_as_stored(kind):
    grey, colours = read(picture(RAMP, kind)), read(picture(COLOURS, kind))
    assert (grey.pixels[0] == RAMP).all() and grey.channels == 1
    assert (colours.pixels[0] == COLOURS).all() and colours.channels == 3


def test_a_jpeg_is_decoded_to_its_size():
    found = read(picture(np.full((9, 7), 200, np.uint8), "JPEG"))
    assert found.pixels.shape == (1, 9, 7) and abs(int(found.pixels.mean()) - 200) < 3


def test_one_bit_becomes_black_and_white():
    found = read(picture((RAMP > 100).astype(np.uint8) * 255, mode="1"))
    assert (found.pixels[0] == np.where(RAMP > 100, 255, 0)).all() and found.pixels.dtype == np.uint8


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_stay_sixteen(kind):
    pixels = RAMP.astype(np.uint16) * 257
    found = read(picture(pixels, kind))
    assert found.pixels.dtype == np.uint16 and (found.pixels[0] == pixels).all()


def test_a_palette_gives_its_colours_and_as_a_mask_its_numbers():
    image = PIL.Image.fromarray((RAMP % 3).astype(np.uint8), "P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    file = io.BytesIO()
    image.save(file, "PNG")
    assert (read(file.getvalue()).pixels[0, ..., 0] == np.where(RAMP % 3 == 1, 255, 0)).all()
    assert (read(file.getvalue(), as_mask=True).pixels[0] == RAMP % 3).all()


def test_an_opaque_alpha_is_dropped_and_a_transparent_picture_refused():
    opaque = np.dstack([COLOURS, np.full(RAMP.shape, 255, np.uint8)])
    assert (read(picture(opaque)).pixels[0] == COLOURS).all()
    opaque[2, 3, 3] = 0
    assert code(picture(opaque)) == "TRANSPARENT"
    assert code(picture(RAMP, mode="LA")) == "decoded"


def test_cmyk_becomes_red_green_blue():
    found = read(picture(np.full((8, 8, 3), (255, 0, 0), np.uint8), "TIFF", mode="CMYK"))
    assert found.pixels[0, 4, 4].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_an_animated_picture_and_one_of_pages_are_refused(kind):
    pages = [PIL.Image.fromarray(RAMP), PIL.Image.fromarray(RAMP[::-1].copy())]
    file = io.BytesIO()
    pages[0].save(file, kind, save_all=True, append_images=pages[1:])
    assert code(file.getvalue()) == "ANIMATED"


def test_colours_of_sixteen_bits_are_refused_for_they_would_be_cut_to_eight():
    content = bytearray(picture(COLOURS))
    content[24] = 16
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    assert code(bytes(content)) == "UNSUPPORTED"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_a_file_that_ends_early_is_refused_wherever_it_ends(kind):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    content = picture(noise, kind)
    for share in (0.02, 0.3, 0.9):
        assert code(content[: int(len(content) * share)]) in ("TRUNCATED", "BAD_IMAGE", "UNSUPPORTED"), share
    assert code(content[:-20]) in ("TRUNCATED", "BAD_IMAGE")


def test_a_flipped_byte_of_a_png_is_seen():
    content = bytearray(picture(RAMP))
    content[len(content) // 2] ^= 1
    assert code(bytes(content)) == "BAD_IMAGE"


@pytest.mark.parametrize("side", [9_000, 20_000])
def test_a_bomb_is_refused_by_its_header(side):
    content = png_of_size(side, side)
    started = time.monotonic()
    assert code(content) == "IMAGE_TOO_LARGE"
    assert time.monotonic() - started < 0.1


@pytest.mark.parametrize(
    "content, expected",
    [
        (b"", "EMPTY_FILE"),
        (b"GIF89a" + bytes(100), "UNKNOWN_FORMAT"),
        (b"<html>not found</html>", "UNKNOWN_FORMAT"),
        (b"PK\x03\x04" + bytes(50), "TRUNCATED"),
        (b"\x1f\x8b" + bytes(50), "BAD_IMAGE"),
        (gzip.compress(b"a text"), "UNKNOWN_FORMAT"),
        (b"\xff\xd8\xff\xe0" + bytes(50), "TRUNCATED"),
    ],
)
def test_what_is_no_image_is_told_by_its_first_bytes(content, expected):
    assert code(content) == expected


def test_a_picture_of_ultrasound_needs_somebodys_word_that_no_name_is_in_it():
    assert code(picture(RAMP), modality="US") == "BURNED_IN"
    assert code(picture(RAMP), modality="US", is_clean=True) == "decoded"
    assert code(picture(RAMP), modality="DX") == "decoded"
