import pytest

from medpipe import cli, keys
from medpipe.privacy.pseudonyms import pseudonym
from medpipe.tables import Lake

BRONZE = (
    "source string, delivery_id string, source_table string, file string, known_at string, record_hash string, "
    "occurrence int, fields map<string,string>, corrupt string, fault string"
)


@pytest.fixture
def lake(spark, tmp_path):
    lake = Lake(spark, str(tmp_path / "lake"), str(tmp_path / "phi")).for_run("run1")
    persons = [
        (
            "omop",
            "d1",
            "person",
            "person.csv",
            "2026-01-30 22:00:00",
            f"h{person}",
            1,
            {"person_id": person},
            None,
            None,
        )
        for person in ("0017", "18")
    ]
    frame = spark.createDataFrame(persons, BRONZE)
    lake.append(frame.withColumn("known_at", frame.known_at.cast("timestamp")), "bronze.record")
    keys.create(tmp_path / "key")
    return lake


def look_up(lake, patient_id, key):
    where = ["--lake", lake.root, "--phi", lake.phi_root, "--set", f"privacy.key=file:{key}"]
    return cli.main(["reidentify", *where, patient_id, "--purpose", "call back"])


def audited(lake):
    rows = lake.for_run("read").read("phi.audit").orderBy("looked_up_at").collect()
    return [(row.patient_id, row.purpose, row.was_found) for row in rows]


def test_a_key_holder_finds_the_patient_and_the_look_up_is_audited(lake, tmp_path, capsys):
    subkey = keys.load(f"file:{tmp_path / 'key'}").subkey("pseudonym")
    asked = pseudonym(subkey, "patient", "17")
    assert look_up(lake, asked, tmp_path / "key") == 0
    assert capsys.readouterr().out.split() == ["17"]
    assert audited(lake) == [(asked, "call back", True)]


def test_a_look_up_in_vain_is_audited_too(lake, tmp_path, capsys):
    assert look_up(lake, "f" * 32, tmp_path / "key") == 2
    assert "UNKNOWN_PSEUDONYM" in capsys.readouterr().err
    assert audited(lake) == [("f" * 32, "call back", False)]


def test_without_the_key_nobody_is_looked_up(lake, tmp_path, capsys):
    assert look_up(lake, "f" * 32, tmp_path / "other") == 2
    assert "NO_KEY" in capsys.readouterr().err
    assert audited(lake) == []
