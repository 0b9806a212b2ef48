"""Store a delivery of images: decoded and without identity in silver, refused ones in quarantine with every reason.

The folder may hold manifest.csv (path, patient_id, modality, label, mask, burned_in; only path is needed); without one
every file in it is an image. Archives (.zip) are not unpacked: unpack them first.
"""

import sys
from pathlib import Path

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.storagelevel import StorageLevel

from medpipe import command, contracts, job
from medpipe.errors import DataError
from medpipe.imaging.formats import Limits
from medpipe.ingest.images import folder_of, received
from medpipe.ingest.manifest import IMAGES
from medpipe.privacy.pseudonyms import DICOM_PATIENT, pseudonymiser
from medpipe.privacy.sealing import NUM_KEY_BYTES, sealer
from medpipe.quality import balance, thresholds
from medpipe.standardise import values
from medpipe.standardise.images import decoded


@job.step(
    scope="folder",
    writes=("bronze.image", "phi.fate", "phi.quarantine", "silver.image", "silver.image_pixels"),
    settings=("thresholds",),
    needs_key=True,
    extra=lambda work, _: {"patient_namespace": work.settings.privacy.patient_namespace},
)
def ingest(run: job.Run) -> None:
    lake, own, limits = run.lake, run.partition, Limits()
    lake.replace(unforgotten(run, received(lake.spark, run.delivery, limits)), "bronze.image", where=own)
    rows = lake.read("bronze.image", where=own)
    num_delivered = rows.agg(F.sum("num_images")).first()[0] or 0
    # Computed once, on the executors' disks: every table is written from it.
    every = named(decoded(rows, folder_of(run.delivery), limits), run).persist(StorageLevel.DISK_ONLY)
    found, num_forgotten = remembered(every, run)
    num_delivered -= num_forgotten

    # The PHI zone first: nothing is published of a delivery that is too bad.
    of_images = found.where("block = 0")
    lake.replace(only(of_images, "phi.fate"), "phi.fate", where=own)
    quarantined = lake.replace(refused(of_images, run), "phi.quarantine", where=own)
    counts = balance.counted(*(lake.read(name, where=own) for name in ("phi.fate", "phi.quarantine")))
    tell(counts.reasons)
    thresholds.require(run.settings.thresholds, IMAGES, counts)

    accepted = found.where("fate = 'accepted'")
    written = lake.replace(only(accepted.where("block = 0"), "silver.image"), "silver.image", where=own)
    pixels = lake.replace(only(accepted, "silver.image_pixels"), "silver.image_pixels", where=own)
    balance.require(num_delivered, counts, quarantined.num_rows, {"silver.image": written.num_rows})
    require_pixels(run, written.num_rows, pixels.num_rows)
    run.counts |= counts.of_run


def main(argv: list[str] | None = None) -> int:
    parser = command.arguments("ingest_images", __doc__)
    parser.add_argument("--delivery", type=Path, required=True, help="folder with the images")
    return job.main("ingest_images", parser, argv, lambda work, args: load(work, args.delivery))


def load(work: job.Workplace, folder: Path) -> list[job.Outcome]:
    """Ingests a folder and says what became of its images."""
    outcomes = work.run(ingest, delivery=job.delivery_from(work, folder, False, IMAGES))
    job.announce(outcomes)
    last = work.ledger.last("ingest_images", outcomes[0].target)
    print(
        f"  {last.rows_in:,} images delivered: {last.rows_out:,} accepted, {last.rows_duplicate:,} exact copies, "
        f"{last.rows_quarantined:,} quarantined"
    )
    return outcomes


def unforgotten(run: job.Run, rows: DataFrame) -> DataFrame:
    """The rows but those that the manifest gives to a patient who was erased: they are not stored again."""
    if not run.lake.exists("phi.suppression"):
        return rows
    hide = pseudonymiser(run.key.subkey("pseudonym"), run.settings.privacy.patient_namespace)
    ids = rows.select("record_hash", hide(values.any_id(F.col("fields")["patient_id"])).alias("patient_id"))
    theirs = ids.join(run.lake.read("phi.suppression"), on="patient_id", how="left_semi")
    return rows.join(theirs, on="record_hash", how="left_anti")


