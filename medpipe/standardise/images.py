"""bronze.image -> decoded images: each is accepted, refused with every reason, or an exact copy.

Decoding runs in the tasks, a file at a time and in a process apart: of a file that kills it the others know nothing.
What they give is rows, an image's pixels in blocks.
"""

import hashlib
import resource
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from medpipe.child import Child
from medpipe.errors import DataError
from medpipe.imaging import masks
from medpipe.imaging.formats import Image, ImageError, Limits
from medpipe.imaging.reading import content_of, images, place_of
from medpipe.standardise.image_rows import DECODED, in_blocks, name_of, own_reasons, reasons_of, told, whose

UNREAD = {"FIELD_COUNT", "KEY_CONFLICT", "NOT_IN_MANIFEST"}
# Files of a task: enough to be worth one, few enough that many cores share a delivery.
FILES_PER_TASK = 32
BATCH_BYTES = 8 * 2**20
BATCH_ROWS = 2048
# A process that decodes may take so much, and so long for one image; the largest that the limits let in need less.
MEMORY_BYTES = 6 * 2**30
MAX_SECONDS = 300.0
PRELOADED = ["medpipe.standardise.images", "pyspark.worker"]
READ = ("file", "is_listed", "sha256", "num_images", "record_hash", "occurrence", "fields", "corrupt", "is_conflict")


def decoded(received: DataFrame, folder: Path, limits: Limits) -> DataFrame:
    """Columns DECODED: a row for each block of each image, block 0 alone for one that is not accepted.

    record_hash names the image: of an archive's it is made of the archive's and the place in it. image_key,
    patient_key (of a refused one too, where it is told), series_key, file and raw (of a refused one, its manifest row
    as JSON) are the hospital's own and must not leave.

    Args:
        received: bronze.image of one delivery. folder: where its files lie, for every executor.
    Raises:
        DataError: FILE_CHANGED, once it is computed, where a file is not the one that bronze speaks of.
    """
    contents = F.sum((F.col("occurrence") == 1).cast("int")).over(Window.partitionBy("file"))
    rows = received.withColumn("is_conflict", F.col("file").isNotNull() & (contents > 1))
    num_tasks = 1 + rows.count() // FILES_PER_TASK
    rows = rows.select(*READ, F.to_json(F.struct("fields", "corrupt")).alias("raw"))
    rows = rows.repartition(num_tasks, "record_hash")
    return rows.mapInArrow(Decoder(folder, limits), from_arrow_schema(DECODED))


