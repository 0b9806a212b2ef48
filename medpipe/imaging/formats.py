"""What an image is here, which formats are read, why one is refused, and how much of anything is read."""

import zlib
from dataclasses import dataclass

import numpy as np

# Code -> what it says; the only words that leave a refused file.
CODES = {
    "ANIMATED": "an animated picture, or one of several pages",
    "ARCHIVE": "an archive without arrays of images: unpack it and deliver the files",
    "BAD_GEOMETRY": "spacing or affine is not finite, or has no volume",
    "BAD_IMAGE": "the content does not follow its own format",
    "BAD_MASK": "the mask cannot be read as an image",
    "BURNED_IN": "ultrasound, secondary capture, photograph or other, and nobody says that no name is drawn into it",
    "EMPTY_FILE": "0 bytes",
    "FALSE_SIZE": "other pixels are there than the header declares",
    "IMAGE_MISSING": "no such file in the delivery",
    "IMAGE_TOO_LARGE": "more bytes, pixels, frames or bytes after inflating than the limits allow",
    "MASK_EMPTY": "the mask marks nothing",
    "MASK_MISSING": "no such mask in the delivery",
    "MASK_SHAPE": "the mask is of another size or place than its image, or has colours",
    "MASK_VALUES": "the mask holds other than class numbers",
    "NOT_FINITE": "pixels that are no numbers",
    "NO_PIXELS": "a DICOM object without pixels",
    "PATH_ESCAPE": "the path leads out of the delivery",
    "TRANSPARENT": "a picture that is transparent somewhere: what is seen there is not in the file",
    "TRUNCATED": "the file ends too early",
    "UNKNOWN_FORMAT": "no format that is read, by its first bytes",
    "UNSUPPORTED": "a known format, but a kind of it that no decoder here takes without loss",
}
# Pixels are kept in the smallest of these that holds their values exactly.
INTEGERS = (np.uint8, np.int16, np.uint16, np.int32)

# zlib's word for a stream with gzip's header and checksum.
GZIP = 16 + zlib.MAX_WBITS
CHUNK_BYTES = 2**20


class ImageError(Exception):
    """A file that is not taken; `code` is one of CODES.

    patient: identifier in its header, where that could be read; no message has it, and it leaves as a pseudonym only.
    """

    def __init__(self, code: str, patient: str | None = None) -> None:
        super().__init__(code)
        self.code, self.patient = code, patient


@dataclass(frozen=True)
class Limits:
    """What is looked at before anything is decoded.

    Attributes:
        file_bytes: of a file as delivered.
        inflated_bytes: of what is compressed as a whole: deflated DICOM, NIfTI in gzip, an array of an archive.
        frame_pixels: of one frame or slice; the largest mammograms have 24 million.
        values: of all frames and channels of one image.
        frames: of one image.
        images: of one archive.
    """

    file_bytes: int = 512 * 2**20
    inflated_bytes: int = 1024 * 2**20
    frame_pixels: int = 50_000_000
    values: int = 128 * 2**20
    frames: int = 10_000
    images: int = 1_000_000

    def require(self, height: int, width: int, frames: int = 1, channels: int = 1) -> None:
        """Raises ImageError: BAD_IMAGE where a size is not positive, IMAGE_TOO_LARGE."""
        if min(height, width, frames, channels) < 1:
            raise ImageError("BAD_IMAGE")
        values = height * width * frames * channels
        if height * width > self.frame_pixels or frames > self.frames or values > self.values:
            raise ImageError("IMAGE_TOO_LARGE")


@dataclass(frozen=True, eq=False)
class Image:
    """One decoded image.

    Attributes:
        pixels: (frames, height, width), or (frames, height, width, 3) for red, green, blue; larger is brighter.
        format: png, jpeg, tiff, dicom, nifti or npz.
        modality: DICOM's code, where the file says it.
        spacing_mm: distance of slices, rows and columns; None where the file does not say it.
        window: centre and width of the values to be shown, where the file says them.
        patient: identifier in the file; leaves as a pseudonym only.
        series: SeriesInstanceUID; leaves as a pseudonym only.
        instance_number: place in its series.
        label: class, where an archive gives one.
        affine: (4, 4) from voxel to millimetres, of a volume that says it.
    """

    pixels: np.ndarray
    format: str
    modality: str | None = None
    spacing_mm: tuple[float | None, float | None, float | None] = (None, None, None)
    window: tuple[float, float] | None = None
    patient: str | None = None
    series: str | None = None
    instance_number: int | None = None
    label: int | None = None
    affine: np.ndarray | None = None

    @property
    def num_frames(self) -> int:
        return self.pixels.shape[0]

    @property
    def height(self) -> int:
        return self.pixels.shape[1]

    @property
    def width(self) -> int:
        return self.pixels.shape[2]

    @property
    def channels(self) -> int:
        return 1 if self.pixels.ndim == 3 else self.pixels.shape[3]


def format_of(content: bytes) -> str:
    """png, jpeg, tiff, dicom, nifti or zip, by its first bytes; of gzip by the first that it inflates to.

    Raises:
        ImageError: EMPTY_FILE, UNKNOWN_FORMAT; BAD_IMAGE for what begins like gzip and is none.
    """
    if not content:
        raise ImageError("EMPTY_FILE")
    # First, for its preamble may be the beginning of a TIFF (DICOM PS3.10, section 7.1).
    if content[128:132] == b"DICM":
        return "dicom"
    starts = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg", b"II*\0": "tiff", b"MM\0*": "tiff", b"PK": "zip"}
    for start, name in starts.items():
        if content.startswith(start):
            return name
    head = content[:540]
    if content.startswith(b"\x1f\x8b"):
        head, _ = inflated(content, 540)
    if head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0"):
        return "nifti"
    raise ImageError("UNKNOWN_FORMAT")


def inflated(content: bytes, num_bytes: int) -> tuple[bytes, bool]:
    """Up to num_bytes of what a gzip file holds, and whether that is all, with its checksum; no more is inflated.

    Raises:
        ImageError: BAD_IMAGE.
    """
    inflater, parts, size = zlib.decompressobj(GZIP), [], 0
    for start in range(0, len(content), CHUNK_BYTES):
        data = content[start : start + CHUNK_BYTES]
        while data and size < num_bytes:
            if inflater.eof:
                # Files may have several members, with zeros between them (RFC 1952, section 2.2).
                inflater, data = zlib.decompressobj(GZIP), data.lstrip(b"\0")
            try:
                part = inflater.decompress(data, num_bytes - size)
            except zlib.error:
                raise ImageError("BAD_IMAGE") from None
            parts.append(part)
            size += len(part)
            data = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
    return b"".join(parts), inflater.eof


def exact(values: np.ndarray) -> np.ndarray:
    """The same numbers in the smallest of INTEGERS, or float32 where they are not whole.

    Raises:
        ImageError: NOT_FINITE; UNSUPPORTED for whole numbers beyond 32 bits.
    """
    if values.dtype == bool:
        return values.astype(np.uint8)
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            values = values.astype(np.float32, copy=False)
        if not np.isfinite(values).all():
            raise ImageError("NOT_FINITE")
        return values
    if values.dtype.newbyteorder("=") in [np.dtype(kind) for kind in INTEGERS]:
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    low, high = int(values.min()), int(values.max())
    for kind in INTEGERS:
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return values.astype(kind)
    raise ImageError("UNSUPPORTED")
