"""A small model of scores that are sums: enough to see lists and reasons through."""

from dataclasses import dataclass

import numpy as np

from medpipe.recommend.histories import Histories
from medpipe.recommend.parts import Parts, Scored, apart, rows_of


@dataclass(frozen=True)
class Sums:
    """base float64 (M,), of_treatments (M, M), of_features (N, M)."""

    base: np.ndarray
    of_treatments: np.ndarray
    of_features: np.ndarray

    def scores(self, histories: Histories) -> np.ndarray:
        return self.base + histories.had @ self.of_treatments + histories.features @ self.of_features

    def parts(self, histories: Histories, items: np.ndarray) -> Parts:
        had, features = histories.had, histories.features
        of_treatments = self.of_treatments[had.indices[:, None], items[rows_of(had)]] * had.data[:, None]
        of_features = self.of_features[features.indices[:, None], items[rows_of(features)]] * features.data[:, None]
        return Parts(self.base[items], of_treatments, of_features)

    def scored(self, histories: Histories) -> Scored:
        return apart(self, histories)
