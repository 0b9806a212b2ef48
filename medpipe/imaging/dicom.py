"""DICOM objects: what the header declares is asked first, then pixels are decoded into the values they stand for.

Stored values become slope * value + intercept (or what the modality table says), MONOCHROME1 is turned round so that
larger is brighter, palettes and YBR become red, green, blue. Nothing of the header goes on but what `Image` names.
Source: DICOM PS3.3 C.7.6.3 (image pixel), C.11.1 (modality LUT), C.11.2 (VOI LUT); PS3.15 annex E (burned-in).
"""

import io
import math
import struct
import warnings
import zlib

import numpy as np
import pydicom
from pydicom.config import disable_value_validation
from pydicom.encaps import generate_frames
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, iter_pixels
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from medpipe.imaging.codestreams import declared_size
from medpipe.imaging.formats import Image, ImageError, Limits, exact

# PS3.3 C.7.3.1.1.1; of these a name may be drawn into the pixels.
MODALITIES = frozenset(
    "AR AS BI BMD CR CT CFM DG DMS DX ECG ES GM IO IVOCT IVUS KER LEN LS MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV "
    "OSS OT PT PX RF RG SC SEG SM SRF TG US VA XA XC".split()
)

# What pydicom raises for an object that is not as it says.
MALFORMED = (
    InvalidDicomError,
    AttributeError,
    ArithmeticError,
    LookupError,
    TypeError,
    ValueError,
    OSError,
    struct.error,
)
MAY_BE_NAMED = frozenset({"US", "IVUS", "SC", "XC", "OT"})
# Secondary capture and its multi-frame kinds, ultrasound, ultrasound multi-frame, VL photographic.
MAY_BE_NAMED_CLASSES = tuple(f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("7", "6.1", "3.1", "77.1.4"))


def decode(content: bytes, limits: Limits, told_modality: str | None = None, is_clean: bool = False) -> Image:
    """The image, in the units its header names.

    Args:
        told_modality: counts where the object has none.
        is_clean: somebody says that nothing is drawn into the pixels; an object that says otherwise is refused.
    Raises:
        ImageError: BAD_IMAGE, BURNED_IN, FALSE_SIZE, IMAGE_TOO_LARGE, NOT_FINITE, NO_PIXELS, TRUNCATED, UNSUPPORTED.
    """
    # pydicom's warnings and errors repeat what stands in the object.
    with warnings.catch_warnings(action="ignore"), disable_value_validation():
        try:
            dataset = _opened(content, limits)
            modality = _text(dataset, "Modality") or told_modality
            _check(dataset, modality, limits, is_clean)
            series, number = _text(dataset, "SeriesInstanceUID"), _integer(dataset, "InstanceNumber", None)
            if not (series or "").isprintable() or abs(number or 0) >= 2**31:
                raise ImageError("BAD_IMAGE")
            pixels, window = _decoded(dataset)
            return Image(
                pixels=pixels,
                format="dicom",
                modality=modality,
                spacing_mm=_spacing(dataset),
                window=window,
                patient=_text(dataset, "PatientID"),
                series=series,
                instance_number=number,
            )
        except ImageError:
            raise
        except EOFError:
            raise ImageError("TRUNCATED") from None
        except RuntimeError:
            # What pydicom's decoders raise where none of them can.
            raise ImageError("UNSUPPORTED") from None
        except MALFORMED:
            raise ImageError("BAD_IMAGE") from None


def patient_of(content: bytes, limits: Limits) -> str | None:
    """The PatientID of an object that is refused; None where there is none, or its header cannot be read."""
    with warnings.catch_warnings(action="ignore"), disable_value_validation():
        try:
            is_deflated = _meta(content)[1] == DeflatedExplicitVRLittleEndian
            # Without the pixels, for they may be what is wrong.
            header = None if is_deflated else pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
            return _text(header or _opened(content, limits), "PatientID")
        except (ImageError, EOFError, RuntimeError, *MALFORMED):
            return None


