"""The recommenders that the quality benchmark compares: how each is fitted, and what settings it may draw.

Every model is given the same number of draws, judged on the tuning part.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.ml.recommendation import ALS
from pyspark.sql import SparkSession
from scipy import sparse

from medpipe.recommend.exact_als import ExactAlsSettings, exact_als
from medpipe.recommend.gram import Gram, gram
from medpipe.recommend.histories import Histories, to_batch
from medpipe.recommend.linear import (
    CosineSettings,
    EaseSettings,
    ease,
    feature_ridge,
    popularity,
    popularity_by_feature,
    treatment_cosine,
)
from medpipe.recommend.neighbours import Neighbours, NeighbourSettings
from medpipe.recommend.parts import Model
from medpipe.recommend.population import InMemory
from medpipe.recommend.served import fitted
from medpipe.recommend.settings import BlendSettings
from medpipe.recommend.two_tower import TwoTower
from medpipe.stream.shards import ShardFile, plan
from medpipe.train.two_tower import TwoTowerSettings, fit_two_tower, read_bags

ASKED = 5000
# Settings a model may draw: name -> values.
Grid = dict[str, list]


@dataclass(frozen=True)
class Taught:
    """Patients to learn from, in memory."""

    histories: Histories
    counted: Gram

    @property
    def population(self) -> InMemory:
        return InMemory(self.histories)


def taught(histories: Histories) -> Taught:
    return Taught(histories, gram(InMemory(histories)))


@dataclass(frozen=True)
class Kind:
    """fit: of what is taught and the drawn settings. uses_features: a peer with features, not one without."""

    fit: Callable[..., Model]
    grid: Grid
    uses_features: bool = False


_ALS = {"rank": [64, 96], "iterations": [8]}
_NEIGHBOURS = {"num_neighbours": [50, 100, 200, 400], "power": [1.5, 2.0, 3.0]}


def _als(given: Taught, **chosen) -> Model:
    return exact_als(given.population, given.counted, ExactAlsSettings(**chosen))


def _neighbours(given: Taught, **chosen) -> Model:
    histories = given.histories
    known = np.flatnonzero(np.diff(histories.had.indptr))[:ASKED]
    asked = Histories(histories.patient_ids.take(known), histories.had[known], histories.features[known])
    return Neighbours(asked, NeighbourSettings(**chosen))


def _two_tower(given: Taught, **chosen) -> Model:
    """Trained from a file through Petastorm, as a lake's shards are."""
    histories = given.histories
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "histories.parquet"
        pq.write_table(pa.Table.from_batches([to_batch(histories)]), path)
        file = ShardFile(str(path), path.stat().st_size, (len(histories.patient_ids),))
        bags = read_bags(plan([file], len(histories.patient_ids)))
    shape = (histories.had.shape[1], histories.features.shape[1])
    return TwoTower(**fit_two_tower(bags, *shape, TwoTowerSettings(**chosen)))


def _told_nothing(given: Taught, **chosen) -> Model:
    """Two towers that never see a feature."""
    histories, num_features = given.histories, given.histories.features.shape[1]
    none = sparse.csr_matrix(histories.features.shape, dtype=np.float32)
    found = _two_tower(Taught(Histories(histories.patient_ids, histories.had, none), given.counted), **chosen)
    return replace(found, by_feature=np.zeros((num_features, found.by_feature.shape[1])))


