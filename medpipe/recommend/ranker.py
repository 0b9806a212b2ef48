"""A model's best lists, batch by batch: apart from the fit, so that a worker starts without Spark ML and torch."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from medpipe.recommend.topk import MASKED, largest, pack, scores_of, steps_of, unpack

SCORED_ROWS = 1024
LISTS = "patient_id string, rank int, treatment string, score double"
_ARROW = pa.schema(
    [("patient_id", pa.string()), ("rank", pa.int32()), ("treatment", pa.string()), ("score", pa.float64())]
)


@dataclass(frozen=True)
class Ranker:
    """For `mapInArrow`: patient_id, factors (array<float>), held (array<int>, places in `treatments`) -> LISTS."""

    treatments: list[str]
    of_treatments: np.ndarray
    top_k: int

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        names = pa.array(self.treatments, pa.string())
        for batch in batches:
            for start in range(0, batch.num_rows, SCORED_ROWS):
                yield self._lists(batch.slice(start, SCORED_ROWS), names)

    def _lists(self, batch: pa.RecordBatch, names: pa.StringArray) -> pa.RecordBatch:
        held = batch.column("held")
        factors = batch.column("factors").flatten().to_numpy().reshape(batch.num_rows, -1).astype(np.float64)
        scores = factors @ self.of_treatments.T  # (B, M)
        keys = pack(steps_of(scores), np.arange(len(names)))
        keys[np.repeat(np.arange(batch.num_rows), held.value_lengths().to_numpy()), held.flatten().to_numpy()] = MASKED
        best = largest(keys, self.top_k)  # (B, K)
        patients, places = np.nonzero(best != MASKED)
        steps, columns = unpack(best[patients, places])
        return pa.RecordBatch.from_arrays(
            [batch.column("patient_id").take(pa.array(patients)), pa.array(places + 1, pa.int32())]
            + [names.take(pa.array(columns)), pa.array(scores_of(steps))],
            schema=_ARROW,
        )
