"""Turn each image known before --as-of into 8-bit grey for a model (gold.image); say which it cannot use.

Grey of 8 bits stays as it is. Other grey is cut by the window that the DICOM object names; a CT without one by centre
40, width 400 Hounsfield units; others from the 0.5th to the 99.5th percentile of their values. Colours become
luminance.
Settings: images.modalities, images.height, images.width.
"""

import sys

from pyspark.sql import functions as F

from medpipe import job
from medpipe.cohort.splits import split_of
from medpipe.errors import DataError
from medpipe.features.images import image_rows, usable

FILE_ROWS = 4096


@job.step(
    reads={"silver.image": {}, "silver.image_pixels": {}},
    writes=("gold.image",),
    settings=("images",),
    options=(job.ROLE,),
)
def main(run: job.Run) -> None:
    lake, settings = run.lake, run.settings.images
    images = usable(lake.read("silver.image", run.as_of), run.options["role"], settings)
    numbers = {row.reason: row["count"] for row in images.groupBy("reason").count().collect()}
    rows = image_rows(images, lake.read("silver.image_pixels"), settings)
    rows = rows.withColumn("split", split_of(F.col("belongs_to"))).drop("belongs_to")
    rows = rows.withColumns({"as_of": F.lit(run.as_of), "role": F.lit(run.options["role"])})
    # Laid out by their ids alone: on any machine an image is scored beside the same others.
    laid_out = rows.repartition(1 + numbers.get(None, 0) // FILE_ROWS, "image_id").sortWithinPartitions("image_id")
    written = lake.replace(laid_out, "gold.image", where=run.partition)
    num_usable = numbers.pop(None, 0)
    if written.num_rows != num_usable:
        raise DataError(
            "UNBALANCED", f"gold.image: {written.num_rows} rows of {num_usable} images; silver.image_pixels lacks some"
        )
    if numbers:
        told = ", ".join(f"{reason} {number}" for reason, number in sorted(numbers.items()))
        print(f"  {sum(numbers.values())} of {sum(numbers.values()) + num_usable} images are not in gold.image: {told}")
    run.counts |= {
        "rows_in": num_usable + sum(numbers.values()),
        "rows_out": written.num_rows,
        "rows_quarantined": sum(numbers.values()),
    }


if __name__ == "__main__":
    sys.exit(main())
