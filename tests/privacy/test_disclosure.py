from dataclasses import replace
from datetime import date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import functions as F
from pyspark.sql.types import DateType, DoubleType, FloatType, IntegerType, LongType, StringType

from medpipe import contracts
from medpipe.errors import ContractError
from medpipe.privacy.disclosure import MODES, Release, released, shift_days, shifter, withheld_zip3, zip3
from medpipe.privacy.pseudonyms import pseudonym, pseudonymiser

TABLES = [name for name in contracts.names() if name.split(".")[0] in MODES]
PLAIN = (StringType, IntegerType, LongType, FloatType, DoubleType)
SHIFT, HIDE = b"s" * 32, b"h" * 32


@pytest.fixture(scope="module")
def release(spark):
    return Release(date(2026, 1, 31), "America/New_York", pseudonymiser(HIDE, "published"), shifter(SHIFT, 50))


def by_id(frame, key):
    return {row[key]: row for row in frame.collect()}


def hidden(identifier):
    return pseudonym(HIDE, "published", identifier)


@pytest.mark.parametrize("name", TABLES)
def test_every_column_of_a_published_table_is_made_by_a_rule_from_a_column_that_the_rule_is_for(name):
    contract = contracts.load(name)
    source = contracts.load(contract.of).struct
    assert [column.name for column in contract.disclosed] == [n for n in contract.struct.names if n != "run_id"]
    for column in contract.disclosed:
        if column.rule == "label" or column.source == "as_of":
            assert column.rule in ("label", "year")
            continue
        kind, is_id = type(source[column.source].dataType), column.source.endswith("_id")
        assert is_id == (column.rule == "pseudonym"), column
        if column.rule == "same":
            assert kind in PLAIN and column.source not in ("postcode", "delivery_id", "run_id"), column
        allowed = DateType if column.rule == "shifted" else PLAIN
        assert isinstance(contract.struct[column.name].dataType, allowed), column


@pytest.mark.parametrize("name", TABLES)
def test_both_modes_publish_the_same_tables_and_only_the_limited_one_has_days(name):
    mode, table = name.split(".")
    contract = contracts.load(name)
    assert {f"{other}.{table}" for other in MODES} <= set(TABLES)
    assert mode == "limited" or "shifted" not in {column.rule for column in contract.disclosed}
    assert contract.label.startswith(mode) and contract.partition_by == ("as_of_year",)


def test_the_rules_for_zip_codes_and_ages_hold_at_their_edges(table, release):
    rows = table("""
        patient_id string | birth_date date | sex string | state string | postcode string | source string | source_table string
        kept              | 1937-01-01      | female     | WA           | 98052           | fhir          | patient
        small             | 1936-12-31      | male       | VA           | 20301           | fhir          | patient
        uncounted         | 1925-06-01      | male       | WA           | 00000           | fhir          | patient
        longer            | 2026-01-30      | male       | WA           | 98028-1830      | fhir          | patient
        partial           | 1990-01-01      | male       | WA           | 980             | fhir          | patient
        foreign           | 1990-01-01      | male       |              | SW1A 1AA        | fhir          | patient
        none              | 1990-01-01      | male       |              |                 | fhir          | patient
    """)  # noqa: E501
    found = by_id(released(rows, contracts.load("safe_harbor.patient"), release), "patient_id")
    told = {
        name: found[hidden(name)] for name in ("kept", "small", "uncounted", "longer", "partial", "foreign", "none")
    }
    zips = ["980", "000", "000", None, None, None, None]
    assert [row.zip3 for row in told.values()] == zips
    assert [row.birth_year for row in told.values()] == [1937, None, None, 2026, 1990, 1990, 1990]
    assert [row.age for row in told.values()] == ["89", "90+", "90+", "0", "36", "36", "36"]
    assert {(row.as_of_year, row.disclosure) for row in told.values()} == {(2026, "safe_harbor")}


