from dataclasses import replace

import pytest

from medpipe.errors import UsageError
from medpipe.quality.rules import OwnThreshold, QualitySettings, judged, shipped, with_thresholds
from medpipe.standardise import units

ORPHANS = next(r for r in shipped() if (r.rule, r.table, r.column) == ("isForeignKey", "silver.event", "patient_id"))
COUNTS = """
    check_id string                      | num_rows long | num_failed long
    isForeignKey silver.event.patient_id | 1000          | 10
"""


def statuses(table, threshold, num_rows=1000, num_failed=10):
    counts = table(COUNTS.replace("1000 ", f"{num_rows} ").replace("| 10\n", f"| {num_failed}\n"))
    row = judged(counts, [replace(ORPHANS, threshold=threshold)]).first()
    return row.status, row.share


def test_a_check_fails_above_its_threshold_and_not_at_it(table):
    assert statuses(table, 1) == ("pass", 1.0)
    assert statuses(table, 0.99) == ("fail", 1.0)


def test_a_check_that_asks_no_row_is_not_applicable(table):
    assert statuses(table, 0, 0, 0) == ("not_applicable", None)


def test_every_rule_has_a_name_of_its_own():
    names = [rule.check_id for rule in shipped()]
    assert len(set(names)) == len(names) > 100


def test_a_plausible_range_lies_within_the_one_outside_which_values_are_refused_and_in_its_unit():
    kept = {m.concept: m for m in units.shipped().measurements}
    ranges = [rule for rule in shipped() if rule.concept and rule.column == "value"]
    assert {rule.concept for rule in ranges} == set(kept)
    for rule in ranges:
        inside = kept[rule.concept]
        assert rule.unit == inside.unit
        assert all(inside.low <= bound <= inside.high for bound in (rule.low, rule.high) if bound is not None)


def test_of_several_own_thresholds_that_fit_a_check_the_last_counts():
    own = QualitySettings(
        (OwnThreshold(3, "isForeignKey"), OwnThreshold(40, "isForeignKey", column="encounter_id", kind="drug"))
    )
    found = {
        (r.table, r.column, r.kind): r.threshold for r in with_thresholds(shipped(), own) if r.rule == ORPHANS.rule
    }
    assert found.pop(("silver.event", "encounter_id", "drug")) == 40
    assert set(found.values()) == {3}


def test_rules_without_an_own_threshold_keep_theirs():
    own = QualitySettings((OwnThreshold(3, "isForeignKey"),))
    changed = [old for old, new in zip(shipped(), with_thresholds(shipped(), own), strict=True) if old != new]
    assert {rule.rule for rule in changed} == {"isForeignKey"}


@pytest.mark.parametrize(
    ("own", "told"),
    [
        (OwnThreshold(3, "isForeignKeys"), "UNKNOWN_RULE: .* no check has rule isForeignKeys; rules are fkDomain, "),
        (OwnThreshold(3, "isForeignKey", kind="death"), "UNKNOWN_RULE: .* no check has rule isForeignKey, kind death"),
        (OwnThreshold(101, "isForeignKey"), "BAD_THRESHOLD: .* 101 for isForeignKey; expected 0 to 100"),
    ],
)
def test_a_threshold_that_means_nothing_is_refused(own, told):
    with pytest.raises(UsageError, match=told):
        with_thresholds(shipped(), QualitySettings((own,)))