_TOWERS = {"dim": [32, 64], "num_epochs": [10, 20], "hidden": [0.3, 0.5], "weight_decay": [0.01, 0.1, 0.3]}
WITHOUT_FEATURES = {
    "popularity": Kind(lambda given: popularity(given.counted), {}),
    "cosine_formula": Kind(
        lambda given, num_neighbours: _neighbours(given, num_neighbours=num_neighbours, power=1.0),
        {"num_neighbours": [20, 30, 50, 70, 100, 150, 200, 300, 400, 600]},
    ),
    "patient_cosine": Kind(_neighbours, _NEIGHBOURS),
    "treatment_cosine": Kind(
        lambda given, **chosen: treatment_cosine(given.counted, CosineSettings(**chosen)),
        {"num_neighbours": [20, 50, 100, 200, 1000], "shrinkage": [0.0, 3.0, 10.0, 30.0]},
    ),
    "exact_als": Kind(
        lambda given, **chosen: _als(given, kappa=0.0, **chosen),
        _ALS | {"reg": [0.2, 0.3, 0.5], "alpha": [0.5, 1.0, 2.0]},
    ),
    "two_tower": Kind(_told_nothing, _TOWERS),
    "ease": Kind(
        lambda given, reg: ease(given.counted, EaseSettings(reg, feature_weight=0.0, dropout_odds=0.0)),
        {"reg": [20, 30, 50, 70, 100, 150, 200, 300, 400, 600]},
    ),
}
WITH_FEATURES = {
    "popularity_by_feature": Kind(
        lambda given, shrinkage: popularity_by_feature(given.counted, shrinkage),
        {"shrinkage": [1, 3, 5, 10, 20, 50, 100, 200]},
        True,
    ),
    "feature_ridge": Kind(
        lambda given, reg: feature_ridge(given.counted, reg), {"reg": [30, 50, 100, 150, 200, 300, 500]}, True
    ),
    "patient_cosine_features": Kind(_neighbours, _NEIGHBOURS | {"feature_weight": [0.2, 0.5, 1.0]}, True),
    "two_tower_features": Kind(_two_tower, _TOWERS, True),
    "ease_features": Kind(
        lambda given, **chosen: ease(given.counted, EaseSettings(**chosen)),
        {"reg": [20, 50, 100, 200], "feature_weight": [0.3, 0.5], "dropout_odds": [0.0, 0.5, 1.0]},
        True,
    ),
    "als_features": Kind(
        _als,
        _ALS
        | {
            "reg": [0.1, 0.2],
            "alpha": [1.0, 2.0],
            "kappa": [10.0, 20.0, 40.0],
            "feature_reg": [5.0, 10.0, 30.0],
        },
        True,
    ),
}


# What a hospital of other habits would set, drawn as the peers' settings are.
OWN: Grid = {"reg": [50.0, 200.0], "dropout_odds": [0.0, 0.5], "als": [0.3, 0.6]}
_SHARES = BlendSettings()


def served(given: Taught, als: float = _SHARES.als, **of_ease) -> Model:
    """What the night serves. The ridge keeps its share, EASE has what ALS leaves; no features, no prior."""
    shares = BlendSettings(als=als, ease=_SHARES.als + _SHARES.ease - als)
    of_als = ExactAlsSettings() if given.histories.features.shape[1] else ExactAlsSettings(kappa=0.0)
    return fitted(given.population, of_als, EaseSettings(**of_ease), shares).model


def draws(grid: Grid, num_draws: int, seed: int) -> list[dict]:
    """Different settings, at random from all combinations; all of them where there are no more."""
    names = list(grid)
    size = int(np.prod([len(values) for values in grid.values()], dtype=int))
    chosen = np.random.default_rng(seed).choice(size, min(size, num_draws), replace=False)
    places = np.unravel_index(np.sort(chosen), [len(grid[name]) for name in names] or [1])
    return [{name: grid[name][places[n][k]] for n, name in enumerate(names)} for k in range(len(chosen))]


MLLIB = {"regParam": [0.1, 0.2, 0.3], "alpha": [0.5, 1.0, 2.0], "rank": [64, 96]}


def mllib_scores(spark: SparkSession, had: sparse.csr_matrix, chosen: dict) -> np.ndarray:
    """float64 (B, M) of Spark's implicit ALS, ten iterations; a patient or treatment it has not seen scores 0."""
    entries = had.tocoo()
    columns = {"u": entries.row, "i": entries.col, "r": entries.data.astype(float)}
    rows = spark.createDataFrame(pa.table(columns)).repartition(1).sortWithinPartitions("u", "i")
    als = ALS(implicitPrefs=True, numUserBlocks=1, numItemBlocks=1, seed=1, maxIter=10, **chosen)
    model = als.setParams(userCol="u", itemCol="i", ratingCol="r").fit(rows)
    sides = []
    for frame, count in ((model.userFactors, had.shape[0]), (model.itemFactors, had.shape[1])):
        found = frame.toArrow().to_pydict()
        side = np.zeros((count, chosen["rank"]))
        side[found["id"]] = found["features"]
        sides.append(side)
    return sides[0] @ sides[1].T