def test_three_digits_leave_only_where_the_census_counts_more_than_20_000_people(spark):
    assert len(withheld_zip3()) == len(set(withheld_zip3())) == 1000 - (894 - 18)
    every = spark.range(1000).select(F.lpad(F.col("id").cast("string"), 3, "0").alias("digits"))
    found = every.select("digits", zip3(F.concat("digits", F.lit("01"))).alias("zip3")).collect()
    assert {row.digits for row in found if row.zip3 == "000"} == set(withheld_zip3())
    assert all(row.zip3 in ("000", row.digits) for row in found)


EVENTS = [
    # The hospital's clock is five hours behind: its 31 December.
    ("e1", "ann", "v", datetime(2025, 1, 1, 4, 59), datetime(2025, 1, 3, 12)),
    ("e2", "ann", None, datetime(2025, 3, 1, 12), None),
    ("e3", "bob", None, datetime(2025, 3, 1, 12), None),
]


@pytest.fixture(scope="module")
def events(spark):
    columns = "event_id string, patient_id string, encounter_id string, event_at timestamp, ended_at timestamp"
    rows = spark.createDataFrame(EVENTS, columns)
    return rows.selectExpr(
        "*", "'drug' kind", "'RxNorm:1' concept", "cast(null as double) value", "'' unit", "current_date() known_on"
    )


def test_safe_harbor_keeps_the_year_of_the_hospitals_calendar_and_nothing_that_no_rule_names(events, release):
    contract = contracts.load("safe_harbor.event")
    found = released(events, contract, release)
    assert found.columns == [name for name in contract.struct.names if name != "run_id"]
    rows = by_id(found, "event_id")
    told = [(row.event_year, row.ended_year) for row in (rows[hidden(event)] for event in ("e1", "e2", "e3"))]
    assert told == [(2024, 2025), (2025, None), (2025, None)]
    assert {(row.patient_id, row.encounter_id) for row in rows.values()} == {
        (hidden("ann"), hidden("v")),
        (hidden("ann"), None),
        (hidden("bob"), None),
    }


def test_limited_moves_all_days_of_a_patient_by_the_same_number_and_says_that_it_is_limited(events, release):
    rows = by_id(released(events, contracts.load("limited.event"), release), "event_id")
    one, two, three = (rows[hidden(event)] for event in ("e1", "e2", "e3"))
    ann, bob = (shift_days(SHIFT, patient, 50) for patient in ("ann", "bob"))
    assert [(row.event_on - day).days for row, day in ((one, date(2024, 12, 31)), (two, date(2025, 3, 1)))] == [ann] * 2
    assert (one.ended_on - date(2025, 1, 3)).days == ann and two.ended_on is None
    assert (three.event_on - date(2025, 3, 1)).days == bob != ann
    assert "expert" in one.disclosure


def test_the_order_of_published_rows_is_that_of_their_key(events, release):
    rows = released(events.coalesce(1), contracts.load("limited.event"), release)
    for partition in rows.rdd.glom().collect():
        assert [row.event_id for row in partition] == sorted(row.event_id for row in partition)


def test_a_rule_that_nobody_knows_lets_nothing_out(events, release):
    contract = contracts.load("limited.event")
    unknown = replace(contract, disclosed=(replace(contract.disclosed[1], rule="asis"),))
    with pytest.raises(ContractError, match="UNKNOWN_RULE: limited.event: event_id has the rule 'asis'"):
        released(events, unknown, release)


@given(st.binary(min_size=32, max_size=32), st.text(max_size=40), st.integers(1, 400))
def test_a_shift_is_the_patients_own_within_bounds_and_never_none(subkey, patient_id, max_days):
    shift = shift_days(subkey, patient_id, max_days)
    assert 1 <= abs(shift) <= max_days
    assert shift == shift_days(subkey, patient_id, max_days)


def test_every_shift_within_bounds_is_given_and_another_key_gives_others():
    patients = [str(number) for number in range(200)]
    shifts = [shift_days(SHIFT, patient, 3) for patient in patients]
    assert set(shifts) == {-3, -2, -1, 1, 2, 3}
    assert shifts != [shift_days(HIDE, patient, 3) for patient in patients]
