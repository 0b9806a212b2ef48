import io
import re
import struct
import tracemalloc
import warnings
import zipfile
import zlib
from collections import Counter

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, UltrasoundImageStorage

from medpipe.imaging import dicom as reader
from medpipe.imaging.codestreams import declared_size
from medpipe.imaging.formats import CODES, ImageError, Limits
from medpipe.imaging.reading import images
from tests.images import RAMP, dicom, picture

WORDS = (RAMP.astype(np.int16) * 20) - 300


def read(content, limits=None, **more):
    (found,) = images(content, limits or Limits(), **more)
    return found


def code(content, limits=None, **more):
    found = read(content, limits, **more)
    return found.code if isinstance(found, ImageError) else "decoded"


def test_values_are_slope_times_stored_plus_intercept():
    found = read(dicom(RAMP.astype(np.uint16), RescaleSlope=2, RescaleIntercept=-1024))
    assert found.pixels.dtype == np.int16 and (found.pixels[0] == RAMP * 2.0 - 1024).all()
    found = read(dicom(RAMP.astype(np.uint16), RescaleSlope=0.5, RescaleIntercept=0))
    assert found.pixels.dtype == np.float32 and (found.pixels[0] == RAMP * 0.5).all()


def test_values_beyond_sixteen_bits_are_kept():
    found = read(dicom(RAMP.astype(np.uint16) * 200, RescaleSlope=10, RescaleIntercept=0))
    assert found.pixels.dtype == np.int32 and (found.pixels[0] == RAMP * 2000.0).all()


@pytest.mark.parametrize("tags", [{"RescaleSlope": 0}, {"RescaleSlope": "1e400"}])
def test_a_slope_that_would_make_every_pixel_one_value_is_refused(tags):
    assert code(dicom(RAMP, RescaleIntercept=0, **tags)) == "BAD_IMAGE"


