"""The true risk of the outcome: a function of what the record shows before the index date."""

import numpy as np

from medpipe.simulate import concepts
from medpipe.simulate.history import Events, Visits
from medpipe.simulate.people import People

# Chosen with tests/bench/simulator_task.py so that the outcome is neither rare nor certain, the best possible AUROC is
# near .87, and most of the risk lies in what is recent and in what came last.
INTERCEPT = -3.5
PER_15_YEARS = 0.12
CHRONIC = {317576: 0.1, 46271022: 0.1}
SYMPTOMS, SYMPTOM_DAYS = 1.98, 90.0
LAB_LEVEL, LAB_RISE, LAB_DAYS, LAB_LONG_DAYS = 0.25, 0.15, 90.0, 400.0
ORDER, ORDER_DAYS = 0.7, 120.0
PROTECTION, PROTECTION_DAYS = 0.5, 90.0


def true_risk(people: People, visits: Visits, events: Events, index_day: int) -> np.ndarray:
    """(N,) probability of the outcome in the time at risk after `index_day`, from records before it.

    Recent symptoms raise it, a beta blocker lowers it only while recent, NT-proBNP counts by its recent level and
    its rise over the older one, and a referral to the heart clinic after a stable discharge is not the same as before.
    """
    return 1 / (1 + np.exp(-sum(terms(people, visits, events, index_day).values())))


def terms(people: People, visits: Visits, events: Events, index_day: int) -> dict[str, np.ndarray]:
    """The summands of the log odds, each (N,)."""
    day = visits.day[events.visit]
    seen = np.flatnonzero(day < index_day)
    person, concept, value = visits.person[events.visit[seen]], events.concept[seen], events.value[seen]
    age_days = (index_day - day[seen]).astype(float)
    num = len(people.person_id)

    def recent(codes: tuple[int, ...], days: float, weight: np.ndarray | float = 1.0) -> np.ndarray:
        at = np.isin(concept, codes)
        weights = np.exp(-age_days / days) * weight
        return np.bincount(person[at], weights[at], num)

    lab = next(lab for lab in concepts.LABS if lab.concept == concepts.NT_PROBNP)
    with np.errstate(invalid="ignore", divide="ignore"):
        z = np.where(concept == lab.concept, (np.log(value) - lab.mean) / lab.std, 0.0)
    level, long_level = (
        recent((lab.concept,), days, z) / (recent((lab.concept,), days) + 0.1) for days in (LAB_DAYS, LAB_LONG_DAYS)
    )
    referred, stable = (recent((code,), ORDER_DAYS) for code in (concepts.REFERRED, concepts.STABLE))
    blockers = tuple(drug for drug, _ in concepts.drug_list(concepts.BETA_BLOCKERS))
    return {
        "intercept": np.full(num, INTERCEPT),
        "age": PER_15_YEARS * (people.age(index_day) - 60) / 15,
        "chronic": sum(w * (np.bincount(person[concept == c], minlength=num) > 0) for c, w in CHRONIC.items()),
        "symptoms": SYMPTOMS * np.log1p(2 * recent(concepts.SYMPTOMS, SYMPTOM_DAYS)),
        "lab": LAB_LEVEL * level + LAB_RISE * (level - long_level),
        "order": ORDER * (referred - stable) / (referred + stable + 0.15),
        "protection": -PROTECTION * (1 - np.exp(-2 * recent(blockers, PROTECTION_DAYS))),
    }
