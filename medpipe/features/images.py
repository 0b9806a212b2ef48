"""silver.image and its pixels -> grey images of 8 bits, as gold.image has them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from medpipe.imaging.blocks import joined
from medpipe.imaging.windows import grey, resized

BATCH_ROWS = 64
SHAPE = ("dtype", "height", "width", "channels")
GREY = "image_id string, height int, width int, pixels binary"


@dataclass(frozen=True)
class ImageSettings:
    """Which images a model reads, and in which size.

    Attributes:
        modalities: DICOM codes; none takes every image, also those that say no modality.
        height, width: size they are brought to, sides in no fixed ratio; 0 leaves each as it is.
    """

    modalities: tuple[str, ...] = ()
    height: int = 0
    width: int = 0


def usable(images: DataFrame, role: str, settings: ImageSettings) -> DataFrame:
    """images with `reason`: why gold.image has none of it, null where it has.

    OTHER_MODALITY, by the settings; VOLUME, of more than one slice; NO_LABEL and OTHER_LABEL (neither 0 nor 1), in the
    role fit alone.
    """
    is_other = F.lit(False)
    if settings.modalities:
        is_other = ~F.coalesce(F.col("modality").isin(*settings.modalities), F.lit(False))
    reasons = [(is_other, "OTHER_MODALITY"), (F.col("num_frames") > 1, "VOLUME")]
    if role == "fit":
        reasons += [(F.col("label").isNull(), "NO_LABEL"), (~F.col("label").isin(0, 1), "OTHER_LABEL")]
    return images.withColumn("reason", F.coalesce(*[F.when(wrong, reason) for wrong, reason in reasons]))


def image_rows(images: DataFrame, pixels: DataFrame, settings: ImageSettings) -> DataFrame:
    """One row per usable image: image_id, label, height, width, pixels, and belongs_to.

    belongs_to, whose images must not be split: the patient; else the DICOM series; else the image. label is -1 where it
    is neither 0 nor 1.

    Args:
        images: of `usable`. pixels: silver.image_pixels.
    """
    wanted = images.where("reason is null")
    label = F.when(F.col("label").isin(0, 1), F.col("label")).otherwise(-1)
    belongs_to = F.coalesce("patient_id", "series_id", "image_id")
    told = wanted.select("image_id", label.alias("label"), belongs_to.alias("belongs_to"))
    lying = ["source", "delivery_id", "image_id"]
    held = wanted.select(*lying, *SHAPE, "modality", "window_center", "window_width").join(
        pixels.select(*lying, "pixels"), on=lying, how="inner"
    )
    return held.mapInArrow(Greyer(settings), GREY).join(told, on="image_id", how="inner")


@dataclass(frozen=True)
class Greyer:
    """For mapInArrow: batches with SHAPE, modality, window and pixels of one-slice images in, of GREY out."""

    settings: ImageSettings

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        schema = pa.schema(
            [("image_id", pa.string()), ("height", pa.int32()), ("width", pa.int32()), ("pixels", pa.binary())]
        )
        for batch in batches:
            for start in range(0, batch.num_rows, BATCH_ROWS):
                rows = [self._row(row) for row in batch.slice(start, BATCH_ROWS).to_pylist()]
                yield pa.RecordBatch.from_pylist(rows, schema)

    def _row(self, row: dict) -> dict:
        shape = (row["height"], row["width"]) + ((3,) if row["channels"] == 3 else ())
        window = (row["window_center"], row["window_width"]) if row["window_width"] else None
        image = grey(joined([row["pixels"]], row["dtype"], shape), row["modality"], window)
        if self.settings.height and self.settings.width:
            image = resized(image, self.settings.height, self.settings.width)
        height, width = image.shape
        return {"image_id": row["image_id"], "height": height, "width": width, "pixels": image.tobytes()}
