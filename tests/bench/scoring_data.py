"""The tables of scoring.py, drawn by row number, and the recipe whose model is next to nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import torch
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from torch import Tensor, nn

from medpipe.recipes import Form, Recipe, probabilities, score_alone, unchanged
from medpipe.stream.batches import column_of, ragged
from medpipe.stream.reader import read

WIDTH, NUM_CODES, SIDE = 64, 2000, 64


@dataclass(frozen=True, eq=False)
class Vectors:
    """N patients' inputs, values float32 (N, WIDTH)."""

    ids: pa.Array
    values: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        return np.ones(len(self.ids), np.int64)


def vectors_of(batch: pa.RecordBatch, vocabulary: None) -> Vectors:
    values, _ = ragged(batch, "amounts", pa.float32())
    return Vectors(column_of(batch, "patient_id", pa.string()), values.reshape(-1, WIDTH))


def vector_faults(batch: pa.RecordBatch, config: dict) -> np.ndarray:
    _, offsets = ragged(batch, "amounts", pa.float32())
    return np.where(np.diff(offsets) == WIDTH, "", "RAGGED").astype(object)


def vector_config(vocabulary: None, vectors: Vectors) -> dict:
    return {"width": WIDTH}


def vector_inputs(vectors: Vectors, rows: np.ndarray, config: dict) -> tuple[Tensor, ...]:
    return (torch.from_numpy(vectors.values[rows]),)


def vector_model(config: dict) -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, 32), nn.ReLU(), nn.Linear(32, 1), nn.Flatten(0))


# The least work a model can be, so that all else is seen; its inputs stand in gold.sequence's list of floats.
VECTOR_MLP = Recipe(
    name="vector_mlp",
    table="gold.sequence",
    scores_table="gold.score",
    columns=("patient_id", "amounts"),
    batch_rows=8192,
    rows=read,
    config=vector_config,
    build=vector_model,
    faults=vector_faults,
    read=vectors_of,
    inputs=vector_inputs,
    scores=probabilities,
    results=score_alone,
    forms={"eager": unchanged},
    batch_sizes=(8192,),
    form=Form("eager", 8192),
    gpu_form=Form("eager", 8192),
)


def drawn(kind: str, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Rows of a table from their numbers; the same number is the same row."""
    for batch in batches:
        numbers = batch.column(0).to_numpy()
        random, shape = np.random.default_rng(int(numbers[0])), (len(numbers), WIDTH)
        names = pa.array([f"p{number:09d}" for number in numbers])
        if kind == "image":
            pixels = random.integers(60, 200, (len(numbers), SIDE * SIDE), np.uint8)
            yield pa.record_batch([names, pa.array([row.tobytes() for row in pixels])], ["image_id", "pixels"])
            continue
        amounts = random.normal(size=shape).round(2).astype(np.float32)
        concepts, days = np.zeros(shape, np.int64), np.zeros(shape, np.int32)
        if kind == "events":
            amounts[random.random(shape) < 0.7] = np.nan
            concepts = np.minimum(random.zipf(1.3, shape), NUM_CODES + 5)  # a few are unknown
            days = -np.sort(-random.integers(0, 3650, shape, np.int32), axis=1)
        offsets = pa.array(np.arange(0, concepts.size + 1, WIDTH, np.int32))
        lists = [pa.ListArray.from_arrays(offsets, pa.array(v.ravel())) for v in (concepts, days, amounts)]
        yield pa.record_batch([names, *lists], ["patient_id", "concepts", "days_before", "amounts"])


def gold(spark: SparkSession, kind: str, num_rows: int, num_files: int) -> DataFrame:
    """Rows of gold.sequence or gold.image, without as_of and role."""
    numbers = spark.range(0, num_rows, 1, num_files)
    if kind == "image":
        columns = {"split": F.lit("test"), "label": F.lit(-1), "height": F.lit(SIDE), "width": F.lit(SIDE)}
        return numbers.mapInArrow(partial(drawn, kind), "image_id string, pixels binary").withColumns(columns)
    lists = "concepts array<long>, days_before array<int>, amounts array<float>"
    rows = numbers.mapInArrow(partial(drawn, kind), f"patient_id string, {lists}")
    moment = F.lit("2026-01-01").cast("timestamp")
    early = {name: moment - F.expr("interval 1 day") for name in ("max_event_at", "max_recorded_at")}
    return rows.withColumns(early | {"index_at": moment, "split": F.lit("test"), "label": F.lit(-1)})