def _opened(content: bytes, limits: Limits) -> pydicom.Dataset:
    """The dataset; a deflated one is inflated up to the limit and no further, as pydicom would."""
    place, syntax = _meta(content)
    if syntax != DeflatedExplicitVRLittleEndian:
        return pydicom.dcmread(io.BytesIO(content))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        plain = inflater.decompress(content[place:], limits.inflated_bytes)
    except zlib.error:
        raise ImageError("BAD_IMAGE") from None
    if inflater.unconsumed_tail:
        raise ImageError("IMAGE_TOO_LARGE")
    if not inflater.eof:
        raise ImageError("TRUNCATED")
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return pydicom.FileDataset("", read_dataset(io.BytesIO(plain), False, True), file_meta=meta)


def _meta(content: bytes) -> tuple[int, str | None]:
    """Where the file meta group (always explicit little endian, PS3.10 section 7.1) ends; the transfer syntax."""
    place, syntax = 132, None
    while content[place : place + 2] == b"\x02\x00":
        if place + 12 > len(content):
            raise ImageError("TRUNCATED")
        _, element, kind, size = struct.unpack_from("<HH2sH", content, place)
        start = place + 8
        if kind in (b"OB", b"UN", b"OW", b"UT", b"SQ"):
            (size,), start = struct.unpack_from("<I", content, place + 8), place + 12
        if element == 0x0010:
            syntax = content[start : start + size].rstrip(b"\0 ").decode("ascii", "replace")
        place = start + size
    return place, syntax


def _check(dataset: pydicom.Dataset, modality: str | None, limits: Limits, is_clean: bool) -> None:
    """Raises ImageError for what the header alone refuses."""
    if "PixelData" not in dataset:
        raise ImageError("UNSUPPORTED" if _has_float_pixels(dataset) else "NO_PIXELS")
    burned_in = _text(dataset, "BurnedInAnnotation")
    # Modality is required of every image: who leaves it out may have made anything.
    suspect = modality is None or modality in MAY_BE_NAMED
    suspect = suspect or (_text(dataset, "SOPClassUID") or "").startswith(MAY_BE_NAMED_CLASSES)
    if burned_in == "YES" or (suspect and not (burned_in == "NO" or (burned_in is None and is_clean))):
        raise ImageError("BURNED_IN")
    if modality is not None and modality not in MODALITIES:
        # A dose grid or a plan is no picture, and its scaling is another one.
        raise ImageError("UNSUPPORTED")
    height, width, bits = (_integer(dataset, name) for name in ("Rows", "Columns", "BitsAllocated"))
    channels, frames = _integer(dataset, "SamplesPerPixel"), _integer(dataset, "NumberOfFrames", 1) or 1
    limits.require(height, width, frames, channels)
    if channels not in (1, 3) or bits not in (1, 8, 16, 32):
        raise ImageError("UNSUPPORTED")
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        for frame in generate_frames(dataset.PixelData, number_of_frames=frames):
            if declared_size(frame) not in (None, (height, width)):
                raise ImageError("FALSE_SIZE")
        return
    halved = channels == 3 and "422" in str(dataset.PhotometricInterpretation)
    expected = math.ceil(height * width * frames * (2 if halved else channels) * bits / 8)
    found = dataset.PixelData
    if len(found) < expected:
        raise ImageError("TRUNCATED")
    # One byte makes the length even; beyond it there may be zeros.
    if any(found[expected + expected % 2 :]):
        raise ImageError("FALSE_SIZE")


def _decoded(dataset: pydicom.Dataset) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Pixels (F, H, W) or (F, H, W, 3), and the window to show them in."""
    kind = str(dataset.PhotometricInterpretation)
    if kind == "PALETTE COLOR":
        return exact(np.stack([apply_color_lut(frame, dataset) for frame in iter_pixels(dataset)])), None
    if _integer(dataset, "SamplesPerPixel") == 3:
        return exact(np.stack(list(iter_pixels(dataset)))), None
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise ImageError("UNSUPPORTED")
    _take_shared_groups(dataset)
    pixels, window = exact(np.stack([_scaled(frame, dataset) for frame in iter_pixels(dataset)])), _window(dataset)
    return _turned(pixels, window, dataset) if kind == "MONOCHROME1" else (pixels, window)


def _scaled(frame: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Values the stored ones stand for: as stored, int16 or int32 where scaled to whole numbers, else float32."""
    if "ModalityLUTSequence" in dataset:
        return apply_modality_lut(frame, dataset)
    slope, intercept = (_number(dataset, *pair) for pair in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)))
    if not (math.isfinite(slope) and math.isfinite(intercept)) or slope == 0:
        raise ImageError("BAD_IMAGE")
    if slope.is_integer() and intercept.is_integer():
        if (slope, intercept) == (1.0, 0.0):
            return frame
        whole = frame.astype(np.int64) * int(slope) + int(intercept)
        fits = np.iinfo(np.int16).min <= whole.min() and whole.max() <= np.iinfo(np.int16).max
        return whole.astype(np.int16) if fits else whole
    return (frame * np.float64(slope) + intercept).astype(np.float32)


