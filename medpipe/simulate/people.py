"""Who the patients are: what of them does not change."""

from dataclasses import dataclass

import numpy as np

from medpipe.simulate import concepts
from medpipe.simulate.settings import HospitalSettings
from medpipe.simulate.world import TASTE_DIM, World

CHUNK_PATIENTS = 5_000
FIRST_PERSON_ID = 10_000_001
NEVER = 2**30
NUM_WAVES = 3
# Heart strain wanders with this period scale; shorter ones make the recent past count more than the sum.
STRAIN_SCALE_DAYS = 110.0
SHARE_LATE, SHARE_NEW_PER_NIGHT, SHARE_LEFT = 0.07, 0.002, 0.04
GENERAL_SHARE = 0.08
TASTE_SCALE = 0.2
# The higher, the more alike the conditions of one patient ask for drugs.
BURDEN_SHAPE = 8.0


@dataclass(frozen=True, eq=False)
class People:
    """N patients, K conditions, D drugs. Days count from 1970-01-01.

    Attributes:
        person_id, birth_day, is_female: (N,).
        joined_day, left_day: (N,), first and last day under observation, inclusive; NEVER where it goes on.
        died_day: (N,), NEVER where alive.
        visits_per_year: (N,).
        has: bool (N, K), latent conditions. burden: (N, K), rows sum to 1, how much each condition asks for.
        preference: (N, D), rows sum to 1: the true probability that the next drug is this one.
        strain_level: (N,); strain_speed, strain_phase: (N, NUM_WAVES).
    """

    person_id: np.ndarray
    birth_day: np.ndarray
    is_female: np.ndarray
    joined_day: np.ndarray
    left_day: np.ndarray
    died_day: np.ndarray
    visits_per_year: np.ndarray
    has: np.ndarray
    burden: np.ndarray
    preference: np.ndarray
    strain_level: np.ndarray
    strain_speed: np.ndarray
    strain_phase: np.ndarray

    def last_day(self, horizon: int) -> np.ndarray:
        """(N,), last day before `horizon` on which something can be recorded."""
        return np.minimum(np.minimum(self.left_day, self.died_day), horizon - 1)

    def age(self, day: int) -> np.ndarray:
        return (day - self.birth_day) / 365.25

    def strain(self, person: np.ndarray, day: np.ndarray) -> np.ndarray:
        """Heart strain of patients on days: level + a smooth wave of variance 1.

        Source: random Fourier features of a Gaussian process; Rahimi and Recht, NIPS 2007.
        """
        wave = np.zeros(len(person))
        for number in range(NUM_WAVES):
            wave += np.cos(self.strain_speed[person, number] * day + self.strain_phase[person, number])
        return self.strain_level[person] + np.sqrt(2 / NUM_WAVES) * wave


def draw_people(settings: HospitalSettings, world: World, chunk: int, rng: np.random.Generator) -> People:
    """Patients chunk * CHUNK_PATIENTS ... of the hospital: always a whole chunk, so that nobody depends on its size."""
    n = CHUNK_PATIENTS
    horizon = day_number(settings.last_as_of)
    age = np.clip(rng.normal(61, 15, n), 22, 94)
    birth_day = (horizon - age * 365.25).astype(np.int64)
    joined_day = _joined(settings, rng)
    left_day = np.where(rng.random(n) < SHARE_LEFT, joined_day + rng.integers(30, 1500, n), NEVER)
    yearly_death = 0.008 * np.exp((age - 61) / 12)
    died_day = joined_day + 1 + (rng.exponential(1, n) / yearly_death * 365).astype(np.int64)
    has, burden = _conditions(age, rng)
    cardiac = [i for i, c in enumerate(concepts.CONDITIONS) if c.concept in concepts.CARDIAC]
    return People(
        person_id=FIRST_PERSON_ID + chunk * n + np.arange(n),
        birth_day=birth_day,
        is_female=rng.random(n) < 0.52,
        joined_day=joined_day,
        left_day=left_day,
        died_day=np.where(died_day < horizon, died_day, NEVER),
        visits_per_year=rng.gamma(8, 4.4 / 8, n),
        has=has,
        burden=burden,
        preference=_preference(world, burden, rng),
        strain_level=0.3 * has[:, cardiac].sum(axis=1) - 0.25 + rng.normal(0, 0.25, n),
        strain_speed=rng.normal(0, 1 / STRAIN_SCALE_DAYS, (n, NUM_WAVES)),
        strain_phase=rng.uniform(0, 2 * np.pi, (n, NUM_WAVES)),
    )


def _joined(settings: HospitalSettings, rng: np.random.Generator) -> np.ndarray:
    """Most came years ago, some within the last months, a few on each night after the first."""
    n = CHUNK_PATIENTS
    first = day_number(settings.first_night)
    years_ago = np.where(rng.random(n) < SHARE_LATE, rng.uniform(0.02, 1.2, n), rng.uniform(1.7, 4.3, n))
    day = first - (years_ago * 365).astype(np.int64)
    later_nights = settings.num_nights - 1
    night = 1 + np.floor(rng.random(n) / SHARE_NEW_PER_NIGHT).astype(np.int64)
    # At most every tenth patient is new, however many nights there are.
    is_new = night <= min(later_nights, int(0.1 / SHARE_NEW_PER_NIGHT))
    return np.where(is_new, first + night, day)


def _conditions(age: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    share = np.array([c.share for c in concepts.CONDITIONS])
    slope = np.array([c.age_slope for c in concepts.CONDITIONS])
    odds = np.log(share / (1 - share)) + slope * (age[:, None] - 60) / 10
    has = rng.random(odds.shape) < 1 / (1 + np.exp(-odds))
    none = ~has.any(axis=1)
    has[none, rng.integers(0, len(share), none.sum())] = True
    weight = has * rng.gamma(BURDEN_SHAPE, 1, has.shape)
    return has, weight / weight.sum(axis=1, keepdims=True)


def _preference(world: World, burden: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    for_conditions = burden @ world.by_condition
    wish = GENERAL_SHARE * world.general + (1 - GENERAL_SHARE) * for_conditions
    taste = np.exp(TASTE_SCALE * rng.normal(size=(len(burden), TASTE_DIM)) @ world.taste.T)
    return wish * taste / (wish * taste).sum(axis=1, keepdims=True)


def day_number(day) -> int:
    """Days since 1970-01-01."""
    return day.toordinal() - 719_163
