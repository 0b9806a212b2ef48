import json

import pytest

from medpipe import cli, job
from medpipe.jobs import ingest_records, standardise_records
from medpipe.jobs.replay_quarantine import replay
from tests.deliveries import KEY, deliver, first_night
from tests.jobs.conftest import open_at


def load(work, folder):
    work.run(ingest_records.main, delivery=job.delivery_from(work, folder, is_history=False))
    work.run(standardise_records.main)


@pytest.fixture(scope="module")
def night(spark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("night")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MEDPIPE_PSEUDONYM_KEY", KEY)
        load(open_at(spark, folder, "2026-01-31"), first_night(folder / "2026-01-30"))
        yield folder


def asked(night, *words):
    return cli.main(["quarantine", "--lake", str(night / "lake"), *words])


def test_anyone_sees_how_many_rows_are_refused_for_what(night, capsys):
    assert asked(night) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["condition_occurrence", "KEY_CONFLICT", "2"] in [line[2:] for line in lines]
    assert sum(int(line[-1]) for line in lines) == 15


def test_a_key_holder_sees_the_rows_and_the_look_is_audited_first(night, spark, capsys, monkeypatch):
    assert asked(night, "--reason", "BAD_NUMBER", "--purpose", "ask the laboratory") == 0
    (row,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (row["reasons"], row["fields"]["value_as_number"]) == (["BAD_NUMBER"], "many")
    (look,) = open_at(spark, night, "2026-01-31").lake.read("phi.audit").collect()
    assert (look.patient_id, look.purpose, look.was_found) == (
        "quarantine of all deliveries",
        "ask the laboratory",
        True,
    )
    monkeypatch.setenv("MEDPIPE_PSEUDONYM_KEY", "cd" * 32)
    assert asked(night, "--purpose", "curious") == 2
    assert "many" not in capsys.readouterr().out


def test_rows_that_waited_for_their_patient_are_taken_once_the_patient_has_come(night, spark):
    work = open_at(spark, night, "2026-02-02")
    load(work, deliver(night / "2026-02-01", "2026-02-01T10:00:00", person=["99,8532,1950,3,14,MRN-0099"]))
    before = work.lake.for_run("").read("silver.event").count()
    (done,) = replay(work, "omop", "UNKNOWN_PATIENT")
    outcomes = work.run(standardise_records.main)
    assert (done.status, done.num_rows) == ("done", 2)
    # The other deliveries are as they were; of the two rows one patient has come, the other has not.
    assert [outcome.status for outcome in outcomes] == ["skipped", "skipped", "done"]
    entry = work.ledger.entries[-1]
    assert (entry.rows_in, entry.rows_out, entry.rows_quarantined) == (2, 1, 1)
    assert work.lake.for_run("").read("silver.event").count() == before + 1
    (again,) = replay(open_at(spark, night, "2026-02-03"), "omop", "UNKNOWN_PATIENT")
    assert again.num_rows == 1


def test_nothing_that_waits_is_no_delivery(night, spark):
    assert replay(open_at(spark, night, "2026-02-02"), "omop", "NO_SUCH_REASON") == []
