"""Small OMOP deliveries for tests, written from text."""

from pathlib import Path

KEY = "ab" * 32
OUTCOME = "OMOP:316139"

PERSON = "person_id,gender_concept_id,year_of_birth,month_of_birth,day_of_birth,person_source_value"
PERIOD = "observation_period_id,person_id,observation_period_start_date,observation_period_end_date"
VISIT = "visit_occurrence_id,person_id,visit_concept_id,visit_start_date,visit_end_date"
CONDITION = (
    "condition_occurrence_id,person_id,condition_concept_id,condition_start_date,condition_start_datetime,"
    "condition_end_date,visit_occurrence_id"
)
DRUG = "drug_exposure_id,person_id,drug_concept_id,drug_exposure_start_date,drug_exposure_end_date,visit_occurrence_id"
MEASUREMENT = (
    "measurement_id,person_id,measurement_concept_id,measurement_date,value_as_number,unit_concept_id,"
    "unit_source_value,visit_occurrence_id"
)
DEATH = "person_id,death_date"
CONCEPT = "concept_id,concept_name,domain_id,vocabulary_id,concept_code"
HEADERS = {
    "person": PERSON,
    "observation_period": PERIOD,
    "visit_occurrence": VISIT,
    "condition_occurrence": CONDITION,
    "drug_exposure": DRUG,
    "measurement": MEASUREMENT,
    "death": DEATH,
    "concept": CONCEPT,
}


def deliver(folder: Path, delivered_at: str, is_history: bool = False, **tables: list[str]) -> Path:
    """Writes a delivery: one CSV per table, its rows without the header."""
    folder.mkdir(parents=True)
    told = f'source = "omop"\ndelivered_at = {delivered_at}\nis_history = {str(is_history).lower()}\n'
    (folder / "delivery.toml").write_text(told)
    for name, rows in tables.items():
        (folder / f"{name}.csv").write_text("\n".join([HEADERS[name], *rows]) + "\n")
    return folder


def first_night(folder: Path) -> Path:
    """Two patients and a visit; one row of each fault that a delivery may have."""
    return deliver(
        folder,
        "2026-01-30T22:00:00",
        is_history=True,
        person=["1,8532,1950,3,14,MRN-0001", "2,8507,1960,,,MRN-0002"],
        observation_period=["1,1,2020-01-01,2026-01-30", "2,2,2020-01-01,2026-01-30", "3,77,2020-01-01,2026-01-30"],
        visit_occurrence=["10,1,9201,2025-05-01,2025-05-03"],
        condition_occurrence=[
            "100,1,201826,2025-05-01,2025-05-01 09:30:00,,10",
            "101,1,320128,2024-02-30,,,10",
            "102,2,320128,2025-06-01,,2025-05-01,",
            "103,99,320128,2025-06-01,,,",
            "104,2,0,2025-07-01,,,555",
            "104,2,0,2025-07-01,,,555",
            "105,2,201826,1950-01-01,,,",
            "106,2,201826,2027-01-01,,,",
            "x7,2,201826,2025-01-01,,,",
            "108,2,201826,2025-01-01,,",
            "109,1,201826,2025-01-01,,,",
            "109,1,320128,2025-02-01,,,",
        ],
        drug_exposure=["100,1,1503297,2025-05-02,2025-06-02,10", "100,2,1545958,2025-06-02,,"],
        measurement=[
            "1,1,3004501,2025-05-01,100,8840,mg/dL,10",
            "2,1,3004501,2025-05-02,5.5,8753,mmol/L,10",
            "3,1,3004501,2025-05-03,90000,8840,mg/dL,10",
            "4,1,3004501,2025-05-04,many,8840,mg/dL,10",
            "5,1,3004501,2025-05-05,NaN,8840,mg/dL,10",
            "6,2,3004501,2025-05-06,101,0,,10",
            "7,2,3004501,2025-05-07,5,8554,%,10",
            "8,2,3004501,2025-05-08,100,0,teaspoons,10",
        ],
    )


def second_night(folder: Path) -> Path:
    """A correction of a measurement, a late condition, a new event, and longer observation."""
    return deliver(
        folder,
        "2026-01-31T22:00:00",
        observation_period=["1,1,2020-01-01,2026-01-31", "2,2,2020-01-01,2026-01-31"],
        condition_occurrence=["200,2,201826,2025-03-01,,,", "201,1,320128,2026-01-31,,,"],
        measurement=["1,1,3004501,2025-05-01,123,8840,mg/dL,10"],
    )