@dataclass(frozen=True)
class Decoder:
    """For mapInArrow: batches with READ and raw in, batches of DECODED out.

    Attributes:
        folder: where the delivery lies.
        read: as reading.images.
    """

    folder: Path
    limits: Limits
    read: Callable[..., Iterator[Image | ImageError]] = images

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rows = (row | {"fields": dict(row["fields"])} for batch in batches for row in batch.to_pylist())
        held, num_bytes = [], 0
        with Child(partial(_prepared, self), PRELOADED) as child:
            for row in chain.from_iterable(self._asked(child, row) for row in rows):
                held.append(row)
                num_bytes += len(row.get("pixels") or b"") + len(row.get("mask") or b"")
                if num_bytes >= BATCH_BYTES or len(held) >= BATCH_ROWS:
                    yield pa.RecordBatch.from_pylist(held, DECODED)
                    held, num_bytes = [], 0
        if held:
            yield pa.RecordBatch.from_pylist(held, DECODED)

    def _asked(self, child: Child, row: dict) -> Iterable[dict]:
        """Rows of DECODED for one of bronze.image; a file of a format that foreign code decodes goes to the child."""
        if row["num_images"] > 1 or not _is_read(row):
            # NumPy's arrays are read as they lie there, one at a time.
            return self.rows(row)
        # A death may have come from outside.
        for _ in range(2):
            try:
                found = child.ask(row, MAX_SECONDS)
            except TimeoutError:
                break
            if found is not None:
                return found
        return [_refused(row, 0, ["DECODER_DIED"])]

    def rows(self, row: dict) -> Iterator[dict]:
        """Rows of DECODED for one of bronze.image, whose fields are a dict."""
        known = reasons_of(row)
        judged = self._judged(row) if _is_read(row) else repeat((None, None, []), row["num_images"])
        for place, (image, mask, codes) in enumerate(judged):
            if row["occurrence"] > 1:
                yield _named(row, place) | {"reasons": [], "fate": "duplicate"}
            elif known or codes:
                yield _refused(row, place, [*known, *codes], image)
            else:
                accepted = {"reasons": [], "fate": "accepted", "has_mask": mask is not None}
                yield from in_blocks(_named(row, place) | accepted | told(row, place, image), image, mask)

    def _judged(self, row: dict) -> Iterator[tuple[Image | ImageError, np.ndarray | None, list[str]]]:
        """Image (or what refuses it), mask and what is wrong with them, as often as the file declares images."""
        found = self._images(row)
        last: Image | ImageError | None = None
        for _ in range(row["num_images"]):
            # What ends a file early refuses the images it still declares.
            last = next(found, last if isinstance(last, ImageError) else ImageError("FALSE_SIZE"))
            if isinstance(last, ImageError):
                yield last, None, [last.code]
                continue
            codes, mask = own_reasons(last), None
            try:
                mask = self._mask(row, last)
            except ImageError as refused:
                codes.append(refused.code)
            yield last, mask, codes

    def _images(self, row: dict) -> Iterator[Image | ImageError]:
        fields = row["fields"]
        try:
            if row["file"] is None:
                raise ImageError("PATH_ESCAPE" if fields.get("path") else "IMAGE_MISSING")
            content = content_of(place_of(self.folder, row["file"]), self.limits)
        except ImageError as refused:
            yield refused
            return
        if hashlib.sha256(content).hexdigest() != row["sha256"]:
            raise DataError("FILE_CHANGED", "a file of the delivery was changed while it was read; run again")
        is_clean = fields.get("burned_in", "").strip().lower() == "no"
        yield from self.read(content, self.limits, fields.get("modality", "").strip() or None, is_clean)

    def _mask(self, row: dict, image: Image) -> np.ndarray | None:
        """uint8 (F, H, W); None where the manifest names no mask.

        Raises:
            ImageError: BAD_MASK, MASK_EMPTY, MASK_MISSING, MASK_SHAPE, MASK_VALUES, PATH_ESCAPE.
        """
        paths = [path.strip() for path in row["fields"].get("mask", "").split(";") if path.strip()]
        if paths and row["num_images"] > 1:
            raise ImageError("MASK_SHAPE")
        found = [self._read_mask(path) for path in paths]
        return masks.mask_of(image, found) if found else None

    def _read_mask(self, path: str) -> Image:
        try:
            content = content_of(place_of(self.folder, path), self.limits)
        except ImageError as refused:
            codes = {"IMAGE_MISSING": "MASK_MISSING", "PATH_ESCAPE": "PATH_ESCAPE"}
            raise ImageError(codes.get(refused.code, "BAD_MASK")) from None
        mask = next(images(content, self.limits, as_mask=True), None)
        if not isinstance(mask, Image):
            raise ImageError("BAD_MASK")
        return mask


def _is_read(row: dict) -> bool:
    """Whether the file is opened: not for an exact copy, nor for a row that does not say which image is meant."""
    return row["occurrence"] == 1 and not UNREAD & set(reasons_of(row))


def _named(row: dict, place: int) -> dict:
    return {
        "record_hash": name_of(row, place),
        "occurrence": row["occurrence"],
        "file": row["file"],
        "block": 0,
    }


def _refused(row: dict, place: int, codes: Iterable[str], image: Image | ImageError | None = None) -> dict:
    said = {"reasons": sorted(set(codes)), "fate": "quarantined", "raw": row["raw"]}
    return _named(row, place) | said | whose(row, image)


def _prepared(decoder: Decoder) -> Callable[[dict], Iterable[dict]]:
    """What the child does with a row, within the memory that it is given."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))

    def rows(row: dict) -> Iterable[dict]:
        try:
            return list(decoder.rows(row))
        except MemoryError:
            return [_refused(row, 0, ["IMAGE_TOO_LARGE"])]

    return rows
