from datetime import date, datetime
from math import e, log

import pytest
from pyspark.sql import functions as F

from medpipe import contracts, settings
from medpipe.errors import UsageError
from medpipe.features.ratings import RatingSettings, ratings

EVENTS = """
    patient_id string | kind string | concept string | event_at timestamp
    ann               | drug        | OMOP:1         | 2026-01-03
    ann               | drug        | OMOP:1         | 2026-01-01
    ann               | drug        | OMOP:1         | 2026-01-02
    ann               | drug        | OMOP:2         | 2026-01-04
    ann               | drug        | OMOP:0         | 2026-01-05
    bob               | condition   | OMOP:1         | 2026-01-06
    bob               | drug        | OMOP:2         | 2026-01-07
"""
AS_OF = date(2026, 2, 1)


def rated(events, zone="UTC", **chosen):
    return ratings(events, AS_OF, RatingSettings(**chosen), zone)


def test_a_rating_grows_with_the_logarithm_of_the_count_and_dates_from_the_first_time(table):
    found = rated(table(EVENTS)).orderBy("patient_id", "treatment").collect()
    assert [(r.patient_id, r.treatment, r.rating, r.basis, r.rated_at, r.outcome) for r in found] == [
        ("ann", "OMOP:1", pytest.approx(1 + log(3)), "orders", datetime(2026, 1, 1), None),
        ("ann", "OMOP:2", 1.0, "orders", datetime(2026, 1, 4), None),
        ("bob", "OMOP:2", 1.0, "orders", datetime(2026, 1, 7), None),
    ]


def test_what_is_no_drug_or_not_mapped_is_no_treatment(table):
    found = rated(table(EVENTS))
    assert found.where("treatment = 'OMOP:0' or (patient_id = 'bob' and treatment = 'OMOP:1')").isEmpty()


def test_by_duration_a_rating_grows_with_the_calendar_days_that_records_cover_together(table):
    events = table("""
        patient_id string | kind string | concept string | event_at timestamp  | ended_at timestamp
        ann               | drug        | overlapping    | 2026-01-01 00:00:00 | 2026-01-10 00:00:00
        ann               | drug        | overlapping    | 2026-01-02 00:00:00 | 2026-01-04 00:00:00
        ann               | drug        | overlapping    | 2026-01-09 00:00:00 | 2026-01-12 00:00:00
        ann               | drug        | overlapping    | 2026-01-20 00:00:00 | 2026-01-20 00:00:00
        ann               | drug        | open           | 2025-12-01 00:00:00 |
        ann               | drug        | open           | 2025-12-01 09:00:00 |
        ann               | drug        | open           | 2025-12-05 00:00:00 |
        ann               | drug        | prescribed     | 2026-01-30 00:00:00 | 2026-06-30 00:00:00
        ann               | drug        | odd            | 2026-01-05 18:00:00 | 2026-01-05 00:00:00
        ann               | drug        | midnight       | 2026-01-05 22:59:00 | 2026-01-05 23:01:00
    """)
    found = {r.treatment: e ** (r.rating - 1) for r in rated(events, basis="duration").collect()}
    # What is prescribed for days to come is not yet taken; of an end before its start the first day counts.
    assert found == pytest.approx({"overlapping": 13, "open": 2, "prescribed": 2, "odd": 1, "midnight": 1})
    in_vienna = {r.treatment: e ** (r.rating - 1) for r in rated(events, "Europe/Vienna", basis="duration").collect()}
    assert in_vienna["midnight"] == pytest.approx(2)


def test_an_outcome_is_that_of_the_encounters_in_which_a_treatment_was_given_from_its_start_on(table):
    events = table("""
        patient_id string | encounter_id string | kind string | concept string | event_at timestamp | value double
        ann               | v1                  | drug        | statin         | 2026-01-02         |
        ann               | v1                  | drug        | statin         | 2026-01-05         |
        ann               | v1                  | drug        | insulin        | 2026-01-06         |
        ann               | v2                  | drug        | statin         | 2026-01-08         |
        ann               |                     | drug        | aspirin        | 2026-01-02         |
        ann               | v1                  | observation | SCALE:1        | 2026-01-01         | 9
        ann               | v1                  | observation | SCALE:1        | 2026-01-03         | 2
        ann               | v1                  | observation | SCALE:1        | 2026-01-07         | 4
        ann               | v1                  | observation | SCALE:1        | 2026-01-07         |
        ann               | v1                  | observation | SCALE:2        | 2026-01-07         | 8
        ann               | v2                  | observation | SCALE:1        | 2026-01-09         | 3
        ann               |                     | observation | SCALE:1        | 2026-01-09         | 7
        bob               | v1                  | observation | SCALE:1        | 2026-01-09         | 7
    """).withColumn("source", F.lit("omop"))
    found = {r.treatment: (r.rating, r.outcome) for r in rated(events, outcome="SCALE:1").collect()}
    assert found == {"statin": (pytest.approx(1 + log(3)), 3.0), "insulin": (1.0, 4.0), "aspirin": (1.0, None)}


def test_an_unknown_basis_is_refused():
    with pytest.raises(UsageError, match="BAD_SETTING: rating.basis"):
        settings.load(None, {"lake": "/l", "rating": {"basis": "outcome"}})


def test_ratings_conform_to_their_contract(table):
    found = rated(table(EVENTS)).withColumn("run_id", F.lit("r"))
    rows = contracts.conform(found, "gold.rating")
    assert rows.where(F.size(contracts.violations("gold.rating")) > 0).isEmpty() and rows.count() == 3
