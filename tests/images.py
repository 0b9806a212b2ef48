"""Image files for tests, made from arrays: good ones, and whatever a header may say wrongly."""

import gzip
import io
import struct
import zlib

import nibabel
import numpy as np
import PIL.Image
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

RAMP = (np.arange(48).reshape(6, 8) * 5).astype(np.uint8)


def picture(pixels: np.ndarray, kind: str = "PNG", mode: str | None = None, **more) -> bytes:
    """A picture in a format of Pillow, brought to a mode first."""
    image = PIL.Image.fromarray(pixels)
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, kind, **more)
    return file.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """A PNG of zeros, 8-bit grey: a few kB whatever its size."""
    deflater = zlib.compressobj(9)
    row, data = bytes(width + 1), b""
    for _ in range(height):
        data += deflater.compress(row)
    data += deflater.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(*part) for part in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    )


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def dicom(pixels: np.ndarray | None = RAMP, deflate: bool = False, **tags) -> bytes:
    """A CT object of those pixels (H, W), (F, H, W) or (H, W, 3); tags by keyword, None takes one away."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian if deflate else ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    told = {"Modality": "CT", "SOPClassUID": CTImageStorage, "PatientID": "MRN-7", "SeriesInstanceUID": "1.2.3"}
    if pixels is not None:
        colours = pixels.ndim == 3 and pixels.shape[-1] == 3
        height, width = pixels.shape[:2] if colours else pixels.shape[-2:]
        bits = pixels.dtype.itemsize * 8
        told |= {
            "Rows": height,
            "Columns": width,
            "SamplesPerPixel": 3 if colours else 1,
            "PhotometricInterpretation": "RGB" if colours else "MONOCHROME2",
            "BitsAllocated": bits,
            "BitsStored": bits,
            "HighBit": bits - 1,
            "PixelRepresentation": int(pixels.dtype.kind == "i"),
        }
        if colours:
            told["PlanarConfiguration"] = 0
        elif pixels.ndim == 3:
            told["NumberOfFrames"] = len(pixels)
    for name, value in (told | tags).items():
        if value is not None:
            setattr(dataset, name, value)
    if pixels is not None:
        dataset.add_new("PixelData", "OB" if pixels.dtype.itemsize == 1 else "OW", _even(pixels.tobytes()))
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset)
    return file.getvalue()


def _even(data: bytes) -> bytes:
    return data + b"\0" * (len(data) % 2)


def nifti(voxels: np.ndarray, affine: np.ndarray | None = None, compress: bool = True, **header) -> bytes:
    """A volume (columns, rows, slices) in NIfTI-1; header fields by keyword are set after all else."""
    image = nibabel.Nifti1Image(voxels, np.eye(4) if affine is None else affine)
    content = bytearray(image.to_bytes())
    head = nibabel.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in header.items():
        head[name] = value
    content[:348] = head.binaryblock
    return gzip.compress(bytes(content)) if compress else bytes(content)


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()
