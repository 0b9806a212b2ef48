"""What happened -> OMOP CDM 5.4 rows as Arrow tables, each with the night that delivers it.

Source of tables and columns: ohdsi.github.io/CommonDataModel/cdm54.html.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from medpipe.simulate import concepts
from medpipe.simulate.history import CONDITION, DRUG, MEASUREMENT, PROCEDURE, Events, Visits
from medpipe.simulate.people import People

# Record ids of a chunk; more than its events, so that no two chunks meet.
IDS_PER_CHUNK = 1_000_000
STAY_DAYS = 4
DAYS_SUPPLY = 30
SIGS = ("1 tablet daily", "1 tablet twice daily, with food", 'as needed; "max 3 a day"', "ask Dr. Huber, 0660 1234567")
STOP_REASONS = (None, None, None, "completed", "told nurse Maria Gruber of dizziness")


@dataclass(frozen=True, eq=False)
class Rows:
    """R rows of one OMOP table: Arrow columns, and per row the index of its patient, its day and the night it comes.

    `day` is -1 where a row has none. Row order is by patient.
    """

    name: str
    columns: pa.Table
    person: np.ndarray
    day: np.ndarray
    night: np.ndarray

    def take(self, rows: np.ndarray) -> "Rows":
        return Rows(self.name, self.columns.take(rows), self.person[rows], self.day[rows], self.night[rows])


def patient_tables(people: People, first_night: int, num_nights: int) -> list[Rows]:
    """person, death, and observation_period with a row for every night on which its end moves."""
    last = first_night + num_nights - 1
    everyone = np.arange(len(people.person_id))
    night = _night(people.joined_day, first_night)
    died = np.flatnonzero(people.died_day <= np.minimum(last, people.left_day))
    found = [
        Rows("person", _persons(people), everyone, np.full(len(everyone), -1), night),
        Rows("death", _deaths(people, died), died, people.died_day[died], _night(people.died_day[died], first_night)),
    ]
    for number in range(num_nights):
        until, before = (people.last_day(first_night + number + 1 - back) for back in (0, 1))
        at = np.flatnonzero((night == number) | ((night < number) & (until > before)))
        periods = pa.table(
            {
                "observation_period_id": people.person_id[at],
                "person_id": people.person_id[at],
                "observation_period_start_date": _dates(people.joined_day[at]),
                "observation_period_end_date": _dates(until[at]),
                "period_type_concept_id": _constant(concepts.EHR, len(at)),
            }
        )
        found.append(Rows("observation_period", periods, at, until[at], np.full(len(at), number)))
    return found


def clinical_tables(people: People, visits: Visits, events: Events, first_night: int, chunk: int) -> list[Rows]:
    """visit_occurrence and the four event tables; ids run by patient and day within the chunk."""
    rank = np.lexsort((visits.minute, visits.day, visits.person))
    visit_id = np.empty(len(rank), np.int64)
    visit_id[rank] = chunk * IDS_PER_CHUNK + 1 + np.arange(len(rank))
    tables = [_visits(people, visits, rank, visit_id, first_night)]
    for table, name, columns in (
        (CONDITION, "condition_occurrence", _conditions),
        (DRUG, "drug_exposure", _drugs),
        (MEASUREMENT, "measurement", _measurements),
        (PROCEDURE, "procedure_occurrence", _procedures),
    ):
        at = np.flatnonzero(events.table == table)
        at = at[np.lexsort((events.concept[at], visit_id[events.visit[at]]))]
        visit = events.visit[at]
        ids = chunk * IDS_PER_CHUNK + 1 + np.arange(len(at))
        made = columns(ids, events.concept[at], events.value[at], visits.day[visit], visits.minute[visit])
        made = pa.table(made).add_column(1, "person_id", pa.array(people.person_id[visits.person[visit]]))
        made = made.append_column("visit_occurrence_id", pa.array(visit_id[visit]))
        tables.append(Rows(name, made, visits.person[visit], visits.day[visit], visits.day[visit]))
    return [Rows(t.name, t.columns, t.person, t.day, _night(t.day, first_night)) for t in tables]


def concept_table() -> pa.Table:
    """Every concept the hospital uses, with OMOP's CONCEPT columns."""
    ids, names, domains, vocabularies = (list(column) for column in zip(*concepts.all_names(), strict=True))
    return pa.table(
        {
            "concept_id": ids,
            "concept_name": names,
            "domain_id": domains,
            "vocabulary_id": vocabularies,
            "concept_class_id": ["Clinical"] * len(ids),
            "standard_concept": ["S"] * len(ids),
            "concept_code": [str(number) for number in ids],
            "valid_start_date": ["1970-01-01"] * len(ids),
            "valid_end_date": ["2099-12-31"] * len(ids),
            "invalid_reason": pa.nulls(len(ids), pa.string()),
        }
    )


