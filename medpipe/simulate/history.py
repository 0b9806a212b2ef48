"""What happened to the patients: visits, and what was recorded at each."""

from dataclasses import dataclass

import numpy as np

from medpipe.simulate import concepts
from medpipe.simulate.people import People
from medpipe.simulate.world import World

CONDITION, DRUG, MEASUREMENT, PROCEDURE = range(4)
DRUGS_PER_VISIT = 2.0
DIAGNOSIS_PER_VISIT = 0.4
OTHER_PROCEDURE_PER_VISIT = 0.02
# Log odds at no strain, and per unit of heart strain.
SYMPTOM_ODDS = (-2.5, 2.2)
REFERRED_ODDS = (-1.8, 1.8)
STABLE_ODDS = (-1.2, -1.8)


@dataclass(frozen=True, eq=False)
class Visits:
    """V visits by person and day: index of the person, day, minute of the day, visit concept."""

    person: np.ndarray
    day: np.ndarray
    minute: np.ndarray
    concept: np.ndarray


@dataclass(frozen=True, eq=False)
class Events:
    """E records: index of the visit, table (CONDITION ...), concept, value in the lab's unit or NaN."""

    visit: np.ndarray
    table: np.ndarray
    concept: np.ndarray
    value: np.ndarray


def draw_visits(people: People, horizon: int, rng: np.random.Generator) -> Visits:
    """Visits before `horizon`, evenly spread over each patient's time under observation, at most one a day."""
    days = np.maximum(people.last_day(horizon) - people.joined_day + 1, 0)
    num = rng.poisson(people.visits_per_year * days / 365)
    person = np.repeat(np.arange(len(num)), num)
    day = people.joined_day[person] + np.floor(rng.random(len(person)) * days[person]).astype(np.int64)
    code = np.unique(person * 100_000 + day)
    person, day = code // 100_000, code % 100_000
    kind = rng.choice([concepts.OUTPATIENT, concepts.EMERGENCY, concepts.INPATIENT], len(person), p=[0.85, 0.1, 0.05])
    return Visits(person, day, rng.integers(7 * 60, 20 * 60, len(person)), kind)


def draw_events(people: People, visits: Visits, world: World, rng: np.random.Generator) -> Events:
    strain = people.strain(visits.person, visits.day)
    found = _diagnoses(people, visits, rng)
    found += _drugs(people, visits, world, rng)
    found += _symptoms(strain, rng)
    found += _labs(strain, rng)
    found += _procedures(strain, rng)
    return _joined(found)


def with_outcomes(visits: Visits, events: Events, person: np.ndarray, day: np.ndarray) -> tuple[Visits, Events]:
    """Adds an inpatient visit with the outcome's diagnosis for each of the given patients and days."""
    first = len(visits.person)
    more = Visits(
        np.concatenate([visits.person, person]),
        np.concatenate([visits.day, day]),
        np.concatenate([visits.minute, np.full(len(person), 12 * 60)]),
        np.concatenate([visits.concept, np.full(len(person), concepts.INPATIENT)]),
    )
    outcome = _rows(first + np.arange(len(person)), CONDITION, np.full(len(person), concepts.OUTCOME))
    old = (events.visit, events.table, events.concept, events.value)
    return more, _joined([old, outcome])


def _diagnoses(people: People, visits: Visits, rng: np.random.Generator) -> list:
    at = np.flatnonzero(rng.random(len(visits.person)) < DIAGNOSIS_PER_VISIT)
    codes = np.array([c.concept for c in concepts.CONDITIONS])
    return [_rows(at, CONDITION, codes[_pick(people.burden, visits.person[at], rng)])]


def _drugs(people: People, visits: Visits, world: World, rng: np.random.Generator) -> list:
    """Each draw is independent given the patient's preference, so that their order says nothing."""
    at = np.repeat(np.arange(len(visits.person)), rng.poisson(DRUGS_PER_VISIT, len(visits.person)))
    drug = _pick(people.preference, visits.person[at], rng)
    # Once per visit: the same drug twice on one day would be one prescription.
    code = np.unique(at * len(world.drugs) + drug)
    return [_rows(code // len(world.drugs), DRUG, world.drugs[code % len(world.drugs)])]


def _symptoms(strain: np.ndarray, rng: np.random.Generator) -> list:
    chance = _sigmoid(SYMPTOM_ODDS[0] + SYMPTOM_ODDS[1] * strain)
    found = []
    for symptom in concepts.SYMPTOMS:
        at = np.flatnonzero(rng.random(len(strain)) < chance)
        found.append(_rows(at, CONDITION, np.full(len(at), symptom)))
    return found


def _labs(strain: np.ndarray, rng: np.random.Generator) -> list:
    found = []
    for lab in concepts.LABS:
        at = np.flatnonzero(rng.random(len(strain)) < lab.per_visit)
        own = np.sqrt(1 - min(lab.heart, 0.9) ** 2)
        z = np.clip(lab.heart * strain[at] + own * rng.normal(size=len(at)), -4, 4)
        plain = lab.mean + lab.std * z
        value = np.round(np.exp(plain) if lab.is_log else plain, lab.decimals)
        found.append(_rows(at, MEASUREMENT, np.full(len(at), lab.concept), value))
    return found


def _procedures(strain: np.ndarray, rng: np.random.Generator) -> list:
    """At most one of referral and stable discharge per visit; the others say nothing about the heart."""
    drawn = rng.random(len(strain))
    referred = _sigmoid(REFERRED_ODDS[0] + REFERRED_ODDS[1] * strain)
    stable = (1 - referred) * _sigmoid(STABLE_ODDS[0] + STABLE_ODDS[1] * strain)
    chosen = [(concepts.REFERRED, drawn < referred), (concepts.STABLE, drawn > 1 - stable)]
    for code, _ in concepts.PROCEDURES[2:]:
        chosen.append((code, rng.random(len(strain)) < OTHER_PROCEDURE_PER_VISIT))
    return [_rows(np.flatnonzero(is_at), PROCEDURE, np.full(is_at.sum(), code)) for code, is_at in chosen]


def _pick(weights: np.ndarray, row: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One column for each entry of `row`, drawn by that row's weights (each row sums to 1). Cost: log of the table."""
    steps = np.cumsum(weights, axis=1)
    steps = steps / steps[:, -1:] + np.arange(len(weights))[:, None]
    drawn = np.searchsorted(steps.ravel(), row + rng.random(len(row)), side="right") - row * weights.shape[1]
    return np.clip(drawn, 0, weights.shape[1] - 1)


def _rows(visit: np.ndarray, table: int, concept: np.ndarray, value: np.ndarray | None = None) -> tuple:
    value = np.full(len(visit), np.nan) if value is None else value
    return visit, np.full(len(visit), table), concept, value


def _joined(parts: list[tuple]) -> Events:
    return Events(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
