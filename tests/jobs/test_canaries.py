"""Names, numbers and free text planted wherever a delivery may hold them: none is found outside the PHI root."""

import json
import logging
from base64 import b64encode
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from medpipe import keys
from medpipe.jobs import build_images, ingest_images, nightly
from medpipe.jobs.publish_tables import publish
from medpipe.privacy.sealing import NUM_KEY_BYTES
from tests.deliveries import KEY
from tests.images import RAMP, dicom, picture
from tests.jobs.conftest import open_at

CANARY = "Canary"
LOINC = {"system": "http://loinc.org", "code": "2339-0", "display": f"{CANARY}Display"}


def reference(name):
    return {"reference": f"Patient/{CANARY}Id", "display": f"{CANARY}{name}"}


RESOURCES = {
    "Patient": [
        {
            "id": f"{CANARY}Id",
            "birthDate": "1950-02-03",
            "gender": "female",
            "name": [{"family": f"{CANARY}Family", "given": [f"{CANARY}Given"]}],
            "identifier": [{"system": "urn:mrn", "value": f"{CANARY}Mrn"}],
            "telecom": [{"value": f"{CANARY}Phone"}],
            "address": [{"line": [f"{CANARY}Street"], "state": f"{CANARY}State", "postalCode": f"{CANARY}Zip"}],
            "text": {"div": f"{CANARY}Narrative"},
            "extension": [{"url": f"http://{CANARY}Url", "valueString": f"{CANARY}Extension"}],
        },
        {"id": f"{CANARY}Bad", "birthDate": f"{CANARY}Date", "gender": f"{CANARY}Sex"},
    ],
    "Encounter": [
        {"id": f"{CANARY}Visit", "subject": reference("A"), "class": {"code": f"{CANARY}Class"}}
        | {"period": {"start": "2020-01-01T10:00:00Z"}}
    ],
    "Observation": [
        {
            "id": f"{CANARY}Result",
            "subject": reference("B"),
            "encounter": {"reference": f"Encounter/{CANARY}Visit"},
            "code": {"coding": [LOINC], "text": f"{CANARY}Text"},
            "effectiveDateTime": "2020-01-01T10:00:00Z",
            "valueString": f"{CANARY}Value",
            "note": [{"text": f"{CANARY}Note"}],
        },
        {
            "id": f"{CANARY}Unit",
            "subject": reference("C"),
            "code": {"coding": [LOINC | {"code": "29463-7"}]},
            "effectiveDateTime": "2020-01-01T10:00:00Z",
            "valueQuantity": {"value": f"{CANARY}Number", "unit": f"{CANARY}Unit"},
        },
        {
            "id": f"{CANARY}Foreign",
            "subject": reference("D"),
            "code": {"coding": [{"system": f"http://{CANARY}System", "code": f"{CANARY}Code"}]},
            "effectiveDateTime": "2020-01-01T10:00:00Z",
        },
    ],
}


@pytest.fixture
def records(tmp_path):
    folder = tmp_path / f"{CANARY}Folder"
    folder.mkdir()
    (folder / "delivery.toml").write_text('source = "fhir"\ndelivered_at = 2026-01-30T22:00:00\n')
    for kind, resources in RESOURCES.items():
        lines = [json.dumps({"resourceType": kind} | resource) for resource in resources]
        (folder / f"{kind}.000.ndjson").write_text("\n".join([*lines, f'{{"{CANARY}Broken": ']) + "\n")
    (folder / f"{CANARY}File.txt").write_text(f"{CANARY}Letter")
    return folder


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / f"{CANARY}Images"
    folder.mkdir()
    (folder / f"{CANARY}.png").write_bytes(picture(RAMP))
    (folder / f"{CANARY}.dcm").write_bytes(dicom(PatientName=f"{CANARY}Name", PatientID=f"{CANARY}Pid"))
    (folder / f"{CANARY}.jpg").write_bytes(b"no picture")
    rows = [f"{CANARY}.{ending},{CANARY}Id" for ending in ("png", "dcm", "jpg")]
    (folder / "manifest.csv").write_text("\n".join(["path,patient_id", *rows]) + "\n")
    return folder


@contextmanager
def event_log(spark, folder):
    """Spark's own event log of what runs inside, into a file of the folder."""
    folder.mkdir()
    context = spark._jsc.sc()
    conf = context.getConf().set("spark.eventLog.compress", "false").set("spark.eventLog.rolling.enabled", "false")
    place, none = spark._jvm.java.net.URI(folder.as_uri()), spark._jvm.scala.Option.empty()
    writer = spark._jvm.org.apache.spark.scheduler.EventLoggingListener
    listener = writer("canary", none, place, conf, context.hadoopConfiguration())
    listener.start()
    context.addSparkListener(listener)
    try:
        yield
        context.listenerBus().waitUntilEmpty()
    finally:
        context.removeSparkListener(listener)
        listener.stop()


def subkeys():
    """The key and what is derived of it, as a plan or a log would spell them."""
    key = keys.load("env:MEDPIPE_PSEUDONYM_KEY")
    purposes = [("pseudonym", 32), ("shift", 32), ("publish/limited", 32), ("quarantine", NUM_KEY_BYTES)]
    secrets = [key.secret, *[key.subkey(purpose, size) for purpose, size in purposes]]
    return [text for secret in secrets for text in (secret.hex(), b64encode(secret).decode(), str(secret)[2:-1])]


def test_what_is_planted_stays_under_the_phi_root(spark, tmp_path, records, images, monkeypatch, capfd, caplog):
    monkeypatch.setenv("MEDPIPE_PSEUDONYM_KEY", KEY)
    caplog.set_level(logging.DEBUG, logger="medpipe")
    more = {"max_bad_ratio": 1.0}
    privacy = {"mode": "limited"}
    work = open_at(spark, tmp_path, "2026-01-31", thresholds={"fhir": more, "images": more}, privacy=privacy)
    with event_log(spark, tmp_path / "events"):
        nightly.night(work, [records], is_history=True)
        ingest_images.load(work, images)
        work.run(build_images.main, role="apply")
        publish(work)
    lake = work.lake.for_run("")
    assert lake.read("silver.event").count() == 1 and lake.read("gold.image").count() >= 1
    assert lake.read("gold.cohort").count() == lake.read("limited.patient").count() == 1
    assert lake.read("phi.quarantine").count() >= 6
    text = capfd.readouterr()
    assert CANARY not in text.out + text.err.replace(str(tmp_path), "") + caplog.text
    roots = (lake.root, tmp_path / "lake-published", tmp_path / "events")
    files = [file for root in roots for file in Path(root).rglob("*") if file.is_file()]
    held = {file: str(pq.read_table(file).to_pylist()) for file in files if file.suffix == ".parquet"}
    assert len(held) > 5
    told = {file: file.read_bytes().decode("latin-1") for file in files} | held
    # The names of the delivery's folders stand in plans, as whoever starts the job has given them.
    folders = (str(records), str(images))
    plain = {file: content.replace(folders[0], "").replace(folders[1], "") for file, content in told.items()}
    assert [str(file) for file, content in plain.items() if CANARY in content] == []
    assert [str(file) for file, content in told.items() if any(secret in content for secret in subkeys())] == []
    log = "".join(content for file, content in told.items() if file.is_relative_to(tmp_path / "events"))
    assert "SparkListenerSQLExecutionStart" in log and "limited/patient" in log
    assert any(CANARY in str(pq.read_table(file).to_pylist()) for file in Path(lake.phi_root).rglob("*.parquet"))
