"""Each check type on a hospital of four patients with one fault of each kind; all rules counted at once."""

import pytest
from pyspark.sql import functions as F

from medpipe.quality.counting import counts
from medpipe.quality.rules import Rule, shipped

PATIENT = """
    patient_id string | birth_date date | sex string
    ann               | 1950-03-14      | female
    bob               | 1960-01-01      | male
    cy                | 1940-06-01      | unknown
    dee               | 1980-01-01      | female
"""
ENCOUNTER = """
    encounter_id string | patient_id string | started_at timestamp | ended_at timestamp
    v1                  | ann               | 2025-05-01T08:00     | 2025-05-03T00:00
    v2                  | bob               | 2025-06-01T08:00     |
    v3                  | cy                | 2025-06-01T08:00     | 2025-06-01T09:00
    v3                  | dee               | 2025-06-01T08:00     | 2025-06-01T09:00
    v4                  | zed               | 2025-06-01T08:00     |
    v5                  | ann               | 2025-01-02T10:00     | 2025-01-01T20:00
"""
PERIOD = """
    period_id string | patient_id string | start_date date | end_date date
    p1               | ann               | 1950-03-13      | 2025-12-31
    p2               | bob               | 1990-01-01      | 2025-12-31
    p3               | cy                | 1990-01-01      | 2025-12-31
"""
# In Vienna e17 is of the day of birth, e18 of the day before.
EVENT = """
    event_id string | patient_id string | encounter_id string | kind string | concept string | event_at timestamp | ended_at timestamp | value double | unit string
    e1              | ann               | v1                  | condition   | OMOP:201826    | 2025-05-01T08:00   |                    |              |
    e2              | ann               | v1                  | condition   | OMOP:0         | 2025-05-02T08:00   |                    |              |
    e3              | ann               | v1                  | condition   | OMOP:999       | 2025-05-20T08:00   |                    |              |
    e4              | bob               | v9                  | condition   | OMOP:198803    | 2025-06-01T08:00   |                    |              |
    e5              | ann               |                     | condition   | OMOP:198803    | 2025-06-01T08:00   |                    |              |
    e6              | cy                |                     | condition   | OMOP:198803    | 2025-06-01T08:00   |                    |              |
    e7              | bob               | v2                  | drug        | OMOP:1503297   | 2025-06-01T08:00   | 2025-06-30T00:00   |              |
    e8              | bob               | v2                  | drug        | OMOP:201826    | 2025-05-20T08:00   |                    |              |
    e9              | bob               |                     | death       | OMOP:4306655   | 2025-07-01T08:00   |                    |              |
    e10             | bob               |                     | condition   | OMOP:201826    | 2025-08-30T08:00   |                    |              |
    e11             | bob               |                     | condition   | OMOP:201826    | 2025-08-31T08:00   |                    |              |
    e12             | ann               |                     | measurement | OMOP:3004501   | 2025-05-01T08:00   |                    | 100          | mg/dL
    e13             | ann               |                     | measurement | OMOP:3004501   | 2025-05-01T08:00   |                    | 20           | mg/dL
    e14             | ann               |                     | measurement | OMOP:3004501   | 2025-05-01T08:00   |                    | 900          | mg/dL
    e15             | ann               |                     | measurement | OMOP:3004501   | 2025-05-01T08:00   |                    | 5            |
    e16             | ann               |                     | measurement | OMOP:3004501   | 2025-05-01T08:00   |                    |              |
    e17             | ann               |                     | procedure   | OMOP:4163872   | 1950-03-13T23:30   |                    |              |
    e18             | ann               |                     | procedure   | OMOP:4163872   | 1950-03-13T22:30   |                    |              |
    e19             | zed               |                     | procedure   | OMOP:4163872   | 2025-01-01T08:00   |                    |              |
    e20             | cy                |                     | observation | OMOP:4163872   | 1949-12-31T08:00   |                    |              |
    e1              | bob               |                     | drug        | OMOP:1503297   | 2025-06-02T08:00   | 2025-06-01T08:00   |              |
    e22             | ann               |                     | observation | OMOP:4163872   |                    |                    |              |
"""  # noqa: E501
CONCEPT = """
    concept string | domain string
    OMOP:201826    | Condition
    OMOP:198803    | Condition
    OMOP:1503297   | Drug
    OMOP:3004501   | Measurement
    OMOP:4163872   |
"""


@pytest.fixture(scope="module")
def silver(table):
    texts = {
        "patient": PATIENT,
        "encounter": ENCOUNTER,
        "observation_period": PERIOD,
        "event": EVENT,
        "concept": CONCEPT,
    }
    return {f"silver.{name}": table(text) for name, text in texts.items()}


@pytest.fixture(scope="module")
def found(silver):
    """(rule, table without zone, column, kind or concept or None) -> (rows asked, rows that fail)."""
    rows = counts(silver, shipped(), "Europe/Vienna").collect()
    assert len(rows) == len(shipped())
    return {
        (row.rule, row.table.removeprefix("silver."), row["column"], row.kind or row.concept): (
            row.num_rows,
            row.num_failed,
        )
        for row in rows
    }


def test_a_patient_without_a_row_in_a_table_is_counted_once(found):
    name = "measurePersonCompleteness"
    assert found[name, "observation_period", "patient_id", None] == (4, 1)
    assert found[name, "encounter", "patient_id", None] == (4, 0)
    kinds = ("condition", "drug", "measurement", "procedure", "observation", "death")
    assert [found[name, "event", "patient_id", kind] for kind in kinds] == [(4, 1), *[(4, 3)] * 3, (4, 2), (4, 3)]


