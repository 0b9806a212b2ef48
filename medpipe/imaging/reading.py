"""A file of any format that is read -> its images."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from medpipe.imaging import archives, dicom, nifti, pictures
from medpipe.imaging.formats import Image, ImageError, Limits, format_of


def place_of(folder: Path, name: str) -> Path:
    """The file of a delivery that a manifest names.

    Raises:
        ImageError: PATH_ESCAPE where it would lie elsewhere, by its name or by a link; IMAGE_MISSING.
    """
    if "\0" in name or "://" in name or PurePosixPath(name).is_absolute():
        raise ImageError("PATH_ESCAPE")
    try:
        place, home = (folder / name).resolve(), folder.resolve()
        if not place.is_relative_to(home):
            raise ImageError("PATH_ESCAPE")
        if not place.is_file():
            raise ImageError("IMAGE_MISSING")
    except (OSError, RuntimeError, ValueError):
        # A loop of links, or a name that no file can have.
        raise ImageError("IMAGE_MISSING") from None
    return place


def content_of(place: Path, limits: Limits) -> bytes:
    """All of a file.

    Raises:
        ImageError: EMPTY_FILE, IMAGE_TOO_LARGE.
    """
    num_bytes = place.stat().st_size
    if num_bytes == 0:
        raise ImageError("EMPTY_FILE")
    if num_bytes > limits.file_bytes:
        raise ImageError("IMAGE_TOO_LARGE")
    return place.read_bytes()


def num_images(place: Path, limits: Limits) -> int:
    """How many images a file declares; 1 for one that is no archive, or that cannot be read."""
    with place.open("rb") as file:
        if file.read(2) != b"PK":
            return 1
        file.seek(0)
        try:
            return archives.count(file, limits)
        except ImageError:
            return 1


def images(
    content: bytes, limits: Limits, modality: str | None = None, is_clean: bool = False, as_mask: bool = False
) -> Iterator[Image | ImageError]:
    """The images of a file, one but for archives; what refuses one stands in its place, and ends the file if all.

    Args:
        modality: what the delivery says of the file; counts where the file says nothing.
        is_clean: the delivery says that no name is drawn into the pixels.
        as_mask: a palette's numbers are wanted, not its colours, and nothing can be drawn into it.
    """
    try:
        kind = format_of(content)
        if kind == "zip":
            yield from archives.decode(content, limits)
        elif kind == "dicom":
            yield _of_dicom(content, limits, modality, is_clean or as_mask)
        elif kind == "nifti":
            yield nifti.decode(content, limits)
        elif modality in dicom.MAY_BE_NAMED and not (is_clean or as_mask):
            # A picture has no place to say so itself.
            yield ImageError("BURNED_IN")
        else:
            yield pictures.decode(content, kind, limits, keep_palette=as_mask)
    except ImageError as refused:
        yield refused
    except MemoryError:
        yield ImageError("IMAGE_TOO_LARGE")
    except Exception:
        # Decoders meet bytes that nobody has thought of; one file of them must not end the delivery.
        yield ImageError("BAD_IMAGE")


def _of_dicom(content: bytes, limits: Limits, modality: str | None, is_clean: bool) -> Image | ImageError:
    try:
        return dicom.decode(content, limits, modality, is_clean)
    except ImageError as refused:
        # Whose it is must be known even so: a patient who is forgotten takes it along.
        return ImageError(refused.code, dicom.patient_of(content, limits))
