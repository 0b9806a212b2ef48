"""What a row of the manifest and its image say, as rows of one shape; and what is wrong with what they say."""

import hashlib
import re
from collections.abc import Iterator
from itertools import repeat

import numpy as np
import pyarrow as pa

from medpipe.imaging import blocks
from medpipe.imaging.dicom import MODALITIES
from medpipe.imaging.formats import Image, ImageError

CODES = {
    "BAD_LABEL": "the label is no whole number from 0 to 999",
    "BAD_MODALITY": "the modality is no DICOM code of images",
    "BAD_PATIENT_ID": "the patient's id is longer than 64 characters, or has some that are not printed or no UTF-8",
    "DECODER_DIED": "decoding it kills the process that does it, or does not end",
    "FIELD_COUNT": "the manifest's line has other fields than its header",
    "KEY_CONFLICT": "rows of the manifest say different things of one file",
    "NOT_IN_MANIFEST": "a file that the manifest does not name",
}
MAX_LABEL = 999
DECODED = pa.schema(
    [
        ("record_hash", pa.string()),
        ("occurrence", pa.int32()),
        ("reasons", pa.list_(pa.string())),
        ("fate", pa.string()),
        ("image_key", pa.string()),
        ("patient_key", pa.string()),
        ("is_own_patient", pa.bool_()),
        ("series_key", pa.string()),
        ("instance_number", pa.int32()),
        ("modality", pa.string()),
        ("format", pa.string()),
        ("num_frames", pa.int32()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("channels", pa.int32()),
        ("dtype", pa.string()),
        ("slice_spacing_mm", pa.float64()),
        ("row_spacing_mm", pa.float64()),
        ("column_spacing_mm", pa.float64()),
        ("window_center", pa.float64()),
        ("window_width", pa.float64()),
        ("label", pa.int32()),
        ("has_mask", pa.bool_()),
        ("pixels_sha256", pa.string()),
        ("block", pa.int32()),
        ("num_blocks", pa.int32()),
        ("num_slices", pa.int32()),
        ("pixels", pa.binary()),
        ("mask", pa.binary()),
        ("file", pa.string()),
        ("raw", pa.string()),
    ]
)


def reasons_of(row: dict) -> list[str]:
    """Codes of what is wrong with a row of the manifest, whatever its file is."""
    fields = _fields(row)
    if row["corrupt"] is not None:
        return ["FIELD_COUNT"]
    if not row["is_listed"]:
        return ["NOT_IN_MANIFEST"]
    wrong = {
        "KEY_CONFLICT": row["is_conflict"],
        "BAD_MODALITY": fields.get("modality", "CT") not in MODALITIES,
        "BAD_LABEL": re.fullmatch(r"\d{1,3}", fields.get("label", "0"), re.ASCII) is None,
        "BAD_PATIENT_ID": not is_identifier(fields.get("patient_id", "")),
    }
    return [code for code, is_wrong in wrong.items() if is_wrong]


def is_identifier(text: str) -> bool:
    """Printed characters, 64 at most; none that stands for bytes which were no UTF-8."""
    return text.isprintable() and len(text) <= 64 and "\ufffd" not in text


def canonical_id(text: str | None) -> str | None:
    """As values.integer_id spells a whole number; another id without the blanks around it. None for none."""
    text = (text or "").strip()
    whole = re.fullmatch(r"0*(\d+?)(\.0*)?", text, re.ASCII)
    return whole[1] if whole else text or None


def _fields(row: dict) -> dict[str, str]:
    """What the manifest says, without the blanks around it and what is then empty."""
    return {name: text.strip() for name, text in row["fields"].items() if text.strip()}


def own_reasons(image: Image) -> list[str]:
    """What is wrong with what the file says of the image."""
    wrong = {
        "BAD_LABEL": image.label is not None and not 0 <= image.label <= MAX_LABEL,
        "BAD_PATIENT_ID": not is_identifier(image.patient or ""),
        "BAD_MODALITY": image.modality is not None and image.modality not in MODALITIES,
    }
    return [code for code, is_wrong in wrong.items() if is_wrong]


def name_of(row: dict, place: int) -> str:
    """The row's own name, for the only image of its file; else one made of it and the place in the file."""
    if row["num_images"] == 1:
        return row["record_hash"]
    return hashlib.sha256(f"{row['record_hash']}/{place}".encode()).hexdigest()[:32]


def whose(row: dict, image: Image | ImageError | None) -> dict:
    """What DECODED says of the patient: the manifest's word, else the file's own; None where neither tells."""
    own = canonical_id(_fields(row).get("patient_id"))
    in_file = image.patient if image and is_identifier(image.patient or "") else None
    return {"patient_key": own or canonical_id(in_file), "is_own_patient": own is not None}


def told(row: dict, place: int, image: Image) -> dict:
    """What DECODED says of an accepted image beside its pixels."""
    fields = _fields(row)
    label = image.label if image.label is not None else fields.get("label")
    slices, rows, columns = image.spacing_mm
    centre, width = image.window or (None, None)
    return whose(row, image) | {
        # A file that is delivered again under the same name with the same content is the same image.
        "image_key": f"{row['file']}\0{place}\0{row['sha256']}",
        "series_key": image.series,
        "instance_number": image.instance_number,
        "modality": image.modality or fields.get("modality"),
        "format": image.format,
        "num_frames": image.num_frames,
        "height": image.height,
        "width": image.width,
        "channels": image.channels,
        "dtype": image.pixels.dtype.name,
        "slice_spacing_mm": slices,
        "row_spacing_mm": rows,
        "column_spacing_mm": columns,
        "window_center": centre,
        "window_width": width,
        "label": None if label is None else int(label),
    }


def in_blocks(said: dict, image: Image, mask: np.ndarray | None) -> Iterator[dict]:
    """The rows of an accepted image, each with all that is said of it."""
    size = blocks.slices_per_block(image.pixels)
    num_blocks = -(-image.num_frames // size)
    digest = hashlib.sha256(f"{image.pixels.dtype.name} {image.pixels.shape} ".encode())
    for part in blocks.cut(image.pixels, size):
        digest.update(part)
    masked = blocks.cut(mask, size) if mask is not None else repeat(None)
    for block, (part, classes) in enumerate(zip(blocks.cut(image.pixels, size), masked, strict=False)):
        num_slices = min(size, image.num_frames - block * size)
        yield said | {
            "pixels_sha256": digest.hexdigest(),
            "block": block,
            "num_blocks": num_blocks,
            "num_slices": num_slices,
            "pixels": part,
            "mask": classes,
        }
