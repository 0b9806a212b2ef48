"""The molecules a generator learns from, as tokens, in an order that no file decides."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from medpipe.errors import DataError
from medpipe.molecules.smiles import Tokens, encode
from medpipe.stream.batches import flat
from medpipe.stream.shards import Shard
from medpipe.train.examples import BATCH_ROWS, hash_order, read_shard


def read_molecules(shards: Sequence[Shard], max_molecules: int) -> list[str]:
    """SMILES of the train split: the max_molecules whose ids have the smallest hash, in that order.

    Raises:
        DataError: SHARD_ROWS where a file holds other than the planned rows, NO_EXAMPLES where there is none.
    """
    found: dict[str, str] = {}
    for shard in shards:
        for batch in read_shard(shard, ("molecule_id", "smiles", "split"), BATCH_ROWS):
            ids, smiles, splits = (flat(batch, name, pa.string()) for name in batch.schema.names)
            found |= dict(zip(ids[splits == "train"], smiles[splits == "train"], strict=True))
    if not found:
        raise DataError("NO_EXAMPLES", "gold.molecule has no molecule of split train; load some for this as_of")
    ids = np.array(list(found), object)
    return [found[name] for name in ids[hash_order(ids, "examples")[:max_molecules]]]


def padded(tokens: Tokens, smiles: Sequence[str]) -> Tensor:
    """int64 (N, T): END, then padding; T is the longest molecule's."""
    line, offsets = encode(tokens, smiles)
    lengths = np.diff(offsets)
    is_token = np.arange(lengths.max())[None, :] < lengths[:, None]  # (N, T)
    rows = np.zeros(is_token.shape, np.int64)
    rows[is_token] = line
    return torch.from_numpy(rows)
