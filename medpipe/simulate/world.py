"""What all patients of one hospital share: which drugs belong to which condition, and how popular each is."""

from dataclasses import dataclass

import numpy as np

from medpipe.simulate import concepts

TASTE_DIM = 3
# Shares of a condition's drug budget that go to its own drugs and to drugs of two other conditions.
OWN, BORROWED = 0.86, 0.14


@dataclass(frozen=True, eq=False)
class World:
    """K conditions, D drugs.

    Attributes:
        drugs: int64 (D,), concept ids.
        by_condition: (K, D), rows sum to 1: what a patient gets for a condition.
        general: (D,), sums to 1: what anybody gets.
        taste: (D, TASTE_DIM), how a drug answers to a patient's individual taste.
    """

    drugs: np.ndarray
    by_condition: np.ndarray
    general: np.ndarray
    taste: np.ndarray


def make_world(seed: int) -> World:
    rng = np.random.default_rng([seed, 0])
    lists = concepts.drugs_by_condition()
    beta, general = (
        [drug for drug, _ in concepts.drug_list(text)] for text in (concepts.BETA_BLOCKERS, concepts.GENERAL_DRUGS)
    )
    drugs = np.array([drug for named in lists for drug, _ in named] + beta + general, np.int64)
    place = {drug: i for i, drug in enumerate(drugs.tolist())}
    own = np.zeros((len(lists), len(drugs)))
    for row, named in enumerate(lists):
        share = 0.75 ** np.arange(len(named)) * rng.gamma(8, 1 / 8, len(named))
        own[row, [place[drug] for drug, _ in named]] = share / share.sum()
    return World(
        drugs, _mixed(own, [place[d] for d in beta], rng), _general(general, place, rng), _taste(len(drugs), rng)
    )


def _mixed(own: np.ndarray, beta: list[int], rng: np.random.Generator) -> np.ndarray:
    """Own drugs, some of two other conditions', and beta blockers for the heart."""
    neighbours = np.stack([rng.choice(len(own), 2, replace=False) for _ in own])
    mixed = OWN * own + BORROWED * own[neighbours].mean(axis=1)
    for row, condition in enumerate(concepts.CONDITIONS):
        if condition.concept in concepts.CARDIAC:
            mixed[row] *= 0.6
            mixed[row, beta] += 0.4 / len(beta)
    return mixed


def _general(general: list[int], place: dict[int, int], rng: np.random.Generator) -> np.ndarray:
    share = np.zeros(len(place))
    share[[place[drug] for drug in general]] = rng.dirichlet(np.full(len(general), 5.0))
    return share


def _taste(num_drugs: int, rng: np.random.Generator) -> np.ndarray:
    return rng.normal(0, 1 / np.sqrt(TASTE_DIM), (num_drugs, TASTE_DIM))