def remembered(found: DataFrame, run: job.Run) -> tuple[DataFrame, int]:
    """The images but those whose own PatientID is an erased patient's, and the number of these; bronze loses them too.

    What the manifest does not tell is known once they are decoded.
    """
    if not run.lake.exists("phi.suppression"):
        return found, 0
    theirs = found.join(run.lake.read("phi.suppression"), on="patient_id", how="left_semi")
    theirs = theirs.select("source", "delivery_id", "record_hash").distinct().persist()
    run.lake.erase("bronze.image", theirs)
    num_theirs = found.where("block = 0").join(theirs, on="record_hash", how="left_semi").count()
    return found.join(theirs, on="record_hash", how="left_anti"), num_theirs


def named(found: DataFrame, run: job.Run) -> DataFrame:
    """Decoded images with pseudonyms in the place of the hospital's names, and with where they come from."""
    subkey, d = run.key.subkey("pseudonym"), run.delivery
    hide = {space: pseudonymiser(subkey, space) for space in (f"{IMAGES}/record", DICOM_PATIENT, "dicom/uid")}
    # A PatientID in the object need not be the patient_id of the hospital's tables: it never joins by chance.
    own = pseudonymiser(subkey, run.settings.privacy.patient_namespace)(F.col("patient_key"))
    foreign = hide[DICOM_PATIENT](F.col("patient_key"))
    return found.withColumns(
        {
            "image_id": hide[f"{IMAGES}/record"](F.col("image_key")),
            "patient_id": F.when(F.col("is_own_patient"), own).otherwise(foreign),
            "series_id": hide["dicom/uid"](F.col("series_key")),
            "source": F.lit(d.source),
            "source_table": F.lit("image"),
            "delivery_id": F.lit(d.delivery_id),
            "known_at": F.lit(d.known_at),
            "is_deleted": F.lit(False),
        }
    )


def refused(images: DataFrame, run: job.Run) -> DataFrame:
    """phi.quarantine: the refused images' rows of the manifest, sealed."""
    seal = sealer(run.key.subkey("quarantine", NUM_KEY_BYTES))
    rows = images.where("fate = 'quarantined'").withColumns(
        {
            "raw": seal(F.col("raw")),
            # Of a path that leads out of the delivery.
            "file": F.coalesce("file", F.lit("manifest.csv")),
            "key_fingerprint": F.lit(run.key.fingerprint),
        }
    )
    return only(rows, "phi.quarantine")


def only(rows: DataFrame, name: str) -> DataFrame:
    """The columns that the table's contract names."""
    return rows.select([column for column in contracts.load(name).struct.names if column != "run_id"])


def require_pixels(run: job.Run, num_images: int, num_rows: int) -> None:
    """Raises DataError UNBALANCED unless every accepted image has each of its blocks in silver.image_pixels."""
    stored = run.lake.read("silver.image_pixels", where=run.partition)
    first = stored.where("block = 0").agg(F.count("*").alias("images"), F.sum("num_blocks").alias("blocks")).first()
    if (first.images, first.blocks or 0) != (num_images, num_rows):
        raise DataError(
            "UNBALANCED",
            f"silver.image_pixels: {first.images} images of {first.blocks or 0} blocks in {num_rows} rows, expected "
            f"those of {num_images} images; run the step again",
        )


def tell(reasons: dict[str, int]) -> None:
    """Says what was refused, for people."""
    if reasons:
        told = ", ".join(f"{code} {number}" for code, number in sorted(reasons.items()))
        print(f"  refused: {told}; phi.quarantine has them")
    if "ARCHIVE" in reasons:
        print("  Archives are not unpacked: unpack each yourself and deliver the folder")


if __name__ == "__main__":
    sys.exit(main())
