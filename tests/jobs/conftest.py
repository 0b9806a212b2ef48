from datetime import date

from medpipe import job, ledger, settings
from medpipe.tables import Lake
from tests.deliveries import OUTCOME


def open_at(spark, folder, as_of, **more):
    """The workplace of the lake in a folder, for one as_of; `more` are settings."""
    given = {
        "lake": str(folder / "lake"),
        "hospital": {"timezone": "Europe/Vienna"},
        "cohort": {"outcome_concepts": [OUTCOME]},
        # The second delivery alone is about nobody known.
        "thresholds": {"omop": {"max_bad_ratio": 1.0}},
    } | more
    configured = settings.load(None, given)
    lake = Lake(spark, configured.lake, configured.phi_root, configured.hospital.timezone)
    return job.Workplace(lake, configured, date.fromisoformat(as_of), ledger.Ledger.open(lake))
