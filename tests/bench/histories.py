"""Made-up rows of gold.sequence and gold.image for benchmarks, by `mapInArrow` over ids; the same each time."""

from collections.abc import Iterator
from datetime import datetime

import numpy as np
import pyarrow as pa

from medpipe.stream.tokens import vocabulary_of

NUM_CONCEPTS, HEIGHT = 5000, 28
VOCABULARY = vocabulary_of(
    np.arange(NUM_CONCEPTS), np.arange(NUM_CONCEPTS) + 2, np.zeros(NUM_CONCEPTS), np.ones(NUM_CONCEPTS)
)
SEQUENCE = (
    "patient_id string, index_at timestamp, max_event_at timestamp, max_recorded_at timestamp, split string, "
    "label int, concepts array<long>, days_before array<int>, amounts array<float>"
)
IMAGE = "image_id string, split string, label int, height int, width int, pixels binary"


def histories(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """SEQUENCE from ids: lengths log-normal, median 40, mean 65, at most 700; a few concepts are unknown."""
    for batch in batches:
        ids, random = batch.column(0).to_numpy(), np.random.default_rng(int(batch.column(0)[0].as_py()))
        lengths = np.clip(np.exp(random.normal(np.log(40), 1.0, len(ids))), 1, 700).astype(np.int32)
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        total = int(lengths.sum())
        patients = np.repeat(np.arange(len(ids)), lengths)
        days = random.integers(1, 9000, total, dtype=np.int32)
        days = days[np.lexsort((-days, patients))]
        concepts = (random.power(0.3, total) * NUM_CONCEPTS * 1.02).astype(np.int64)
        amounts = np.where(random.random(total) < 0.3, random.normal(size=total), np.nan).astype(np.float32)
        times = [pa.array([datetime(2026, 1, day)] * len(ids), pa.timestamp("us", "UTC")) for day in (30, 28, 29)]
        columns = [_names("p", ids), *times, pa.array(["test"] * len(ids)), pa.array(np.full(len(ids), -1, np.int32))]
        columns += [pa.ListArray.from_arrays(offsets, pa.array(values)) for values in (concepts, days, amounts)]
        yield pa.RecordBatch.from_arrays(columns, names=[part.split()[0] for part in SEQUENCE.split(", ")])


def images(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """IMAGE from ids: HEIGHT * HEIGHT grey values, noise on a slope."""
    for batch in batches:
        ids, random = batch.column(0).to_numpy(), np.random.default_rng(int(batch.column(0)[0].as_py()))
        slopes = random.normal(0, 3, (len(ids), 1, 1)) * np.arange(HEIGHT)
        pixels = np.clip(128 + slopes + random.normal(0, 30, (len(ids), HEIGHT, HEIGHT)), 0, 255).astype(np.uint8)
        sizes = pa.array(np.full(len(ids), HEIGHT, np.int32))
        columns = [_names("i", ids), pa.array(["test"] * len(ids)), pa.array(np.full(len(ids), -1, np.int32))]
        columns += [sizes, sizes, pa.array([image.tobytes() for image in pixels], pa.binary())]
        yield pa.RecordBatch.from_arrays(columns, names=[part.split()[0] for part in IMAGE.split(", ")])


def _names(prefix: str, ids: np.ndarray) -> pa.Array:
    return pa.array([f"{prefix}{number:09d}" for number in ids])
