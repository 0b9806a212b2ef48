from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from medpipe.cohort.eligibility import CohortSettings, Window, cohort, index_date
from medpipe.cohort.splits import split_of
from medpipe.errors import UsageError

SETTINGS = CohortSettings(outcome_concepts=("HF",), observation_days=365, time_at_risk_days=30)
WINDOW = Window(date(2025, 6, 1), datetime(2025, 6, 1, tzinfo=UTC), datetime(2025, 7, 1, tzinfo=UTC))


def asked(table, periods, events, role="fit", settings=SETTINGS, window=WINDOW):
    """patient -> (label, exclusion)."""
    names = sorted({line.split("|")[0].strip() for line in periods.strip().splitlines()} | {"unseen"})
    patients = table("patient_id string | birth_date date\n" + "\n".join(f"{name} | 1960-01-01" for name in names))
    spans = table("patient_id string | start_date date | end_date date\n" + periods)
    happened = table("patient_id string | kind string | concept string | event_at timestamp\n" + events)
    rows = cohort(patients, spans, happened, role, window, settings).collect()
    assert len(rows) == len(names)
    return {row.patient_id: (row.label, row.exclusion) for row in rows}


PERIODS = """
    well    | 2020-01-01 | 2025-12-31
    ill     | 2020-01-01 | 2025-12-31
    late    | 2020-01-01 | 2025-12-31
    prior   | 2020-01-01 | 2025-12-31
    left    | 2020-01-01 | 2025-06-10
    leftill | 2020-01-01 | 2025-06-10
    new     | 2025-01-01 | 2025-12-31
    dead    | 2020-01-01 | 2025-12-31
    died    | 2020-01-01 | 2025-06-10
    gone    | 2020-01-01 | 2024-12-31
"""
EVENTS = """
    ill     | condition | HF | 2025-06-01 00:00:00
    late    | condition | HF | 2025-07-01 00:00:00
    prior   | condition | HF | 2023-01-01 00:00:00
    leftill | condition | HF | 2025-06-05 00:00:00
    dead    | death     | X  | 2025-05-31 00:00:00
    died    | death     | X  | 2025-06-09 00:00:00
"""


def test_each_patient_has_a_label_or_the_reason_why_not(table):
    assert asked(table, PERIODS, EVENTS) == {
        "well": (0, None),
        "ill": (1, None),
        "late": (0, None),
        "prior": (-1, "PRIOR_OUTCOME"),
        "left": (-1, "CENSORED"),
        "leftill": (1, None),
        "new": (-1, "SHORT_HISTORY"),
        "dead": (-1, "DECEASED"),
        "died": (0, None),
        "gone": (-1, "NOT_OBSERVED"),
        "unseen": (-1, "NOT_OBSERVED"),
    }


def test_to_apply_nobody_has_a_label_and_nobody_is_left_out_for_what_comes_after(table):
    found = asked(table, PERIODS, EVENTS, role="apply")
    assert {label for label, _ in found.values()} == {-1}
    assert found["left"] == (-1, None) and found["prior"] == (-1, "PRIOR_OUTCOME")


def test_after_the_washout_an_old_outcome_no_longer_counts(table):
    settings = CohortSettings(("HF",), 365, 30, washout_days=365)
    assert asked(table, PERIODS, EVENTS, settings=settings)["prior"] == (0, None)


def test_without_an_outcome_nothing_can_be_asked(table):
    with pytest.raises(UsageError, match="NO_OUTCOME"):
        asked(table, PERIODS, EVENTS, settings=CohortSettings())


def test_the_index_lies_so_far_back_that_every_label_is_known():
    assert index_date(date(2025, 7, 1), "fit", SETTINGS) == date(2025, 6, 1)
    assert index_date(date(2025, 7, 1), "apply", SETTINGS) == date(2025, 7, 1)


def test_with_a_lag_the_index_to_fit_lies_so_much_further_back_and_that_to_apply_does_not():
    lagging = replace(SETTINGS, lag_days=10)
    assert index_date(date(2025, 7, 1), "fit", lagging) == date(2025, 5, 22)
    assert index_date(date(2025, 7, 1), "apply", lagging) == date(2025, 7, 1)


@pytest.mark.parametrize(("lag_days", "found"), [(0, (-1, "CENSORED")), (9, (-1, "CENSORED")), (10, (0, None))])
def test_a_patient_whose_period_ends_before_as_of_has_a_label_once_the_lag_covers_the_gap(table, lag_days, found):
    settings = replace(SETTINGS, lag_days=lag_days)
    start = datetime.combine(index_date(date(2025, 7, 1), "fit", settings), datetime.min.time(), UTC)
    window = Window(start.date(), start, start + timedelta(days=30))
    assert asked(table, "ends | 2020-01-01 | 2025-06-20", "", settings=settings, window=window)["ends"] == found


def test_a_patient_keeps_its_split_and_the_shares_are_as_stated(spark):
    from pyspark.sql import functions as F

    ids = spark.range(20_000).select(F.md5(F.col("id").cast("string")).alias("patient_id"))
    shares = {
        r.split: r["count"] / 20_000
        for r in ids.groupBy(split_of(F.col("patient_id")).alias("split")).count().collect()
    }
    assert shares == {
        "train": pytest.approx(0.6, abs=0.02),
        "tune": pytest.approx(0.2, abs=0.02),
        "test": pytest.approx(0.2, abs=0.02),
    }
