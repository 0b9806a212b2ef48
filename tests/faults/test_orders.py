"""Deliveries twice, in the wrong order, days filled in later, two drivers at once: the same tables in the end."""

import shutil

import pytest

from medpipe.jobs import nightly
from tests import nights
from tests.conftest import CONF
from tests.faults import crashes
from tests.nights import Nights, differing


def with_model_of(found: Nights, folder) -> Nights:
    """A lake that has the hospital's promoted model and nothing else."""
    for part in ("ops/model", "models"):
        shutil.copytree(found.folder / "lake" / part, folder / "lake" / part)
    return Nights(found.hospital, folder)


def told(found: Nights, spark) -> dict[str, list[str]]:
    """Tables but phi.key, whose row names the run that came first, and scores without the version of the sequences.

    Both tell which way was taken; nothing else may.
    """
    tables = found.tables(spark)
    del tables["phi.key"]
    lake = found.workplace(spark, found.as_ofs[-1]).lake
    scores = lake.read("gold.score").drop("feature_version").collect()
    return tables | {"gold.score": sorted(map(str, scores))}


@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_deliveries_twice_and_in_the_wrong_order_and_an_older_day_after_a_newer_give_the_same_tables(
    after_first_night, spark, tmp_path
):
    right, wrong = (with_model_of(after_first_night, tmp_path / name) for name in ("right", "wrong"))
    one, two = right.deliveries[:2]
    nightly.night(right.workplace(spark, right.as_ofs[0]), [one])
    nightly.night(right.workplace(spark, right.as_ofs[1]), [two])
    nightly.night(wrong.workplace(spark, wrong.as_ofs[1]), [two, one, two])
    nightly.night(wrong.workplace(spark, wrong.as_ofs[0]), [])
    assert differing(told(wrong, spark), told(right, spark)) == []


@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_of_two_drivers_on_one_date_one_wins_or_both_agree(after_first_night, after_second_night, spark, tmp_path):
    found = after_first_night.copy_to(tmp_path)
    flags = [*found.flags(found.as_ofs[1]), "--delivery", str(found.deliveries[1])]
    drivers = [crashes.start_night(found, flags, CONF) for _ in range(2)]
    ended = [crashes.wait(driver, seconds=900) for driver in drivers]
    codes = sorted(code for code, _ in ended)
    assert codes in ([0, 0], [0, 5]), ended
    # Rows of a partition that both wrote are equal, but scores name the version of the sequences they were made from.
    assert differing(told(found, spark), told(after_second_night, spark)) == []
    nights.second_night(spark, found)
    assert differing(told(found, spark), told(after_second_night, spark)) == []