def _persons(people: People) -> pa.Table:
    born = people.birth_day.astype("datetime64[D]")
    year = born.astype("datetime64[Y]").astype(int) + 1970
    month = born.astype("datetime64[M]").astype(int) % 12 + 1
    day = (born - born.astype("datetime64[M]")).astype(int) + 1
    gender = np.where(people.is_female, concepts.FEMALE, concepts.MALE)
    return pa.table(
        {
            "person_id": people.person_id,
            "gender_concept_id": gender,
            "year_of_birth": year,
            "month_of_birth": month,
            "day_of_birth": day,
            "birth_datetime": _moments(people.birth_day, np.zeros(len(born), np.int64)),
            "race_concept_id": _constant(0, len(born)),
            "ethnicity_concept_id": _constant(0, len(born)),
            "person_source_value": np.char.add("MRN-", (people.person_id * 7 % 100_000_000).astype(str)),
            "gender_source_value": np.where(people.is_female, "F", "M"),
        }
    )


def _deaths(people: People, died: np.ndarray) -> pa.Table:
    return pa.table(
        {
            "person_id": people.person_id[died],
            "death_date": _dates(people.died_day[died]),
            "death_type_concept_id": _constant(concepts.EHR, len(died)),
        }
    )


def _visits(people: People, visits: Visits, rank: np.ndarray, visit_id: np.ndarray, first_night: int) -> Rows:
    person, day, kind = visits.person[rank], visits.day[rank], visits.concept[rank]
    end = np.where(kind == concepts.INPATIENT, day + STAY_DAYS, day)
    # A stay that goes on at its delivery has no end; none is delivered later.
    is_open = end > np.maximum(day, first_night)
    columns = pa.table(
        {
            "visit_occurrence_id": visit_id[rank],
            "person_id": people.person_id[person],
            "visit_concept_id": kind,
            "visit_start_date": _dates(day),
            "visit_start_datetime": _moments(day, visits.minute[rank]),
            "visit_end_date": pa.array(end.astype("datetime64[D]"), mask=is_open),
            "visit_type_concept_id": _constant(concepts.EHR, len(rank)),
        }
    )
    return Rows("visit_occurrence", columns, person, day, day)


def _conditions(ids, concept, value, day, minute) -> dict:
    return {
        "condition_occurrence_id": ids,
        "condition_concept_id": concept,
        "condition_start_date": _dates(day),
        "condition_type_concept_id": _constant(concepts.EHR, len(ids)),
        "condition_source_value": np.char.add("C", concept.astype(str)),
    }


def _drugs(ids, concept, value, day, minute) -> dict:
    return {
        "drug_exposure_id": ids,
        "drug_concept_id": concept,
        "drug_exposure_start_date": _dates(day),
        "drug_exposure_end_date": _dates(day + DAYS_SUPPLY - 1),
        "drug_type_concept_id": _constant(concepts.EHR, len(ids)),
        "stop_reason": _choice(STOP_REASONS, ids),
        "days_supply": _constant(DAYS_SUPPLY, len(ids)),
        "sig": _choice(SIGS, ids),
    }


def _measurements(ids, concept, value, day, minute) -> dict:
    labs = sorted(concepts.LABS, key=lambda lab: lab.concept)
    place = np.searchsorted([lab.concept for lab in labs], concept)
    return {
        "measurement_id": ids,
        "measurement_concept_id": concept,
        "measurement_date": _dates(day),
        "measurement_datetime": _moments(day, minute),
        "measurement_type_concept_id": _constant(concepts.EHR, len(ids)),
        "value_as_number": value,
        "unit_concept_id": np.array([lab.unit_concept for lab in labs])[place],
        "unit_source_value": _choice([lab.unit for lab in labs], place),
    }


def _procedures(ids, concept, value, day, minute) -> dict:
    return {
        "procedure_occurrence_id": ids,
        "procedure_concept_id": concept,
        "procedure_date": _dates(day),
        "procedure_type_concept_id": _constant(concepts.EHR, len(ids)),
    }


def _night(day: np.ndarray, first_night: int) -> np.ndarray:
    return np.maximum(day - first_night, 0)


def _dates(day: np.ndarray) -> pa.Array:
    return pa.array(day.astype("datetime64[D]"))


def _moments(day: np.ndarray, minute: np.ndarray) -> pa.Array:
    return pa.array((day * 86_400 + minute * 60).astype("datetime64[s]"))


def _constant(number: int, length: int) -> np.ndarray:
    return np.full(length, number)


def _choice(texts, numbers: np.ndarray) -> pa.Array:
    """Text number i % len(texts) for each i; None is an empty field."""
    return pa.array(list(texts), pa.string()).take(pa.array(numbers % len(texts)))
