from datetime import date, datetime
from math import log

import pytest

from medpipe import contracts
from medpipe.features.ratings import ratings

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


def test_a_rating_grows_with_the_logarithm_of_the_count_and_dates_from_the_first_time(table):
    found = ratings(table(EVENTS), date(2026, 2, 1)).orderBy("patient_id", "treatment").collect()
    assert [(r.patient_id, r.treatment, r.rating, r.rated_at) for r in found] == [
        ("ann", "OMOP:1", pytest.approx(1 + log(3)), datetime(2026, 1, 1)),
        ("ann", "OMOP:2", 1.0, datetime(2026, 1, 4)),
        ("bob", "OMOP:2", 1.0, datetime(2026, 1, 7)),
    ]


def test_what_is_no_drug_or_not_mapped_is_no_treatment(table):
    found = ratings(table(EVENTS), date(2026, 2, 1))
    assert found.where("treatment = 'OMOP:0' or (patient_id = 'bob' and treatment = 'OMOP:1')").isEmpty()


def test_ratings_conform_to_their_contract(table):
    from pyspark.sql import functions as F

    found = ratings(table(EVENTS), date(2026, 2, 1)).withColumn("run_id", F.lit("r"))
    rows = contracts.conform(found, "gold.rating")
    assert rows.where(F.size(contracts.violations("gold.rating")) > 0).isEmpty() and rows.count() == 3