def _turned(
    pixels: np.ndarray, window: tuple[float, float] | None, dataset: pydicom.Dataset
) -> tuple[np.ndarray, tuple[float, float] | None]:
    """MONOCHROME1, where the smallest value is white: each value becomes lowest + highest possible - value."""
    if "ModalityLUTSequence" in dataset:
        low, high = pixels.min().item(), pixels.max().item()
    else:
        bits, is_signed = _integer(dataset, "BitsStored"), _integer(dataset, "PixelRepresentation", 0)
        ends = [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if is_signed else [0, 2**bits - 1]
        low, high = sorted(_scaled(np.array(ends, np.int64), dataset).tolist())
    if pixels.min() < low or pixels.max() > high:
        raise ImageError("BAD_IMAGE")
    # A frame at a time: it is as large for a moment as it would be in 64 bits.
    frames = [(low + high - frame.astype(np.float64)).astype(pixels.dtype) for frame in pixels]
    return np.stack(frames), window and (low + high - window[0], window[1])


def _take_shared_groups(dataset: pydicom.Dataset) -> None:
    """Copies what an enhanced multi-frame object says of all frames to where plain objects say it.

    Raises:
        ImageError: UNSUPPORTED where frames have a scale of their own.
    """
    each = dataset.get("PerFrameFunctionalGroupsSequence") or []
    if any("PixelValueTransformationSequence" in frame for frame in each):
        raise ImageError("UNSUPPORTED")
    for group in dataset.get("SharedFunctionalGroupsSequence") or []:
        for name in ("PixelValueTransformationSequence", "PixelMeasuresSequence", "FrameVOILUTSequence"):
            for item in group.get(name) or []:
                dataset.update({element.tag: element for element in item})


def _window(dataset: pydicom.Dataset) -> tuple[float, float] | None:
    """Centre and width of the first window the header gives; None for none, or one that is none."""
    found = []
    for name in ("WindowCenter", "WindowWidth"):
        value = dataset.get(name)
        value = value[0] if isinstance(value, pydicom.multival.MultiValue) and len(value) else value
        found.append(math.nan if value in (None, "") else float(value))
    centre, width = found
    return (centre, width) if math.isfinite(centre) and math.isfinite(width) and width > 0 else None


def _spacing(dataset: pydicom.Dataset) -> tuple[float | None, float | None, float | None]:
    """Of slices, rows and columns; at the detector where the object has no other."""
    plane = dataset.get("PixelSpacing") or dataset.get("ImagerPixelSpacing") or (None, None)
    slices = dataset.get("SpacingBetweenSlices") or dataset.get("SliceThickness")
    found = [None if value in (None, "") else abs(float(value)) for value in (slices, *plane)]
    if len(found) != 3 or not all(value is None or math.isfinite(value) for value in found):
        raise ImageError("BAD_GEOMETRY")
    return found[0] or None, found[1] or None, found[2] or None


def _has_float_pixels(dataset: pydicom.Dataset) -> bool:
    return "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset


def _text(dataset: pydicom.Dataset, name: str) -> str | None:
    value = dataset.get(name)
    return str(value).strip() or None if isinstance(value, str) else None


def _integer(dataset: pydicom.Dataset, name: str, default: int | None = -1) -> int | None:
    """A missing one is -1, which no size may be, unless a default is given."""
    value = dataset.get(name)
    return default if value in (None, "") else int(value)


def _number(dataset: pydicom.Dataset, name: str, default: float) -> float:
    value = dataset.get(name)
    return default if value in (None, "") else float(value)
