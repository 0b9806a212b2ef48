from datetime import date

from medpipe.features.patients import patient_features, subgroups

PATIENTS = """
    patient_id string | birth_date date | sex string | source string
    ann               | 1950-02-01      | female     | omop
    ann               | 1950-02-01      | female     | fhir
    bob               | 1950-01-31      | male       | omop
    cat               | 2000-06-30      | unknown    | omop
"""


def pairs(frame):
    return sorted(tuple(row) for row in frame.collect())


def test_a_patients_features_are_sex_age_conditions_and_encounters_and_rare_ones_are_left_out(table):
    encounters = table("""
        patient_id string | kind string
        ann               | inpatient
        ann               | inpatient
        bob               | inpatient
        cat               | emergency
    """)
    events = table("""
        patient_id string | kind string | concept string
        ann               | condition   | OMOP:1
        bob               | condition   | OMOP:1
        bob               | condition   | OMOP:2
        bob               | drug        | OMOP:3
        cat               | drug        | OMOP:3
    """)
    found = patient_features(table(PATIENTS), encounters, events, date(2020, 1, 31), min_patients=2)
    assert pairs(found) == [
        ("ann", "condition=OMOP:1"),
        ("ann", "encounter=inpatient"),
        ("bob", "condition=OMOP:1"),
        ("bob", "encounter=inpatient"),
    ]
    everything = patient_features(table(PATIENTS), encounters, events, date(2020, 1, 31), min_patients=1)
    # Bob's birthday is the day itself; Ann's is tomorrow.
    assert {("bob", "age=70"), ("ann", "age=60"), ("cat", "age=10")} < set(pairs(everything))


def test_subgroups_are_everybody_sex_age_band_and_site(table):
    found = pairs(subgroups(table(PATIENTS), date(2020, 1, 31)))
    assert [group for patient, group in found if patient == "ann"] == [
        "age=60",
        "all",
        "sex=female",
        "site=fhir",
        "site=omop",
    ]
    assert [group for patient, group in found if patient == "cat"] == ["age=10", "all", "site=omop"]
    # At 104 ann is told from nobody of 90.
    assert ("ann", "age=90") in pairs(subgroups(table(PATIENTS), date(2055, 1, 31)))
