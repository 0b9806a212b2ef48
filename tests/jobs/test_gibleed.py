"""A night of real structure: the OMOP 5.3 set GiBleed of 2,694 persons, read in place."""

from collections import Counter
from datetime import date

import pytest
from pyspark.sql import functions as F

from medpipe import job, ledger, settings
from medpipe.jobs import nightly, promote_model, retrain_risk
from medpipe.tables import Lake
from tests.deliveries import KEY

AS_OF = date(2019, 7, 3)
DELIVERED = 225_494
# Viral pharyngitis: an outcome frequent enough for every split to hold it.
OUTCOME = "OMOP:4112343"


@pytest.fixture(scope="module")
def night(spark, shared_data, tmp_path_factory):
    """Load, train, promote, and the night; gives the lake and the ledger."""
    root = tmp_path_factory.mktemp("gibleed")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MEDPIPE_PSEUDONYM_KEY", KEY)
        given = {
            "lake": str(root / "lake"),
            "cohort": {
                "outcome_concepts": [OUTCOME],
                "washout_days": 365,
                "time_at_risk_days": 365,
                # Periods end at a patient's last event: nearly nobody's reaches the end of the newest year.
                "lag_days": 365,
                "max_unseen_days": 730,
            },
            "train": {"max_epochs": 1, "num_draws": 20},
            "als": {"rank": 4, "iterations": 3},
        }
        configured = settings.load(None, given)
        lake = Lake(spark, configured.lake, configured.phi_root)
        work = job.Workplace(lake, configured, AS_OF, ledger.Ledger.open(lake))
        folder = shared_data / "ehr_omop_gibleed"
        nightly.load(work, [folder], is_history=True)
        retrain_risk.retrain(work)
        work.run(promote_model.main, recipe="risk_gru")
        nightly.night(work, [folder], is_history=True)
        yield work
    spark.catalog.clearCache()


@pytest.fixture
def lake(night):
    return night.lake.for_run("")


def test_all_rows_are_accounted_for_and_each_refused_one_has_its_reason(night, lake):
    entry = next(e for e in night.ledger.entries if (e.job, e.status) == ("standardise_records", "done"))
    assert (entry.rows_in, entry.rows_out, entry.rows_quarantined, entry.rows_duplicate) == (
        DELIVERED,
        222_818,
        2_676,
        0,
    )
    found = Counter({(r.source_table, *r.reasons): r.n for r in _reasons(lake)})
    assert found == {
        ("observation_period", "UNKNOWN_PATIENT"): 2_649,
        ("drug_exposure", "KEY_CONFLICT"): 6,
        ("drug_exposure", "BEFORE_BIRTH"): 1,
        ("measurement", "KEY_CONFLICT"): 20,
    }


def _reasons(lake):
    return lake.read("phi.quarantine").groupBy("source_table", "reasons").agg(F.count("*").alias("n")).collect()


def test_an_unknown_visit_is_reported_and_refuses_nothing(lake):
    gaps = {(r.source_table, r.gap): r.num_rows for r in lake.read("ops.data_gap").collect()}
    assert gaps[("condition_occurrence", "UNKNOWN_VISIT")] == 64_717
    assert lake.read("silver.event").where("source_table = 'condition_occurrence'").count() == 65_332


def test_drug_ids_that_stand_for_several_persons_keep_all_their_rows(lake):
    drugs = lake.read("silver.event").where("source_table = 'drug_exposure'")
    shared = drugs.groupBy("event_id").agg(F.count_distinct("patient_id").alias("n"), F.count("*").alias("rows"))
    assert drugs.count() == 67_700
    # Each of the 7 refused rows has an id that stands for one person only.
    assert shared.agg(F.sum(F.col("n") - 1)).first()[0] == 4_381


def test_dates_from_before_1970_come_through(lake):
    first = lake.read("silver.event").agg(F.min("event_at").cast("string")).first()[0]
    assert first == "1908-10-30 00:00:00"


def test_the_gold_tables_are_filled(night, lake):
    names = (
        "cohort",
        "sequence",
        "score",
        "rating",
        "recommendation",
        "patient_similarity",
        "model_metric",
        "vocabulary",
    )
    counts = {name: lake.read(f"gold.{name}").count() for name in names}
    assert all(counts.values()), counts
    assert lake.read("gold.recommendation").select("patient_id").distinct().count() == 2_694


def test_lists_are_measured_on_new_patients_and_on_the_last_treatments_of_all_others(lake):
    rows = lake.read("gold.model_metric", AS_OF, {"recipe": "blend", "metric": "ndcg_at_10"}).collect()
    assert {"blend", "exact_als", "ease", "popularity"} <= {row.model for row in rows}
    assert {"all", "sex=female", "site=omop"} < {row.subgroup for row in rows}
    found = {(row.split, row.model): row for row in rows if row.subgroup == "all"}
    # A tenth of the patients by a hash, and of all others those with two treatments.
    assert 200 < found["cold_start", "blend"].num_patients < 340 < found["time_ordered", "blend"].num_patients
