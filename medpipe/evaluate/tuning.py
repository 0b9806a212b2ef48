"""The weights of a blend, chosen on held-out treatments: drawn at random, judged in one pass over the patients.

C models, D draws.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from pyspark.sql import DataFrame

from medpipe.evaluate.lists import NDCG, best_left, measured
from medpipe.evaluate.measure import held_of
from medpipe.recommend.blend import KNOWN, NEW, drawn_weights, quality_of_draws
from medpipe.recommend.parts import Model

_SUMS = pa.schema([("sums", pa.binary())])


@dataclass(frozen=True)
class TuningSettings:
    """num_draws: of weights. top_k: of the NDCG that decides."""

    num_draws: int = 24
    seed: int = 1
    top_k: int = 10


def tuned_weights(
    held: DataFrame, models: tuple[Model, ...], num_treatments: int, num_features: int, settings: TuningSettings
) -> np.ndarray:
    """float64 (2, C), as Blend takes them: the draw with the best NDCG, for patients without and with a treatment.

    The first pass measures each model alone; draws then fall from the best on. Of equal draws the first is taken. New
    patients get everybody's weights where nobody new is among the held.

    Args:
        held: HELD, in an order that does not change from run to run (of in_blocks): the last bits of a sum decide ties.
    """

    def sums(draws: np.ndarray) -> np.ndarray:
        judge = _Draws(models, draws, num_treatments, num_features, settings.top_k)
        found = held.mapInArrow(judge, "sums binary").toArrow().column("sums")
        return sum((np.frombuffer(part.as_buffer()).reshape(2, -1) for part in found), np.zeros((2, len(draws))))

    order = np.argsort(-sums(np.eye(len(models))).sum(axis=0), kind="stable")
    draws = np.empty((settings.num_draws, len(models)))
    draws[:, order] = drawn_weights(len(models), settings.num_draws, settings.seed)
    found = sums(draws).round(9)
    best = {NEW: found[NEW].argmax(), KNOWN: found[KNOWN].argmax()}
    return draws[[best[NEW] if found[NEW].any() else best[KNOWN], best[KNOWN]]]


@dataclass(frozen=True)
class _Draws:
    """For mapInArrow over HELD: one row, the sums of NDCG (2, D) of the partition's new and known patients."""

    models: tuple[Model, ...]
    draws: np.ndarray
    num_treatments: int
    num_features: int
    top_k: int

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        torch.set_num_threads(1)  # Spark has given this task one core
        total = np.zeros((2, len(self.draws)))
        for batch in batches:
            histories, later = held_of(batch, self.num_treatments, self.num_features)
            is_known = np.diff(histories.had.indptr) > 0

            def quality(scores: np.ndarray, had=histories.had, later=later, is_known=is_known) -> np.ndarray:
                ndcg = np.nan_to_num(measured(best_left(scores, had, self.top_k), later)[:, NDCG])
                return np.stack([ndcg * ~is_known, ndcg * is_known])

            total += quality_of_draws(self.models, self.draws, histories, quality).T
        yield pa.RecordBatch.from_arrays([pa.array([total.tobytes()], pa.binary())], schema=_SUMS)
