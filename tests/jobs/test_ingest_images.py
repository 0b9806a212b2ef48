"""A delivery of images in which every fault comes once, from the folder to gold.image; and the real X-rays."""

import json
import shutil
from collections import Counter
from datetime import date

import numpy as np
import pytest

from medpipe import job, keys, ledger, settings
from medpipe.errors import DataError, UsageError
from medpipe.imaging.blocks import joined
from medpipe.jobs import build_images, ingest_images
from medpipe.privacy.pseudonyms import pseudonym
from medpipe.privacy.sealing import NUM_KEY_BYTES, unseal
from medpipe.tables import Lake
from tests.deliveries import KEY
from tests.images import RAMP, dicom, nifti, npz, picture, png_of_size

VOXELS = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
STACK = np.stack([RAMP, RAMP[::-1], RAMP // 2])
WORDS = RAMP.astype(np.int16) * 20
CANARIES = ("CANARY", "MRN-7", "anna", "1.2.3.77")

GOOD = [
    # path, patient_id, modality, label, mask, burned_in
    "anna.png,007,DX,1,masks/anna.png,",
    "_under.png,8,DX,0,,",
    ".dot.png,8,DX,,,",
    "sub/copy.png,7,DX,1,,",
    "ct.dcm,,,0,,",
    "us.png,9,US,1,,no",
    "volume.nii.gz,10,MR,,masks/volume.nii.gz,",
    "stack.npz,,,,,",
    "./sub/../colour.png,11,,3,masks/a.png;masks/b.png,",
]
BAD = {
    "/etc/passwd,,,,,": "PATH_ESCAPE",
    "../outside.png,,,,,": "PATH_ESCAPE",
    "file:///etc/passwd,,,,,": "PATH_ESCAPE",
    "sub/../../outside.png,,,,,": "PATH_ESCAPE",
    "nul\0.png,,,,,": "PATH_ESCAPE",
    "link.png,,,,,": "PATH_ESCAPE",
    "missing.png,,,,,": "IMAGE_MISSING",
    "sub,,,,,": "IMAGE_MISSING",
    ",7,,,,": "IMAGE_MISSING",
    "empty.png,,,,,": "EMPTY_FILE",
    "text.png,,,,,": "UNKNOWN_FORMAT",
    "bomb.png,,,,,": "IMAGE_TOO_LARGE",
    "cut.png,,,,,": "TRUNCATED",
    "us.dcm,,,,,": "BURNED_IN",
    "report.dcm,,,,,": "NO_PIXELS",
    "old.zip,,,,,": "ARCHIVE",
    "e1.png,,,anna,,": "BAD_LABEL",
    "e2.png,,XY,,,": "BAD_MODALITY",
    f"e3.png,{'x' * 65},,,,": "BAD_PATIENT_ID",
    "e4.png,,,,masks/small.png,": "MASK_SHAPE",
    "e5.png,,,,masks/none.png,": "MASK_MISSING",
    "e6.png,,,,anna.png,": "MASK_VALUES",
    "e7.png,,,,masks/empty.png,": "MASK_EMPTY",
    "e8.png,,,,text.png,": "BAD_MASK",
    "e9.png,,,,../outside.png,": "PATH_ESCAPE",
    "e0.png,1,,,,,": "FIELD_COUNT",
    "two.png,1,,0,,": "KEY_CONFLICT",
    "two.png,1,,1,,": "KEY_CONFLICT",
}


def deliver(folder):
    """Writes the delivery: GOOD, one of them twice, BAD, and files that no row names."""
    (folder / "masks").mkdir(parents=True)
    (folder / "sub").mkdir()
    png, marked = picture(RAMP), (RAMP > 100).astype(np.uint8)
    files = {name: png for name in ("anna.png", "sub/copy.png", "us.png", "two.png", "unlisted.png")}
    files |= {f"e{number}.png": picture(RAMP // 2 + np.uint8(number)) for number in range(1, 10)}
    files |= {"_under.png": picture(RAMP[::-1].copy()), ".dot.png": picture(RAMP.T.copy())}
    files |= {"colour.png": picture(np.stack([RAMP] * 3, axis=-1)), "stack.npz": npz(images=STACK, labels=[0, 1, 1])}
    files["ct.dcm"] = dicom(WORDS, PatientName="CANARY^Anna", StudyDescription="CANARY", SeriesInstanceUID="1.2.3.77")
    files |= {"us.dcm": dicom(Modality="US"), "report.dcm": dicom(None)}
    files["volume.nii.gz"] = nifti(VOXELS, np.diag([1.0, 2.0, 3.0, 1.0]))
    files["masks/volume.nii.gz"] = nifti((VOXELS % 3).astype(np.uint8), np.diag([1.0, 2.0, 3.0, 1.0]))
    files |= {"masks/anna.png": picture(marked), "masks/small.png": picture(marked[:3])}
    files |= {
        "masks/a.png": picture((RAMP > 200).astype(np.uint8) * 255),
        "masks/b.png": picture((RAMP < 9) * np.uint8(255)),
    }
    files |= {
        "masks/empty.png": picture(marked * 0),
        "empty.png": b"",
        "text.png": b"CANARY text",
        "cut.png": png[:-25],
    }
    files |= {"bomb.png": png_of_size(9000, 9000), "old.zip": npz(other=RAMP), "unlisted.txt": b"CANARY"}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder.parent / "outside.png").write_bytes(png)
    (folder / "link.png").symlink_to(folder.parent / "outside.png")
    rows = ["PATH,patient_id,modality,label,mask,burned_in", *GOOD, GOOD[1], *BAD]
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


def open_at(spark, folder, as_of, **more):
    given = {"lake": str(folder / "lake"), "thresholds": {"images": {"max_bad_ratio": 1.0}}} | more
    configured = settings.load(None, given)
    lake = Lake(spark, configured.lake, configured.phi_root)
    return job.Workplace(lake, configured, date.fromisoformat(as_of), ledger.Ledger.open(lake))


@pytest.fixture(scope="module")
def key():
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MEDPIPE_PSEUDONYM_KEY", KEY)
        yield keys.load("env:MEDPIPE_PSEUDONYM_KEY")


@pytest.fixture(scope="module")
def delivered(key, spark, tmp_path_factory):
    """The folder of the delivery and its lake, after a threshold has stopped it once."""
    folder = tmp_path_factory.mktemp("images")
    deliver(folder / "delivery")
    strict = open_at(spark, folder, "2026-01-31", thresholds={})
    with pytest.raises(DataError, match="TOO_MANY_BAD_ROWS: images: 30 of 41"):
        ingest_images.load(strict, folder / "delivery")
    assert strict.lake.for_run("").read("silver.image").isEmpty()
    ingest_images.load(open_at(spark, folder, "2026-01-31"), folder / "delivery")
    return folder


@pytest.fixture
def lake(delivered, spark):
    return open_at(spark, delivered, "2026-01-31").lake.for_run("")


def test_each_fault_is_told_by_its_code_and_nothing_is_lost(delivered, spark, lake, key):
    refused = lake.read("phi.quarantine").collect()
    subkey = key.subkey("quarantine", NUM_KEY_BYTES)
    raw = [json.loads(unseal(subkey, bytes(row.raw))) for row in refused]
    told = {row.get("corrupt") or row["fields"].get("path", ""): r.reasons for row, r in zip(raw, refused, strict=True)}
    expected = {line.split(",")[0]: [code] for line, code in BAD.items() if code != "FIELD_COUNT"}
    expected |= {line: [code] for line, code in BAD.items() if code == "FIELD_COUNT"}
    expected |= {name: ["NOT_IN_MANIFEST"] for name in ("unlisted.png", "unlisted.txt")}
    assert told == expected
    entry = open_at(spark, delivered, "2026-01-31").ledger.entries[-1]
    numbers = entry.rows_in, entry.rows_out, entry.rows_quarantined, entry.rows_duplicate
    assert numbers == (len(GOOD) + 2 + 1 + len(BAD) + 2, len(GOOD) + 2, len(BAD) + 2, 1)
    assert Counter(row.fate for row in lake.read("phi.fate").collect()) == {
        "accepted": 11,
        "quarantined": 30,
        "duplicate": 1,
    }


def test_what_is_accepted_is_in_silver_pixel_by_pixel(lake, key):
    images = {row.image_id: row for row in lake.read("silver.image").collect()}
    pixels = {row.image_id: row for row in lake.read("silver.image_pixels").collect()}
    assert len(images) == len(pixels) == 11 and images.keys() == pixels.keys()
    hide = lambda space, text: pseudonym(key.subkey("pseudonym"), space, text)  # noqa: E731
    anna = [row for row in images.values() if row.patient_id == hide("patient", "7")]
    assert sorted(row.has_mask for row in anna) == [False, True] and len({row.pixels_sha256 for row in anna}) == 1
    (ct,) = [row for row in images.values() if row.modality == "CT"]
    assert ct.patient_id == hide("dicom/patient", "MRN-7") and ct.series_id == hide("dicom/uid", "1.2.3.77")
    assert (joined([pixels[ct.image_id].pixels], ct.dtype, WORDS.shape) == WORDS).all()
    (volume,) = [row for row in images.values() if row.format == "nifti"]
    shape = (volume.num_frames, volume.height, volume.width)
    assert (volume.slice_spacing_mm, volume.row_spacing_mm, volume.column_spacing_mm) == (3.0, 2.0, 1.0)
    stored = pixels[volume.image_id]
    assert (joined([stored.pixels], volume.dtype, shape) == VOXELS.transpose(2, 1, 0)).all()
    assert (joined([stored.mask], "uint8", shape) == VOXELS.transpose(2, 1, 0) % 3).all()
    (colour,) = [row for row in images.values() if row.channels == 3]
    assert sum(bytes(pixels[colour.image_id].mask)) == ((RAMP > 200) | (RAMP < 9)).sum()
    assert sorted(row.label for row in images.values() if row.format == "npz") == [0, 1, 1]


def test_no_name_or_text_of_the_delivery_leaves_the_phi_root(delivered, lake):
    told = "".join(
        str(lake.read(name).drop("pixels", "mask").collect()) for name in ("silver.image", "silver.image_pixels")
    )
    told += str(lake.read("ops.run").collect())
    told += "".join(file.read_text() for file in (delivered / "lake").rglob("_delta_log/*.json"))
    assert len(told) > 10_000 and [canary for canary in CANARIES if canary.lower() in told.lower()] == []


def test_the_same_delivery_again_writes_nothing_also_under_a_later_date(delivered, spark, capsys):
    for as_of in ("2026-01-31", "2026-02-05"):
        work = open_at(spark, delivered, as_of)
        before = {name: work.lake.for_run("").version(name) for name in ("silver.image", "phi.fate", "bronze.image")}
        (outcome,) = ingest_images.load(work, delivered / "delivery")
        assert outcome.status == "skipped"
        assert {name: work.lake.for_run("").version(name) for name in before} == before
    assert "42 images delivered: 11 accepted, 1 exact copies, 30 quarantined" in capsys.readouterr().out


def test_gold_has_the_grey_images_of_a_role_and_says_what_it_leaves_out(delivered, spark, capsys):
    work = open_at(spark, delivered, "2026-01-31", images={"height": 3, "width": 4})
    job.announce(work.run(build_images.main, role="fit") + work.run(build_images.main, role="apply"))
    gold = work.lake.for_run("").read("gold.image", work.as_of).collect()
    fit, apply = ([row for row in gold if row.role == role] for role in ("fit", "apply"))
    assert Counter(row.label for row in fit) == {1: 5, 0: 3} and Counter(row.label for row in apply) == {
        1: 5,
        0: 3,
        -1: 2,
    }
    assert {(row.height, row.width, len(row.pixels)) for row in gold} == {(3, 4, 12)}
    assert "3 of 11 images are not in gold.image: NO_LABEL 1, OTHER_LABEL 1, VOLUME 1" in capsys.readouterr().out
    splits = {}
    images = {row.image_id: row.patient_id for row in work.lake.for_run("").read("silver.image").collect()}
    for row in gold:
        splits.setdefault(images[row.image_id] or row.image_id, set()).add(row.split)
    assert all(len(found) == 1 for found in splits.values())


def test_a_label_that_is_corrected_holds_from_then_on(delivered, spark, tmp_path):
    for name in ("lake", "lake-phi"):
        shutil.copytree(delivered / name, tmp_path / name)
    folder = tmp_path / "correction"
    folder.mkdir()
    (folder / "anna.png").write_bytes((delivered / "delivery" / "anna.png").read_bytes())
    (folder / "manifest.csv").write_text("path,patient_id,label\nanna.png,7,0\n")
    (folder / "delivery.toml").write_text("delivered_at = 2026-01-31T22:00:00\n")
    with pytest.raises(UsageError, match="LATER_DELIVERY"):
        ingest_images.load(open_at(spark, tmp_path, "2026-01-31"), folder)
    work = open_at(spark, tmp_path, "2026-02-01")
    ingest_images.load(work, folder)
    known = [work.lake.for_run("").read("silver.image", date(2026, *day)).collect() for day in ((1, 31), (2, 1))]
    before, after = ({row.image_id: row.label for row in rows} for rows in known)
    assert before.keys() == after.keys()
    assert [(before[image], after[image]) for image in before if before[image] != after[image]] == [(1, 0)]


def test_the_real_x_rays_of_the_validation_part_reach_gold(key, spark, shared_data, tmp_path):
    arrays = np.load(shared_data / "img_pneumoniamnist" / "pneumoniamnist_train_val.npz")
    (tmp_path / "delivery").mkdir()
    content = npz(val_images=arrays["val_images"], val_labels=arrays["val_labels"])
    (tmp_path / "delivery" / "xrays.npz").write_bytes(content)
    work = open_at(spark, tmp_path, "2026-01-31", thresholds={})
    ingest_images.load(work, tmp_path / "delivery")
    work.run(build_images.main, role="fit")
    gold = work.lake.for_run("").read("gold.image", work.as_of, {"role": "fit"}).collect()
    assert Counter(row.label for row in gold) == {0: 135, 1: 389}
    assert Counter(bytes(row.pixels) for row in gold) == Counter(image.tobytes() for image in arrays["val_images"])
    shares = Counter(row.split for row in gold)
    assert shares["train"] > 270 and shares["tune"] > 60 and shares["test"] > 60
