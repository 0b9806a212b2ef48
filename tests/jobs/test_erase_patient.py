import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F

from medpipe import contracts, job, keys
from medpipe.jobs import ingest_images, ingest_records, standardise_records
from medpipe.jobs.erase_patient import KEPT, PATIENT_COLUMNS, erase, pseudonyms_of
from medpipe.privacy.disclosure import NAMESPACE, purpose
from medpipe.privacy.pseudonyms import pseudonym
from tests.deliveries import KEY, first_night, second_night
from tests.images import RAMP, dicom, picture
from tests.jobs.conftest import open_at


def load(work, folder):
    work.run(ingest_records.main, delivery=job.delivery_from(work, folder, is_history=False))
    work.run(standardise_records.main)


def pseudonym_of(person):
    return pseudonym(keys.load("env:MEDPIPE_PSEUDONYM_KEY").subkey("pseudonym"), "patient", person)


def published(patient_id):
    key = keys.load("env:MEDPIPE_PSEUDONYM_KEY")
    return pseudonym(key.subkey(purpose("safe_harbor")), NAMESPACE, patient_id)


def rows_of(lake, patient_id):
    """Rows that hold the pseudonym, by table and column."""
    found = {}
    for name in contracts.names():
        contract = contracts.load(name)
        if contract.view is None and lake.exists(name) and name not in KEPT:
            for column in set(PATIENT_COLUMNS) & set(contract.struct.names):
                found[name, column] = lake.read(name).where(F.col(column) == patient_id).count()
    return found


@pytest.fixture(scope="module")
def erased(spark, tmp_path_factory):
    """A lake of two patients with a table of gold, after the second has been erased; and what it held before."""
    folder = tmp_path_factory.mktemp("erased")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MEDPIPE_PSEUDONYM_KEY", KEY)
        work = open_at(spark, folder, "2026-01-31")
        load(work, first_night(folder / "2026-01-30"))
        one, two = pseudonym_of("1"), pseudonym_of("2")
        pairs = spark.createDataFrame([(work.as_of, one, two, 1, 0.5), (work.as_of, two, one, 1, 0.5)], SIMILARITY)
        work.lake.for_run("r").replace(pairs, "gold.patient_similarity", where={"as_of": work.as_of})
        stopped = spark.createDataFrame([(work.as_of, two, 1, "a", "allergy", "b", "major", "s")], BLOCKED)
        work.lake.for_run("r").replace(stopped, "gold.recommendation_blocked", where={"as_of": work.as_of})
        ingest_images.load(work, pictures(folder / "images", "1", "002"))
        out = [(2026, "risk_gru", published(person), 0.5, "m", "safe_harbor") for person in (one, two)]
        scores = spark.createDataFrame(out, PUBLISHED)
        work.lake.for_run("r").replace(scores, "safe_harbor.score", where={"as_of_year": 2026})
        held = rows_of(work.lake.for_run(""), two)
        erase(work, pseudonyms_of(work, " 002\n"), "asked for", is_vacuumed=True)
        yield folder, two, held


@pytest.fixture
def lake(erased, spark):
    return open_at(spark, erased[0], "2026-01-31").lake.for_run("")


@pytest.fixture
def later(erased, spark, tmp_path):
    """The same lake, to be changed, a day later."""
    for name in ("lake", "lake-phi", "2026-01-30"):
        shutil.copytree(erased[0] / name, tmp_path / name)
    return open_at(spark, tmp_path, "2026-02-01")


def pictures(folder, *patients):
    """An image of each patient, and for each an object without a manifest's word, known by its PatientID alone."""
    folder.mkdir()
    for number, patient in enumerate(patients):
        (folder / f"{patient}.png").write_bytes(picture(RAMP + number))
        (folder / f"{patient}.dcm").write_bytes(
            dicom(RAMP - number, PatientID=patient, SeriesInstanceUID=f"1.{number}")
        )
    rows = [row for patient in patients for row in (f"{patient}.png,{patient}", f"{patient}.dcm,")]
    (folder / "manifest.csv").write_text("\n".join(["path,patient_id", *rows]) + "\n")
    return folder


