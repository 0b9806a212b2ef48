import shutil
from argparse import Namespace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F

from medpipe import contracts, job, keys
from medpipe.jobs import ingest_images, ingest_records, standardise_records
from medpipe.jobs.erase_patient import KEPT, PATIENT_COLUMNS, started
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
        work = open_at(spark, folder, "2026-01-31", thresholds=LOOSE)
        load(work, with_addresses(first_night(folder / "2026-01-30")))
        one, two = pseudonym_of("1"), pseudonym_of("2")
        pairs = spark.createDataFrame([(work.as_of, one, two, 1, 0.5), (work.as_of, two, one, 1, 0.5)], SIMILARITY)
        work.lake.for_run("r").replace(pairs, "gold.patient_similarity", where={"as_of": work.as_of})
        stopped = spark.createDataFrame([(work.as_of, two, 1, "a", "allergy", "b", "major", "s")], BLOCKED)
        work.lake.for_run("r").replace(stopped, "gold.recommendation_blocked", where={"as_of": work.as_of})
        ingest_images.load(work, pictures(folder / "images", "1", "002"))
        out = [(2026, "risk_gru", published(person), 0.5, "m", "safe_harbor") for person in (one, two)]
        scores = spark.createDataFrame(out, PUBLISHED)
        work.lake.for_run("r").replace(scores, "safe_harbor.score", where={"as_of_year": 2026})
        held = rows_of(work.lake.for_run(""), two) | nameless(work.lake.for_run(""))
        (folder / "person").write_text(" 002\n")
        asked = {"patient_id": None, "person_file": folder / "person", "purpose": "asked for", "vacuum": True}
        started(work, Namespace(**asked))
        yield folder, two, held


@pytest.fixture
def lake(erased, spark):
    return open_at(spark, erased[0], "2026-01-31").lake.for_run("")


@pytest.fixture
def later(erased, spark, tmp_path):
    """The same lake, to be changed, a day later."""
    for name in ("lake", "lake-phi", "2026-01-30"):
        shutil.copytree(erased[0] / name, tmp_path / name)
    return open_at(spark, tmp_path, "2026-02-01", thresholds=LOOSE)


def with_addresses(folder):
    """The delivery with where its patients live, a deletion of a measurement of each, and a column called by the id."""
    header, *rows = (folder / "person.csv").read_text().splitlines()
    rows = [f"{row},{location},1" for row, location in zip(rows, ("7", "8"), strict=True)]
    (folder / "person.csv").write_text("\n".join([f"{header},location_id,Score of 002", *rows]) + "\n")
    (folder / "location.csv").write_text("location_id,address_1,state,zip\n7,MRN-0001 Elm,MA,02139\n8,MRN-0002 Elm,,\n")
    (folder / "deleted").mkdir()
    (folder / "deleted" / "measurement.csv").write_text("measurement_id\n1\n6\n")
    return folder


def nameless(lake):
    """Rows of the second patient that do not name it by its column, by table."""
    records = lake.read("bronze.record")
    return {
        "location": records.where(F.col("fields")["address_1"].contains("0002")).count(),
        "deletion": records.where("source_table = 'deleted/measurement' and fields.measurement_id = '6'").count(),
        "column": lake.read("phi.schema_drift").where("column_name like '%002%'").count(),
        "refused image": lake.read("phi.quarantine").where(F.col("file").endswith("2.us.dcm")).count(),
        "its file": lake.read("bronze.image").where(F.col("file").endswith("2.us.dcm")).count(),
    }


def pictures(folder, *patients):
    """Of each patient an image, and two objects whose PatientID alone says whose they are; one of them is refused."""
    folder.mkdir()
    for number, patient in enumerate(patients):
        (folder / f"{patient}.us.dcm").write_bytes(dicom(RAMP + number, PatientID=patient, Modality="US"))
        (folder / f"{patient}.png").write_bytes(picture(RAMP + number))
        (folder / f"{patient}.dcm").write_bytes(
            dicom(RAMP - number, PatientID=patient, SeriesInstanceUID=f"1.{number}")
        )
    rows = [f"{patient}{rest}" for patient in patients for rest in (f".png,{patient}", ".dcm,", ".us.dcm,")]
    (folder / "manifest.csv").write_text("\n".join(["path,patient_id", *rows]) + "\n")
    return folder


LOOSE = {"omop": {"max_bad_ratio": 1.0}, "images": {"max_bad_ratio": 1.0}}
PUBLISHED = "as_of_year int, recipe string, patient_id string, score float, model_sha256 string, disclosure string"
BLOCKED = "as_of date, patient_id string, place int, treatment string, reason string, cause string"
BLOCKED += ", severity string, source string"
SIMILARITY = "as_of date, patient_id string, other_patient_id string, rank int, similarity double"


def test_nothing_of_the_patient_is_left_and_all_of_the_others(erased, lake):
    _, two, held = erased
    assert held["silver.event", "patient_id"] and held["gold.patient_similarity", "other_patient_id"] == 1
    assert set(rows_of(lake, two).values()) == {0}
    assert [held[name] for name in nameless(lake)] == [1] * 5 and set(nameless(lake).values()) == {0}
    left = lake.read("bronze.record").where("source_table in ('location', 'deleted/measurement')")
    assert sorted(row.fields.get("location_id", "deleted") for row in left.collect()) == ["7", "deleted"]
    assert [(row.state, row.postcode) for row in lake.read("silver.patient").collect()] == [("MA", "02139")]
    assert rows_of(lake, pseudonym_of("1"))["silver.event", "patient_id"] == 4
    assert held["silver.image", "patient_id"] == held["gold.recommendation_blocked", "patient_id"] == 1
    for name, number in {"bronze.image": 3, "silver.image": 2, "silver.image_pixels": 2}.items():
        assert lake.read(name).count() == number, name
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
    assert {("silver.patient", 1), ("phi.schema_drift", 1), ("bronze.image", 3)} <= set(told)
    assert told.count(("gold.patient_similarity", 1)) == 2
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
    # Of patient 1 and of patient 3 three each, one of them refused.
    assert (lake.read("bronze.image").count(), lake.read("silver.image").count()) == (6, 4)
    assert set(nameless(lake).values()) == {0}


def test_the_same_delivery_given_again_does_not_bring_the_patient_back(erased, later, tmp_path):
    # As a lake that has lost its ledger would.
    later.ledger.entries = []
    load(later, tmp_path / "2026-01-30")
    lake = later.lake.for_run("")
    assert set(rows_of(lake, erased[1]).values()) == set(nameless(lake).values()) == {0}
