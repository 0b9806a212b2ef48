from datetime import date

import pytest

from medpipe import checkpoints
from medpipe.errors import UsageError

COLUMNS = "recipe string, model_sha256 string, as_of date, status string, effective_from date, sequence long"
DAY, NEXT = date(2026, 1, 31), date(2026, 2, 1)


def models(spark, *rows):
    return spark.createDataFrame(
        [("risk_gru", sha, DAY, status, day, sequence) for sha, status, day, sequence in rows], COLUMNS
    )


def test_the_promotion_made_last_for_the_latest_date_holds(spark):
    rows = models(
        spark,
        ("x", "current", DAY, 1),
        ("y", "current", DAY, 2),
        ("x", "retired", DAY, 2),
        ("x", "current", DAY, 3),
        ("y", "retired", DAY, 3),
        ("y", "current", NEXT, 4),
    )
    assert checkpoints.current(rows, "risk_gru", DAY).model_sha256 == "x"
    assert checkpoints.current(rows, "risk_gru", NEXT).model_sha256 == "y"


def test_before_any_promotion_no_model_is_current(spark):
    rows = models(spark, ("x", "candidate", DAY, 0), ("x", "current", NEXT, 1))
    with pytest.raises(UsageError, match="NO_CURRENT_MODEL: no model of risk_gru is current at 2026-01-31"):
        checkpoints.current(rows, "risk_gru", DAY)


def test_one_model_registered_twice_is_one_candidate_and_two_must_be_chosen_from(spark):
    twice = models(spark, ("x", "candidate", DAY, 0), ("x", "candidate", DAY, 0))
    assert checkpoints.newest_candidate(twice, "risk_gru", NEXT).model_sha256 == "x"
    with pytest.raises(UsageError, match="SEVERAL_CANDIDATES"):
        checkpoints.newest_candidate(
            models(spark, ("x", "candidate", DAY, 0), ("y", "candidate", DAY, 0)), "risk_gru", NEXT
        )