PUBLISHED = "as_of_year int, recipe string, patient_id string, score float, model_sha256 string, disclosure string"
BLOCKED = "as_of date, patient_id string, place int, treatment string, reason string, cause string"
BLOCKED += ", severity string, source string"
SIMILARITY = "as_of date, patient_id string, other_patient_id string, rank int, similarity double"


def test_nothing_of_the_patient_is_left_and_all_of_the_others(erased, lake):
    _, two, held = erased
    assert held["silver.event", "patient_id"] and held["gold.patient_similarity", "other_patient_id"] == 1
    assert set(rows_of(lake, two).values()) == {0}
    assert rows_of(lake, pseudonym_of("1"))["silver.event", "patient_id"] == 4
    assert held["silver.image", "patient_id"] == held["gold.recommendation_blocked", "patient_id"] == 1
    for name in ("bronze.image", "silver.image", "silver.image_pixels"):
        assert lake.read(name).count() == 2, name
    assert [row.patient_id for row in lake.read("safe_harbor.score").collect()] == [published(pseudonym_of("1"))]
    named = lake.read("bronze.record").where(F.col("fields")["person_id"] == "2")
    assert named.count() == 0 and lake.read("bronze.record").count() > 0
    # Vacuumed: no file of an older version holds the hospital's own number either.
    held = {
        file: str(pq.read_table(file).to_pylist())
        for root in (lake.root, lake.phi_root)
        for file in Path(root).rglob("*.parquet")
    }
    assert any("MRN-0001" in text for text in held.values())
    assert not [file for file, text in held.items() if "MRN-0002" in text]
    assert not [file for file, text in held.items() if two in text and "phi/suppression" not in str(file)]
    logs = [file for root in (lake.root, lake.phi_root) for file in Path(root).rglob("_delta_log/*.json")]
    assert not [file for file in logs if two in file.read_text() and "phi/suppression" not in str(file)]


def test_fates_and_quarantine_lose_the_patients_rows_and_stay_in_balance(lake):
    fates = {row.fate: row["count"] for row in lake.read("phi.fate").groupBy("fate").count().collect()}
    assert sum(fates.values()) == lake.read("bronze.record").count() + lake.read("bronze.image").count()
    assert fates["quarantined"] == lake.read("phi.quarantine").count()


def test_the_proof_tells_of_how_many_rows_and_of_nobody(erased, lake):
    rows = lake.read("ops.erasure").collect()
    told = [(row.table, row.num_rows) for row in rows]
    assert ("silver.patient", 1) in told and told.count(("gold.patient_similarity", 1)) == 2
    assert all(row.is_vacuumed for row in rows)
    assert erased[1] not in str(rows)


def test_a_delivery_of_later_does_not_bring_the_patient_back(erased, later, tmp_path):
    load(later, second_night(tmp_path / "2026-01-31"))
    lake = later.lake.for_run("")
    assert set(rows_of(lake, erased[1]).values()) == {0}
    assert lake.read("bronze.record").where(F.col("fields")["person_id"] == "2").count() == 0
    ingested = next(entry for entry in later.ledger.entries[::-1] if entry.job == "ingest_records")
    assert (ingested.rows_in, ingested.rows_out) == (5, 3)
    (images,) = ingest_images.load(later, pictures(tmp_path / "images", "2", "3"))
    lake = later.lake.for_run("")
    assert images.num_rows == 2 and set(rows_of(lake, erased[1]).values()) == {0}
    # Two of patient 1, two of patient 3.
    assert lake.read("bronze.image").count() == lake.read("silver.image").count() == 4


def test_the_same_delivery_given_again_does_not_bring_the_patient_back(erased, later, tmp_path):
    # As a lake that has lost its ledger would.
    later.ledger.entries = []
    load(later, tmp_path / "2026-01-30")
    assert set(rows_of(later.lake.for_run(""), erased[1]).values()) == {0}