def test_monochrome1_is_turned_round_with_its_window():
    told = {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": 100, "WindowWidth": 50}
    found = read(dicom(RAMP, **told))
    assert (found.pixels[0] == 255 - RAMP).all() and found.window == (155.0, 50.0)
    found = read(dicom(WORDS, RescaleSlope=1, RescaleIntercept=10, **told))
    assert (found.pixels[0] == -1 + 20 - (WORDS + 10)).all()


def test_header_values_that_may_pass_do_and_no_others():
    found = read(
        dicom(
            WORDS,
            PixelSpacing=[0.5, 0.25],
            SliceThickness=3,
            WindowCenter=[40, 80],
            WindowWidth=[400, 20],
            InstanceNumber=12,
            PatientName="Canary^Anna",
            StudyDescription="CANARY",
        )
    )
    assert (found.modality, found.spacing_mm, found.window) == ("CT", (3.0, 0.5, 0.25), (40.0, 400.0))
    assert (found.patient, found.series, found.instance_number) == ("MRN-7", "1.2.3", 12)
    assert "anary" not in re.sub(r"(?i)canary_", "", repr(found))


def test_frames_are_slices_and_colours_stay():
    frames = np.stack([WORDS, WORDS + 7])
    assert (read(dicom(frames)).pixels == frames).all()
    colours = np.stack([RAMP, RAMP[::-1], RAMP // 2], axis=-1)
    assert (read(dicom(colours)).pixels[0] == colours).all()


def test_what_an_enhanced_object_says_of_all_frames_holds():
    scale, measures = pydicom.Dataset(), pydicom.Dataset()
    scale.RescaleSlope, scale.RescaleIntercept = 1, -1000
    measures.PixelSpacing, measures.SliceThickness = [0.7, 0.7], 2
    shared = pydicom.Dataset()
    shared.PixelValueTransformationSequence, shared.PixelMeasuresSequence = [scale], [measures]
    frames = np.stack([RAMP, RAMP]).astype(np.uint16)
    found = read(dicom(frames, SharedFunctionalGroupsSequence=[shared]))
    assert (found.pixels == frames.astype(int) - 1000).all() and found.spacing_mm == (2.0, 0.7, 0.7)
    own = pydicom.Dataset()
    own.PixelValueTransformationSequence = [scale]
    assert code(dicom(frames, PerFrameFunctionalGroupsSequence=[own, own])) == "UNSUPPORTED"


@pytest.mark.parametrize(
    "tags, expected",
    [
        ({"Rows": 60}, "TRUNCATED"),
        ({"Columns": 7}, "FALSE_SIZE"),
        ({"Rows": 0}, "BAD_IMAGE"),
        ({"Rows": None}, "BAD_IMAGE"),
        ({"Rows": 65535, "Columns": 65535}, "IMAGE_TOO_LARGE"),
        ({"NumberOfFrames": 2_000_000}, "IMAGE_TOO_LARGE"),
        ({"BitsAllocated": 64, "BitsStored": 64, "HighBit": 63}, "UNSUPPORTED"),
        ({"InstanceNumber": 2**40}, "BAD_IMAGE"),
        ({"Modality": "RTDOSE"}, "UNSUPPORTED"),
        ({"PhotometricInterpretation": "HSV"}, "UNSUPPORTED"),
    ],
)
def test_a_header_that_does_not_fit_the_pixels_is_refused(tags, expected):
    assert code(dicom(RAMP, **tags)) == expected


def test_no_pixels_a_cut_file_and_an_unknown_syntax_are_refused():
    assert code(dicom(None)) == "NO_PIXELS"
    whole = dicom(RAMP)
    assert code(whole[:-20]) in ("TRUNCATED", "BAD_IMAGE")
    assert code(whole[:140]) in ("TRUNCATED", "BAD_IMAGE", "NO_PIXELS")
    assert code(whole.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.99999.1.2.1\0")) in ("UNSUPPORTED", "BAD_IMAGE")


@pytest.mark.parametrize("modality, clean", [("US", None), ("OT", None), ("SC", "YES"), ("CT", "YES"), (None, None)])
def test_what_may_have_a_name_drawn_into_it_is_refused(modality, clean):
    assert code(dicom(RAMP, Modality=modality, BurnedInAnnotation=clean)) == "BURNED_IN"
    assert code(dicom(RAMP, Modality=modality, BurnedInAnnotation="NO")) == "decoded"


def test_the_class_of_an_object_may_say_that_it_is_ultrasound_and_the_manifest_that_it_is_clean():
    ultrasound = dicom(RAMP, SOPClassUID=UltrasoundImageStorage)
    assert code(ultrasound) == "BURNED_IN" and code(ultrasound, is_clean=True) == "decoded"
    assert code(dicom(RAMP, BurnedInAnnotation="YES"), is_clean=True) == "BURNED_IN"


def test_a_deflated_object_is_read_and_a_deflate_bomb_is_not():
    assert (read(dicom(RAMP, deflate=True)).pixels[0] == RAMP).all()
    whole = dicom(RAMP, deflate=True)
    place = reader._meta(whole)[0]
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = deflater.compress(bytes(64 * 2**20)) + deflater.flush()
    tracemalloc.start()
    assert code(whole[:place] + bomb, Limits(inflated_bytes=2**20)) == "IMAGE_TOO_LARGE"
    assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    tracemalloc.stop()
    assert code(whole[:-8]) in ("TRUNCATED", "BAD_IMAGE")


def compressed(frame, rows, columns):
    content = pydicom.dcmread(io.BytesIO(dicom(np.zeros((rows, columns), np.uint8))))
    content.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    content.PixelData = encapsulate([frame])
    content["PixelData"].VR = "OB"
    file = io.BytesIO()
    pydicom.dcmwrite(file, content)
    return file.getvalue()


def test_a_compressed_frame_must_be_of_the_size_that_the_header_declares():
    frame = picture(np.full((16, 24), 90, np.uint8), "JPEG")
    assert code(compressed(frame, 16, 24)) == "decoded"
    assert code(compressed(frame, 16, 23)) == "FALSE_SIZE"
    assert declared_size(frame) == (16, 24)
    assert declared_size(b"\xff\x4f\xff\x51\x00\x29\0\0" + struct.pack(">IIII", 300, 200, 0, 0)) == (200, 300)
    assert declared_size(b"\0\0\0\1") is None


def test_pydicoms_odd_files_are_each_decoded_or_refused_by_a_code(shared_data):
    with zipfile.ZipFile(shared_data / "img_dicom_quirks" / "test_files.zip") as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with warnings.catch_warnings():
        # A warning of pydicom's repeats what stands in the object.
        warnings.simplefilter("error")
        as_they_are = Counter(code(content) for content in contents.values())
        found = {name: read(content, is_clean=True) for name, content in contents.items()}
    assert as_they_are == {
        "BURNED_IN": 37,
        "decoded": 11,
        "NO_PIXELS": 9,
        "UNSUPPORTED": 8,
        "UNKNOWN_FORMAT": 4,
        "TRUNCATED": 1,
    }
    decoded = {name: image for name, image in found.items() if not isinstance(image, ImageError)}
    assert len(decoded) == 36 and {image.code for image in found.values() if isinstance(image, ImageError)} <= set(
        CODES
    )
    assert not [name for name, image in decoded.items() if image.pixels.min() == image.pixels.max()]
    same = [image.pixels for name, image in decoded.items() if name.startswith("MR_small")]
    assert len(same) == 7 and all((pixels == same[0]).all() for pixels in same)
    assert decoded["CT_small.dcm"].pixels.min() == -896


def test_whose_a_refused_object_is_stays_known_where_its_header_can_be_read():
    whole = dicom(Modality="US")
    refused = [dicom(None), dicom(None, deflate=True), whole, dicom()[:-20], dicom(RescaleSlope=0, RescaleIntercept=0)]
    assert [read(content).patient for content in refused] == ["MRN-7"] * 5
    assert [read(content).patient for content in (whole[:140], dicom(None, PatientID=None))] == [None, None]
