"""PNG, JPEG and TIFF: what the header declares is asked before Pillow decodes, and each kind has its rule.

Grey stays grey, 1 bit becomes 0 and 255, 16 bit stays 16 bit; a palette and CMYK become red, green, blue; an alpha
channel is dropped if it is opaque everywhere. Pixels are taken as stored: neither gamma, colour profile nor EXIF
orientation is applied. Refused: animated or of several pages (ANIMATED), transparent (TRANSPARENT), colours of 16 bits
(UNSUPPORTED, for Pillow would cut them to 8).
"""

import io
import struct
import warnings
import zlib

import numpy as np
import PIL.Image

from medpipe.imaging.formats import Image, ImageError, Limits, exact

PILLOW = {"png": "PNG", "jpeg": "JPEG", "tiff": "TIFF"}
GREY = {"1", "L", "I", "F", "I;16", "I;16L", "I;16B"}
COLOURS = {"RGB", "P", "CMYK", "YCbCr"}


def decode(content: bytes, kind: str, limits: Limits, keep_palette: bool = False) -> Image:
    """The picture.

    Args:
        kind: png, jpeg or tiff.
        keep_palette: a palette's numbers instead of its colours, as masks have their classes.
    Raises:
        ImageError: ANIMATED, BAD_IMAGE, IMAGE_TOO_LARGE, NOT_FINITE, TRANSPARENT, TRUNCATED, UNSUPPORTED.
    """
    if kind == "png":
        _check_png(content, limits)
    try:
        file = io.BytesIO(content)
        with warnings.catch_warnings(action="ignore"), PIL.Image.open(file, formats=[PILLOW[kind]]) as picture:
            width, height = picture.size
            limits.require(height, width, channels=max(len(picture.getbands()), 1))
            if getattr(picture, "n_frames", 1) > 1:
                raise ImageError("ANIMATED")
            picture.load()
            values = _values(picture, keep_palette)
    except PIL.Image.DecompressionBombError:
        raise ImageError("IMAGE_TOO_LARGE") from None
    except PIL.UnidentifiedImageError:
        raise ImageError(_unread(content, kind)) from None
    except (OSError, SyntaxError, EOFError, ValueError, struct.error) as failure:
        raise ImageError("TRUNCATED" if "truncated" in str(failure).lower() else "BAD_IMAGE") from None
    return Image(exact(values)[np.newaxis], kind)


def _values(picture: PIL.Image.Image, keep_palette: bool) -> np.ndarray:
    """(H, W) or (H, W, 3)."""
    if picture.mode == "P" and keep_palette:
        return np.asarray(picture)
    if picture.mode in ("LA", "RGBA") or "transparency" in picture.info:
        whole = picture.convert("LA" if picture.mode in ("L", "LA") else "RGBA")
        if whole.getchannel("A").getextrema() != (255, 255):
            raise ImageError("TRANSPARENT")
        return np.asarray(whole.convert("L" if whole.mode == "LA" else "RGB"))
    if picture.mode == "1":
        return np.asarray(picture.convert("L"))
    if picture.mode in GREY:
        return np.asarray(picture)
    if picture.mode in COLOURS:
        return np.asarray(picture.convert("RGB"))
    raise ImageError("UNSUPPORTED")


def _check_png(content: bytes, limits: Limits) -> None:
    """Every chunk is whole and has its checksum, which Pillow does not ask of the pixels.

    Source: Portable Network Graphics (third edition), sections 5.3 and 11.2.1.
    """
    place, names, bits, colour = 8, [], 0, 0
    while place < len(content):
        if place + 8 > len(content):
            raise ImageError("TRUNCATED")
        size, name = struct.unpack_from(">I4s", content, place)
        end = place + 12 + size
        if end > len(content):
            raise ImageError("TRUNCATED")
        if name == b"IHDR" and size == 13:
            width, height, bits, colour = struct.unpack_from(">IIBB", content, place + 8)
            limits.require(height, width)
        if zlib.crc32(content[place + 4 : end - 4]) != struct.unpack_from(">I", content, end - 4)[0]:
            raise ImageError("BAD_IMAGE")
        names.append(name)
        place = end
        if name == b"IEND":
            break
    if not names or names[0] != b"IHDR":
        raise ImageError("BAD_IMAGE")
    if names[-1] != b"IEND":
        raise ImageError("TRUNCATED")
    if b"acTL" in names:
        raise ImageError("ANIMATED")
    if bits == 16 and colour != 0:
        raise ImageError("UNSUPPORTED")


def _unread(content: bytes, kind: str) -> str:
    """Pillow does not say why it knows no picture in a file that begins like one."""
    if kind == "jpeg" and b"\xff\xd9" not in content[-64:]:
        return "TRUNCATED"
    return "BAD_IMAGE" if kind == "jpeg" else "UNSUPPORTED"
