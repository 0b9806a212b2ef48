import subprocess
import sys

import pytest

from medpipe import settings
from medpipe.errors import UsageError


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path, monkeypatch):
    config = tmp_path / "hospital.toml"
    config.write_text('lake = "/file"\n[cohort]\ntime_at_risk_days = 10\nobservation_days = 20\nwashout_days = 30\n')
    monkeypatch.setenv("MEDPIPE_COHORT__OBSERVATION_DAYS", "21")
    monkeypatch.setenv("MEDPIPE_COHORT__WASHOUT_DAYS", "31")
    found = settings.load(config, {"cohort": {"washout_days": 32}})
    assert (found.lake, found.cohort.time_at_risk_days, found.cohort.observation_days) == ("/file", 10, 21)
    assert found.cohort.washout_days == 32


def test_every_unknown_or_wrong_key_is_named_at_once_and_no_value_repeated():
    wrong = {"typo": 1, "cohort": {"washout": 5, "time_at_risk_days": "soon"}, "hospital": {"timezone": "Mars/Base"}}
    with pytest.raises(UsageError) as refused:
        settings.load(None, wrong)
    message = str(refused.value)
    assert all(name in message for name in ("typo", "cohort.washout", "cohort.time_at_risk_days", "hospital.timezone"))
    assert "soon" not in message and "Mars" not in message


@pytest.mark.parametrize(("text", "code"), [(None, "NO_CONFIG"), ("lake = ", "BAD_CONFIG")])
def test_a_config_file_that_cannot_be_read_is_named(tmp_path, text, code):
    config = tmp_path / "hospital.toml"
    if text is not None:
        config.write_text(text)
    with pytest.raises(UsageError, match=f"{code}: --config .*hospital.toml"):
        settings.load(config, {})


def test_the_phi_root_stands_beside_the_lake_unless_it_is_given():
    assert settings.load(None, {"lake": "/a/lake/"}).phi_root == "/a/lake-phi"
    assert settings.load(None, {"lake": "/a/lake", "phi": "/b"}).phi_root == "/b"


def test_what_is_published_stands_beside_the_lake_unless_its_root_is_given_and_is_safe_harbor_unless_asked():
    assert settings.load(None, {"lake": "/a/lake/"}).published_root == "/a/lake-published"
    assert settings.load(None, {"lake": "/a/lake", "published": "/b"}).published_root == "/b"
    assert settings.load(None, {}).privacy.mode == "safe_harbor"
    with pytest.raises(UsageError, match="BAD_SETTING: privacy.max_shift_days: .*; privacy.mode: "):
        settings.load(None, {"privacy": {"mode": "none", "max_shift_days": 0}})


def test_a_job_without_a_model_does_not_load_torch():
    """It takes longer to load than a small delivery to read, and 400 MB."""
    told = "import sys, medpipe.jobs.ingest_records, medpipe.jobs.standardise_records; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", told], capture_output=True, text=True).stdout == "False\n"
