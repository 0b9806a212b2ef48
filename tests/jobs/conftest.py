from datetime import date

import pytest

from medpipe import job, ledger, settings
from medpipe.tables import Lake
from tests.deliveries import KEY, OUTCOME


def open_at(spark, folder, as_of, **more):
    """The workplace of the lake in a folder, for one as_of; `more` are settings."""
    given = {
        "lake": str(folder / "lake"),
        "hospital": {"timezone": "Europe/Vienna"},
        "cohort": {"outcome_concepts": [OUTCOME]},
        "thresholds": {"omop": {"max_bad_ratio": 0.9}},
    } | more
    configured = settings.load(None, given)
    lake = Lake(spark, configured.lake, configured.phi_root, configured.hospital.timezone)
    return job.Workplace(lake, configured, date.fromisoformat(as_of), ledger.Ledger.open(lake))


@pytest.fixture
def workplace(spark, tmp_path, monkeypatch):
    """A function of as_of: the workplace of one lake under tmp_path."""
    monkeypatch.setenv("MEDPIPE_PSEUDONYM_KEY", KEY)
    return lambda as_of, **more: open_at(spark, tmp_path, as_of, **more)