def test_a_value_that_is_not_given_is_counted_among_the_rows_of_its_kind(found):
    name = "measureValueCompleteness"
    assert found[name, "encounter", "ended_at", None] == (6, 2)
    assert found[name, "event", "encounter_id", "condition"] == (8, 4)
    assert found[name, "event", "ended_at", "drug"] == (3, 1)
    assert found[name, "event", "value", "measurement"] == (5, 1)
    assert found[name, "concept", "domain", None] == (5, 1)


def test_a_required_value_that_is_not_there_is_counted(found):
    assert found["isRequired", "event", "event_at", None] == (22, 1)
    assert found["isRequired", "observation_period", "end_date", None] == (3, 0)


def test_what_the_hospital_mapped_to_no_concept_is_counted(found):
    assert found["standardConceptRecordCompleteness", "event", "concept", "condition"] == (8, 1)
    assert found["standardConceptRecordCompleteness", "patient", "sex", None] == (4, 1)


def test_all_rows_of_an_id_that_stands_twice_are_counted(found):
    assert found["isPrimaryKey", "encounter", "encounter_id", None] == (6, 2)
    assert found["isPrimaryKey", "observation_period", "period_id", None] == (3, 0)
    assert found["isPrimaryKey", "event", "event_id", None] == (22, 2)


def test_an_orphan_is_counted_among_the_rows_that_name_a_parent(found):
    name = "isForeignKey"
    assert found[name, "encounter", "patient_id", None] == (6, 1)
    assert found[name, "observation_period", "patient_id", None] == (3, 0)
    assert found[name, "event", "patient_id", None] == (22, 1)
    assert found[name, "event", "encounter_id", "condition"] == (4, 1)
    assert found[name, "event", "encounter_id", "drug"] == (2, 0)


def test_a_concept_is_looked_for_in_the_vocabulary_and_its_domain_held_against_the_kind(found):
    assert found["isForeignKey", "event", "concept", "condition"] == (7, 1)
    assert found["isForeignKey", "event", "concept", "drug"] == (3, 0)
    assert found["fkDomain", "event", "concept", "condition"] == (6, 0)
    assert found["fkDomain", "event", "concept", "drug"] == (3, 1)
    assert found["fkDomain", "event", "concept", "procedure"] == (0, 0)


def test_what_happened_before_the_birth_is_counted_by_the_hospitals_days(found):
    assert found["plausibleAfterBirth", "encounter", "started_at", None] == (5, 0)
    assert found["plausibleAfterBirth", "observation_period", "start_date", None] == (3, 1)
    assert found["plausibleAfterBirth", "event", "event_at", None] == (20, 1)


def test_what_happened_more_than_60_days_after_the_death_is_counted_among_rows_of_the_dead(found):
    assert found["plausibleBeforeDeath", "encounter", "started_at", None] == (1, 0)
    assert found["plausibleBeforeDeath", "observation_period", "end_date", None] == (1, 1)
    assert found["plausibleBeforeDeath", "event", "event_at", "condition"] == (3, 1)
    assert found["plausibleBeforeDeath", "event", "event_at", "measurement"] == (0, 0)


def test_an_end_on_an_earlier_day_than_the_start_is_counted(found):
    assert found["plausibleStartBeforeEnd", "encounter", "started_at", None] == (4, 1)
    assert found["plausibleStartBeforeEnd", "observation_period", "start_date", None] == (3, 0)
    assert found["plausibleStartBeforeEnd", "event", "event_at", None] == (2, 1)


def test_an_event_more_than_a_week_before_or_after_its_visit_is_counted(found):
    assert found["withinVisitDates", "event", "event_at", "condition"] == (3, 1)
    assert found["withinVisitDates", "event", "event_at", "drug"] == (2, 1)


def test_a_value_outside_its_concepts_range_and_one_without_the_concepts_unit_are_counted(found):
    assert found["plausibleValueLow", "event", "value", "OMOP:3004501"] == (3, 1)
    assert found["plausibleValueHigh", "event", "value", "OMOP:3004501"] == (3, 1)
    assert found["plausibleUnitConceptIds", "event", "unit", "OMOP:3004501"] == (4, 1)
    assert found["plausibleValueLow", "event", "event_at", None] == (21, 1)


def test_a_concept_of_one_sex_in_a_patient_of_the_other_is_counted_and_unknown_sex_is_not_asked(found):
    assert found["plausibleGender", "event", "concept", "OMOP:198803"] == (2, 1)
    assert found["plausibleGender", "event", "concept", "OMOP:200962"] == (0, 0)


def test_a_sex_that_two_sources_do_not_agree_on_is_not_known(silver):
    other = silver["silver.patient"].where("patient_id = 'ann'").withColumn("sex", F.lit("male"))
    both = silver | {"silver.patient": silver["silver.patient"].union(other)}
    asked = [rule for rule in shipped() if rule.concept == "OMOP:198803"]
    assert [(row.num_rows, row.num_failed) for row in counts(both, asked, "UTC").collect()] == [(1, 0)]


def test_a_thousand_rules_of_concepts_make_the_same_plan_as_one(silver):
    def size(num_rules):
        rules = [
            Rule("plausibleValueLow", "Plausibility", "silver.event", "value", 5, concept=f"OMOP:{i}", unit="%", low=1)
            for i in range(num_rules)
        ]
        plan = counts(silver, rules, "UTC")._jdf.queryExecution().optimizedPlan().toString()
        return plan.count("Join"), plan.count("Aggregate"), plan.count("count_if")

    assert size(1000) == size(1)
