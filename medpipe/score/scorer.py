"""Scores shards on Spark's workers: plan rows in, one probability per row out, or a code why there is none."""

import gc
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from zipimport import zipimporter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import nn

from medpipe.errors import DataError
from medpipe.recipes import Recipe, Trained, ready
from medpipe.score.devices import form_on, of_task, predict, release

# What a scorer yields, as mapInArrow wants it told; a row without a score has a code that says why.
SCORED = "row_id string, score float, smiles string, is_valid boolean, code string, device string"
_ARROW = pa.schema(
    [
        ("row_id", pa.string()),
        ("score", pa.float32()),
        ("smiles", pa.string()),
        ("is_valid", pa.bool_()),
        ("code", pa.string()),
        ("device", pa.string()),
    ]
)
# Few, large batches: half the cost of handing rows back to Spark goes away (measured at 8,192 against 65,536).
OUTPUT_ROWS = 65_536

# A worker process serves many tasks: models it has loaded and checked, by sha256 and device.
_READY: dict[tuple[str, torch.device], tuple[nn.Module, Trained]] = {}


@dataclass(frozen=True)
class Scorer:
    """For `mapInArrow` over a plan of shards.

    It is sent to workers that know neither the lake nor the driver's folders: it names what it needs in full.

    Attributes:
        model_sha256: of the weights; a worker loads them once.
        load: gives the model, e.g. partial(checkpoints.load, folder, sha256).
        device: as ScoreSettings.device.
    """

    recipe: Recipe
    model_sha256: str
    load: Callable[[], Trained]
    device: str = "auto"

    def __call__(self, plans: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """SCORED from plan rows (shard_id, url, row_groups, num_rows): every row of the shards once.

        Raises:
            DataError: SHARD_ROWS when a file gives other than the planned rows.
            MedpipeError: what `read`, `load` and `of_task` raise.
        """
        device = of_task(self.device)
        try:
            yield from self.rows(plans, self.on(device))
        finally:
            release(device)

    def on(self, device: torch.device) -> Callable[[pa.RecordBatch], Iterator[pa.RecordBatch]]:
        """What turns a batch of the table's rows into SCORED of the same rows, on that device."""
        torch.set_num_threads(1)  # Spark has given this task one core
        model, trained = self._model(device)
        return lambda batch: self._batch(batch, model, trained, device)

    def rows(
        self, plans: Iterable[pa.RecordBatch], scored: Callable[[pa.RecordBatch], Iterable[pa.RecordBatch]]
    ) -> Iterator[pa.RecordBatch]:
        """SCORED from plan rows, as __call__, by a function as `on` gives it."""
        for plan in plans:
            for shard in plan.to_pylist():
                yield from _in_large_batches(self._shard(shard, scored))

    def _model(self, device: torch.device) -> tuple[nn.Module, Trained]:
        place = self.model_sha256, device
        if place not in _READY:
            trained = self.load()
            trained = replace(trained, form=form_on(device, self.recipe, trained.form))
            _READY[place] = ready(self.recipe, trained).to(device), trained
            _settle()
        return _READY[place]

    def _shard(
        self, shard: dict, scored: Callable[[pa.RecordBatch], Iterable[pa.RecordBatch]]
    ) -> Iterator[pa.RecordBatch]:
        num_rows = 0
        for batch in self.recipe.rows(shard["url"], shard["row_groups"], self.recipe.columns, self.recipe.batch_rows):
            num_rows += batch.num_rows
            yield from scored(batch)
        if num_rows != shard["num_rows"]:
            raise DataError(
                "SHARD_ROWS", f"{shard['url']}: {num_rows} rows read, {shard['num_rows']} planned: plan again"
            )

    def _batch(
        self, batch: pa.RecordBatch, model: nn.Module, trained: Trained, device: torch.device
    ) -> Iterator[pa.RecordBatch]:
        codes = self.recipe.faults(batch, trained.config)
        if codes.any():
            yield without_score(batch.column(self.recipe.columns[0]), codes)
            batch = batch.filter(pa.array(codes == ""))
        yield self._scored(batch, model, trained, device)

    def _scored(
        self, batch: pa.RecordBatch, model: nn.Module, trained: Trained, device: torch.device
    ) -> pa.RecordBatch:
        rows = self.recipe.read(batch, trained.vocabulary)
        found, name = predict(self.recipe, trained.config, model, rows, trained.form.batch_size, device)
        columns = self.recipe.results(found, trained.config)
        is_known = pc.is_finite(columns["score"])
        columns["score"] = pc.if_else(is_known, columns["score"], pa.scalar(None, pa.float32()))
        columns["code"] = pc.if_else(is_known, pa.scalar(None, pa.string()), "NOT_FINITE")
        columns["device"] = pa.repeat(name, batch.num_rows)
        return _rows(batch.column(self.recipe.columns[0]), columns)


def _settle() -> None:
    """Spares this process, which serves many tasks, what Spark's worker does around each: 0.3 s of CPU together."""
    # It collects garbage; all that torch has made lives for good.
    gc.freeze()
    # It has every zip file it imported from listed again, Spark's own among them; the next import finds them anew.
    for path, finder in list(sys.path_importer_cache.items()):
        if isinstance(finder, zipimporter):
            del sys.path_importer_cache[path]


def without_score(row_ids: pa.Array, codes: np.ndarray) -> pa.RecordBatch:
    """SCORED of the rows that have a code (str objects (N,), "" for none)."""
    return _rows(row_ids.filter(pa.array(codes != "")), {"code": pa.array(codes[codes != ""], pa.string())})


def _rows(row_ids: pa.Array, columns: dict[str, pa.Array]) -> pa.RecordBatch:
    """Rows as SCORED; columns not given are null."""
    rest = [columns.get(field.name, pa.nulls(len(row_ids), field.type)) for field in list(_ARROW)[1:]]
    return pa.RecordBatch.from_arrays([row_ids, *rest], schema=_ARROW)


def _in_large_batches(parts: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The rows, put together until they fill a batch."""
    waiting: list[pa.RecordBatch] = []
    for part in parts:
        waiting.append(part)
        if sum(part.num_rows for part in waiting) >= OUTPUT_ROWS:
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(parts: list[pa.RecordBatch]) -> pa.RecordBatch:
    table = pa.Table.from_batches(parts, _ARROW).combine_chunks()
    return table.to_batches()[0] if table.num_rows else _rows(pa.array([], pa.string()), {})
