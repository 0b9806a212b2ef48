"""A whole population's histories, with structure to learn, and safety rules: drawn, for timings."""

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from medpipe.recommend.rules import Rules

PER_PATIENT, NUM_HELD, NUM_KINDS, SHARE_INTERACTING = 17, 3, 40, 0.01


def drawn(spark: SparkSession, num_patients: int, num_treatments: int) -> DataFrame:
    """HISTORIES, number and later (array<int>): each patient is of a kind with treatments of its own."""
    draw = np.random.default_rng(1)
    # Gumbel's trick: the largest of log weight and noise is a draw without replacement.
    likes = np.log(draw.random((NUM_KINDS, num_treatments)) ** 12 + 1e-3)
    parts = []
    for start in range(0, num_patients, 10_000):
        numbers = np.arange(start, min(start + 10_000, num_patients), dtype=np.int32)
        noise = draw.gumbel(size=(len(numbers), num_treatments))
        num_chosen = PER_PATIENT + NUM_HELD
        chosen = np.argpartition(-(likes[numbers % NUM_KINDS] + noise), num_chosen, axis=1)[:, :num_chosen]
        chosen = draw.permuted(chosen, axis=1).astype(np.int32)
        items = np.sort(chosen[:, :PER_PATIENT], axis=1)
        nothing = pa.array([[]] * len(numbers), pa.list_(pa.int32()))
        arrays = [pa.array([f"{number:08x}" for number in numbers.tolist()]), pa.array(numbers)]
        arrays += [listed(items), listed(np.ones_like(items, np.float32)), nothing, listed(chosen[:, PER_PATIENT:])]
        parts.append(pa.table(arrays, names=["patient_id", "number", "treatments", "weights", "features", "later"]))
    return spark.createDataFrame(pa.concat_tables(parts))


def listed(values: np.ndarray) -> pa.ListArray:
    """Of each row one list."""
    starts = np.arange(len(values) + 1) * values.shape[1]
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), pa.array(values.ravel()))


def interactions(num_treatments: int) -> Rules:
    """SHARE_INTERACTING of all pairs; every treatment had counts as current."""
    draw = np.random.default_rng(3)
    pairs = np.zeros((num_treatments + 1,) * 2, bool)
    pairs[:-1, :-1] = np.triu(draw.random((num_treatments,) * 2) < SHARE_INTERACTING, 1)
    pairs |= pairs.T
    causes = [("interaction", f"RX:{column:05}") for column in range(num_treatments)]
    return Rules(causes, pairs[:-1, :-1], pairs)
