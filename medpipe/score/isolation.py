"""Rows that kill the process that scores them, told apart from the others.

A segmentation fault, or a kernel that wants its memory back, leaves nothing to catch. So a child process scores, and
its death says which batch did it; halves of that batch are scored until the rows that kill stand alone.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from medpipe.child import Child
from medpipe.errors import DataError
from medpipe.score.devices import of_task
from medpipe.score.scorer import Scorer, without_score
from medpipe.stream.shards import Shard

# More of one batch, and it is the model or a library that kills, not a few rows: the search would take hours.
MAX_KILLERS = 16
# What the id of a row begins with that stands where a killing one was.
STAND_IN = "\0stand-in "
PRELOADED = ["medpipe.score.scorer", "torch", "pyspark.worker"]


@dataclass(frozen=True)
class Isolated:
    """A Scorer for shards of which some rows may kill their process; such a row gets the code KILLED_WORKER."""

    scorer: Scorer

    def __call__(self, plans: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """As Scorer.__call__; the other rows have the bits that they have there.

        Raises:
            DataError: SHARD_KILLS_WORKER, with the shard, where it is not for a few rows that the process dies.
            MedpipeError: what Scorer raises.
        """
        with Child(partial(self.scorer.on, of_task(self.scorer.device)), PRELOADED) as child:
            for plan in plans:
                shards = "; ".join(str(Shard(**shard)) for shard in plan.to_pylist())
                yield from self.scorer.rows([plan], partial(self._batch, child, shards))

    def _batch(self, child: Child, shards: str, batch: pa.RecordBatch) -> Iterable[pa.RecordBatch]:
        scored = child.ask(batch)
        if scored is not None:
            return scored
        rows = killers(child, batch)
        if len(rows) > MAX_KILLERS:
            found = f"more than {MAX_KILLERS} rows of one batch kill the process that scores them"
            raise DataError("SHARD_KILLS_WORKER", f"{shards}: {found}; mend the model or the library it runs on")
        scored = child.ask(_replaced(batch, rows)) if len(rows) < batch.num_rows else []
        if scored is None:
            found = "rows that kill no process alone do so together"
            raise DataError("SHARD_KILLS_WORKER", f"{shards}: {found}; give the workers more memory")
        codes = np.full(batch.num_rows, "", object)
        codes[rows] = "KILLED_WORKER"
        others = (part.filter(pc.invert(pc.starts_with(part.column(0), STAND_IN))) for part in scored)
        return [without_score(batch.column(0), codes), *others]


def killers(child: Child, batch: pa.RecordBatch) -> list[int]:
    """Rows that kill the child whenever they are alone in it, in order; MAX_KILLERS + 1 of them end the search.

    Cost: two deaths per killing row and halving, and one more, for a death may have come from outside.
    """
    found: list[int] = []
    suspects = [(0, batch.num_rows)]
    while suspects and len(found) <= MAX_KILLERS:
        start, stop = suspects.pop()
        part = batch.slice(start, stop - start)
        if child.ask(part) is not None:
            continue
        if stop - start > 1:
            middle = (start + stop) // 2
            suspects += [(middle, stop), (start, middle)]
        elif child.ask(part) is None:
            found.append(start)
    return found


def _replaced(batch: pa.RecordBatch, rows: list[int]) -> pa.RecordBatch:
    """The batch with another row's values and a made-up id at the places `rows`, which are not all.

    Left out, the rows would make forward passes of other sizes, and with them other last bits of other rows' scores.
    """
    places = np.arange(batch.num_rows)
    places[rows] = np.setdiff1d(places, rows)[0]
    replaced = batch.take(pa.array(places))
    ids = replaced.column(0).to_numpy(zero_copy_only=False)
    ids[rows] = [f"{STAND_IN}{row}" for row in rows]
    return pa.RecordBatch.from_arrays([pa.array(ids, pa.string()), *replaced.columns[1:]], schema=batch.schema)
