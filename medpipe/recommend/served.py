"""The model that the night fits and lists come from: exact ALS with a prior from features, EASE and a ridge, as one."""

from dataclasses import dataclass

import numpy as np

from medpipe.recommend.blend import FEW, MANY, Blend
from medpipe.recommend.exact_als import ExactAlsSettings, exact_als
from medpipe.recommend.gram import Gram, gram
from medpipe.recommend.linear import EaseSettings, ease, feature_ridge
from medpipe.recommend.parts import Model
from medpipe.recommend.population import Population


@dataclass(frozen=True)
class RecommendSettings:
    """Lists and what stands beside them.

    Attributes:
        top_k: length of a list.
        num_reasons: parts of a score that are told; all others are one number.
        min_patients: how many patients had a reason and the treatment both is told from so many on; what fewer have
            had of the formulary is new.
        max_treatments, max_features: the most common ones, which the model knows; it holds a few arrays of the square
            of both together.
    """

    top_k: int = 10
    num_reasons: int = 3
    min_patients: int = 10
    max_treatments: int = 5000
    max_features: int = 1000


@dataclass(frozen=True)
class BlendSettings:
    """How the models weigh; chosen on the tuning parts of eICU (tests/bench/recommend_quality.py).

    Weights drawn anew each night would be one more reason for a list to change.

    Attributes:
        als, ease: shares of exact ALS and of EASE; the rest is that of the ridge regression on features.
        few: of whom fewer treatments are known, EASE says little: then ALS has als_of_few and the ridge the rest.
        ridge_reg: penalty of that ridge, in patients.
    """

    als: float = 0.6
    ease: float = 0.3
    few: int = 4
    als_of_few: float = 0.5
    ridge_reg: float = 50.0


@dataclass(frozen=True)
class Served:
    """A fitted model, and the counts it was fitted from."""

    model: Blend
    counted: Gram

    @property
    def together(self) -> np.ndarray:
        """int32 (M + N, M): patients who have a treatment or feature (row) and a treatment (column)."""
        return self.counted.counts[:-1, : self.counted.num_treatments].astype(np.int32)


def fitted(population: Population, als: ExactAlsSettings, closed: EaseSettings, blend: BlendSettings) -> Served:
    """Fits what `blended` weighs.

    Args:
        population: at least one treatment.
    Cost: als.iterations + 1 passes over the patients.
    """
    counted = gram(population)
    models = (exact_als(population, counted, als), ease(counted, closed), feature_ridge(counted, blend.ridge_reg))
    return Served(blended(models, blend), counted)


def blended(models: tuple[Model, Model, Model], settings: BlendSettings) -> Blend:
    """Fitted models as one: exact ALS, EASE, ridge of the features."""
    weights = np.empty((2, len(models)))
    weights[FEW] = settings.als_of_few, 0, 1 - settings.als_of_few
    weights[MANY] = settings.als, settings.ease, 1 - settings.als - settings.ease
    return Blend(models, weights, settings.few)
