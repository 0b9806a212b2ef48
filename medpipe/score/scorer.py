"""Scores shards on Spark's workers: plan rows in, one probability per patient out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import nn
from torch.nn import Module

from medpipe.errors import DataError
from medpipe.recipes import Recipe, Trained, predict
from medpipe.stream.reader import read

# What a scorer yields, as mapInArrow wants it told.
SCORES = "patient_id string, score float, device string"
_ARROW = pa.schema([("patient_id", pa.string()), ("score", pa.float32()), ("device", pa.string())])
# Few, large batches: half the cost of handing rows back to Spark goes away (measured at 8,192 against 65,536).
OUTPUT_ROWS = 65_536

# A worker process serves many tasks: models it has loaded and checked, by sha256.
_READY: dict[str, tuple[Module, Trained]] = {}


@dataclass(frozen=True)
class Scorer:
    """For `mapInArrow` over a plan of shards.

    It is sent to workers that know neither the lake nor the driver's folders: it names what it needs in full.

    Attributes:
        model_sha256: of the weights; a worker loads them once.
        load: gives the model, e.g. partial(checkpoints.load, folder, sha256).
        batch_rows: rows read at a time; bounds a task's memory.
    """

    recipe: Recipe
    model_sha256: str
    load: Callable[[], Trained]
    batch_rows: int = 8192

    def __call__(self, plans: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """SCORES from plan rows (shard_id, url, row_groups, num_rows), in the order of the files.

        Raises:
            DataError: SHARD_ROWS when a file gives other than the planned rows; what `read` and `load` raise.
        """
        torch.set_num_threads(1)  # Spark has given this task one core
        model, trained = self._model()
        for plan in plans:
            for shard in plan.to_pylist():
                yield from _in_large_batches(self._shard(shard, model, trained))

    def _model(self) -> tuple[nn.Module, Trained]:
        if self.model_sha256 not in _READY:
            trained = self.load()
            model = self.recipe.build(trained.config)
            model.load_state_dict(trained.weights)
            _READY[self.model_sha256] = model.eval(), trained
        return _READY[self.model_sha256]

    def _shard(self, shard: dict, model: nn.Module, trained: Trained) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        num_rows = 0
        for batch in read(shard["url"], shard["row_groups"], self.recipe.columns, self.batch_rows):
            num_rows += batch.num_rows
            sequences = self.recipe.read(batch, trained.vocabulary)
            yield sequences.patient_ids, predict(self.recipe, trained.config, model, sequences)
        if num_rows != shard["num_rows"]:
            raise DataError(
                "SHARD_ROWS", f"{shard['url']}: {num_rows} rows read, {shard['num_rows']} planned: plan again"
            )


def _in_large_batches(parts: Iterator[tuple[np.ndarray, np.ndarray]]) -> Iterator[pa.RecordBatch]:
    """(patient_ids, scores) put together until they fill a batch."""
    ids: list[np.ndarray] = []
    scores: list[np.ndarray] = []
    for part_ids, part_scores in parts:
        ids.append(part_ids)
        scores.append(part_scores)
        if sum(map(len, ids)) >= OUTPUT_ROWS:
            yield _batch(ids, scores)
            ids, scores = [], []
    if ids:
        yield _batch(ids, scores)


def _batch(ids: list[np.ndarray], scores: list[np.ndarray]) -> pa.RecordBatch:
    num_rows = sum(map(len, ids))
    columns = [pa.array(np.concatenate(ids), pa.string()), pa.array(np.concatenate(scores), pa.float32())]
    return pa.RecordBatch.from_arrays([*columns, pa.array(["cpu"] * num_rows)], schema=_ARROW)
