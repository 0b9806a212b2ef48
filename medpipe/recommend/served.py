"""The model that the night fits and lists come from: exact ALS with a prior from features, EASE and a ridge, as one."""

from dataclasses import dataclass

import numpy as np

from medpipe.recommend.blend import FEW, MANY, Blend
from medpipe.recommend.exact_als import exact_als
from medpipe.recommend.gram import Gram, gram
from medpipe.recommend.linear import ease, feature_ridge
from medpipe.recommend.parts import Model
from medpipe.recommend.population import Population
from medpipe.recommend.settings import BlendSettings, EaseSettings, ExactAlsSettings


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
