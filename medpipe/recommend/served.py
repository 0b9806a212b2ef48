"""The model that the night fits and lists come from: exact ALS with a prior from features, and EASE, as one score."""

from dataclasses import dataclass

import numpy as np

from medpipe.recommend.blend import Blend
from medpipe.recommend.exact_als import exact_als
from medpipe.recommend.gram import Gram, gram
from medpipe.recommend.linear import ease
from medpipe.recommend.population import Population
from medpipe.recommend.settings import EaseSettings, ExactAlsSettings


@dataclass(frozen=True)
class Served:
    """A fitted model, and the counts it was fitted from."""

    model: Blend
    counted: Gram

    @property
    def together(self) -> np.ndarray:
        """int32 (M + N, M): patients who have a treatment or feature (row) and a treatment (column)."""
        return self.counted.counts[:-1, : self.counted.num_treatments].astype(np.int32)


def fitted(population: Population, als: ExactAlsSettings, closed: EaseSettings) -> Served:
    """Both models, weighed alike: weights chosen on one night's past would be one more reason for a list to change.

    Args:
        population: at least one treatment.
    Cost: als.iterations + 1 passes over the patients.
    """
    counted = gram(population)
    models = (exact_als(population, counted, als), ease(counted, closed))
    return Served(Blend(models, np.full((2, len(models)), 1 / len(models))), counted)
