import hashlib
import os

import numpy as np
import pyarrow as pa
import pytest

from medpipe import contracts
from medpipe.errors import DataError
from medpipe.imaging.blocks import BLOCK_BYTES, joined
from medpipe.imaging.formats import CODES as FILE_CODES
from medpipe.imaging.formats import Image, Limits
from medpipe.imaging.reading import images
from medpipe.standardise.image_rows import CODES, canonical_id, reasons_of
from medpipe.standardise.images import Decoder
from tests.images import RAMP, nifti, npz, picture

RECEIVED = pa.schema(
    [
        ("file", pa.string()),
        ("is_listed", pa.bool_()),
        ("sha256", pa.string()),
        ("num_images", pa.int64()),
        ("record_hash", pa.string()),
        ("occurrence", pa.int32()),
        ("fields", pa.map_(pa.string(), pa.string())),
        ("corrupt", pa.string()),
        ("is_conflict", pa.bool_()),
        ("raw", pa.string()),
    ]
)


def rows_of(folder, files, decoder=None, **fields):
    """What becomes of files, each with a row of the manifest that says the same of it."""
    rows = []
    for number, (name, content) in enumerate(files.items()):
        (folder / name).write_bytes(content)
        row = {"file": name, "is_listed": True, "sha256": hashlib.sha256(content).hexdigest(), "num_images": 1}
        row |= {"record_hash": f"h{number}", "occurrence": 1, "fields": [("path", name), *fields.items()]}
        rows.append(row | {"corrupt": None, "is_conflict": False, "raw": "{}"})
    batch = pa.RecordBatch.from_pylist(rows, RECEIVED)
    found = (decoder or Decoder(folder, Limits()))([batch])
    return [row for part in found for row in part.to_pylist()]


def test_an_image_that_kills_its_process_is_told_and_the_others_are_decoded(tmp_path):
    def deadly(content, limits, modality, is_clean):
        if b"IDAT" not in content:
            os._exit(9)
        yield from images(content, limits, modality, is_clean)

    files = {"a.png": picture(RAMP), "b.jpg": picture(RAMP, "JPEG"), "c.png": picture(RAMP[::-1].copy())}
    found = rows_of(tmp_path, files, Decoder(tmp_path, Limits(), deadly))
    assert [(row["file"], row["reasons"]) for row in found] == [
        ("a.png", []),
        ("b.jpg", ["DECODER_DIED"]),
        ("c.png", []),
    ]


def test_an_image_that_takes_all_memory_is_refused(tmp_path):
    def greedy(content, limits, modality, is_clean):
        yield Image(np.ones((1, 2**35), np.uint8), "png")

    (found,) = rows_of(tmp_path, {"a.png": picture(RAMP)}, Decoder(tmp_path, Limits(), greedy))
    assert found["reasons"] == ["IMAGE_TOO_LARGE"]


def test_a_file_that_was_changed_since_bronze_stops_the_job(tmp_path):
    def other(folder, limits):
        (folder / "a.png").write_bytes(picture(RAMP // 2))
        return Decoder(folder, limits)

    class Late:
        def __call__(self, batches):
            return other(tmp_path, Limits())(batches)

    with pytest.raises(DataError, match="FILE_CHANGED"):
        rows_of(tmp_path, {"a.png": picture(RAMP)}, Late())


def test_a_volume_is_cut_into_blocks_of_whole_slices_with_their_mask(tmp_path):
    voxels = np.arange(160 * 160 * 200, dtype=np.int32).reshape(160, 160, 200) % 4001
    classes = (voxels > 4000 // 2).astype(np.uint8)
    (tmp_path / "m.nii.gz").write_bytes(nifti(classes))
    found = rows_of(tmp_path, {"v.nii.gz": nifti(voxels.astype(np.int16))}, mask="m.nii.gz")
    size = BLOCK_BYTES // (160 * 160 * 2)
    assert [row["num_slices"] for row in found] == [size, size, 200 - 2 * size]
    assert [(row["block"], row["num_blocks"]) for row in found] == [(0, 3), (1, 3), (2, 3)]
    pixels = joined([row["pixels"] for row in found], found[0]["dtype"], (200, 160, 160))
    assert (pixels == voxels.transpose(2, 1, 0)).all()
    assert (joined([row["mask"] for row in found], "uint8", (200, 160, 160)) == classes.transpose(2, 1, 0)).all()


def test_equal_pixels_have_one_digest_whatever_file_they_come_in(tmp_path):
    found = rows_of(tmp_path, {"a.png": picture(RAMP), "a.tif": picture(RAMP, "TIFF"), "b.png": picture(RAMP // 2)})
    png, tiff, other = (row["pixels_sha256"] for row in found)
    assert png == tiff != other
    assert len({row["image_key"] for row in found}) == 3


def test_the_labels_of_an_archive_must_be_classes(tmp_path):
    content = npz(images=np.stack([RAMP]), labels=np.array([-3]))
    (found,) = rows_of(tmp_path, {"a.npz": content})
    assert found["reasons"] == ["BAD_LABEL"]


@pytest.mark.parametrize(
    "fields, code",
    [
        ({"label": "1000"}, "BAD_LABEL"),
        ({"label": "-1"}, "BAD_LABEL"),
        ({"label": "1.0"}, "BAD_LABEL"),
        ({"modality": "ct"}, "BAD_MODALITY"),
        ({"modality": "SR"}, "BAD_MODALITY"),
        ({"patient_id": "7\a"}, "BAD_PATIENT_ID"),
        ({"patient_id": "M\ufffdller"}, "BAD_PATIENT_ID"),
        ({"patient_id": "x" * 65}, "BAD_PATIENT_ID"),
    ],
)
def test_what_the_manifest_says_of_an_image_must_be_readable(fields, code):
    row = {"fields": fields, "corrupt": None, "is_listed": True, "is_conflict": False}
    assert reasons_of(row) == [code]


def test_a_field_of_blanks_says_nothing(tmp_path):
    (found,) = rows_of(tmp_path, {"a.png": picture(RAMP)}, label=" ", modality=" ", patient_id=" ", mask=" ")
    assert [found[name] for name in ("reasons", "label", "modality", "patient_key")] == [[], None, None, None]


@pytest.mark.parametrize(
    "told, kept", [("007", "7"), (" 7.0 ", "7"), ("000", "0"), ("A-07 ", "A-07"), ("", None), (None, None), ("٣", "٣")]
)
def test_a_patients_id_is_spelt_as_in_the_other_deliveries(told, kept):
    assert canonical_id(told) == kept


def test_the_contract_lists_every_code():
    doc = contracts.load("silver.image").struct["image_id"].metadata["comment"]
    assert [code for code in {**CODES, **FILE_CODES} if code not in doc] == []
