"""Trains two towers on histories read from shards: half of what a patient has is shown, the rest is to be found."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from medpipe.models.two_tower import TwoTower, TwoTowerConfig
from medpipe.stream.batches import flat, ragged
from medpipe.stream.shards import Shard
from medpipe.train.examples import BATCH_ROWS, hash_order, read_shard
from medpipe.train.loop import reproducible

COLUMNS = ("patient_id", "treatments", "features")


@dataclass(frozen=True)
class TwoTowerSettings:
    """How to train.

    Attributes:
        hidden: share of a patient's treatments that are to be found from the others.
        unseen: share of patients of whom, in an epoch, no treatment is shown: the features learn to stand alone.
        weight_decay: decoupled (AdamW).
        num_threads: of torch; part of the result's last bits.
    """

    dim: int = 64
    num_epochs: int = 40
    batch_size: int = 128
    learning_rate: float = 1e-2
    weight_decay: float = 1e-2
    hidden: float = 0.5
    unseen: float = 0.1
    seed: int = 1
    num_threads: int = 1


@dataclass(frozen=True)
class Bags:
    """Histories of N patients, in an order that no file decides; values end to end, starts int64 (N + 1,)."""

    treatments: np.ndarray
    starts: np.ndarray
    features: np.ndarray
    feature_starts: np.ndarray


def read_bags(shards: Sequence[Shard]) -> Bags:
    """The patients of the shards who have a treatment. Memory: 8 bytes a rating and feature.

    Args:
        shards: of files with patient_id (unique), treatments and features (array<int>).
    """
    ids, lists = [], ([], [])
    for shard in shards:
        for batch in read_shard(shard, COLUMNS, BATCH_ROWS):
            ids.extend(flat(batch, "patient_id", pa.string()))
            for column, found in zip(COLUMNS[1:], lists, strict=True):
                values, starts = ragged(batch, column, pa.int32())
                found.extend(np.split(values.astype(np.int64), starts[1:-1]))
    order = [row for row in hash_order(np.array(ids, object), "histories") if len(lists[0][row])]
    treatments, features = ([found[row] for row in order] for found in lists)
    return Bags(*_joined(treatments), *_joined(features))


def fit_two_tower(bags: Bags, num_treatments: int, num_features: int, settings: TwoTowerSettings) -> dict:
    """Weights, float64: by_treatment (M, R), by_feature (N, R), everybody (R,), of_treatments (M, R), bias (M,).

    The loss is the multinomial likelihood of what was hidden among all treatments (Liang et al., WWW 2018). The same
    patients, settings and number of threads give the same bits on one machine.
    """
    with reproducible(settings.num_threads):
        torch.manual_seed(settings.seed)
        model = TwoTower(TwoTowerConfig(num_treatments, num_features, settings.dim))
        optimiser = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
        for epoch in range(settings.num_epochs):
            draw = np.random.default_rng([settings.seed, epoch])
            for group in optimiser.param_groups:
                group["lr"] = settings.learning_rate * (0.1 + 0.45 * (1 + np.cos(np.pi * epoch / settings.num_epochs)))
            order = draw.permutation(len(bags.starts) - 1)
            for start in range(0, len(order), settings.batch_size):
                _step(model, optimiser, bags, order[start : start + settings.batch_size], draw, settings)
    weights = {name: tensor.detach().double().numpy() for name, tensor in model.state_dict().items()}
    return {
        "by_treatment": weights["by_treatment.weight"],
        "by_feature": weights["by_feature.weight"][:num_features],
        "everybody": weights["everybody"],
        "of_treatments": weights["of_treatments.weight"],
        "bias": weights["of_treatments.bias"],
    }


def _step(
    model, optimiser, bags: Bags, rows: np.ndarray, draw: np.random.Generator, settings: TwoTowerSettings
) -> None:
    shown, hidden = _parted(bags, rows, draw, settings)
    features = [bags.features[bags.feature_starts[row] : bags.feature_starts[row + 1]] for row in rows]
    given = [torch.from_numpy(part) for lists in (shown, features) for part in _bag(lists)]
    found = torch.log_softmax(model(*given), dim=1)
    owners = np.repeat(np.arange(len(rows)), [len(part) for part in hidden])
    wanted = found[torch.from_numpy(owners), torch.from_numpy(np.concatenate(hidden))]
    # A patient counts once, however long the history.
    weights = torch.from_numpy(1 / np.array([len(part) for part in hidden], np.float32)[owners])
    loss = -(wanted * weights).sum() / len(rows)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def _parted(
    bags: Bags, rows: np.ndarray, draw: np.random.Generator, settings: TwoTowerSettings
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """(shown, hidden) treatments of each row; something is always hidden."""
    shown, hidden = [], []
    for row in rows:
        treatments = bags.treatments[bags.starts[row] : bags.starts[row + 1]]
        is_hidden = draw.random(len(treatments)) < settings.hidden
        is_hidden[draw.integers(len(treatments))] = True
        if draw.random() < settings.unseen:
            is_hidden[:] = True
        shown.append(treatments[~is_hidden])
        hidden.append(treatments[is_hidden])
    return shown, hidden


def _joined(lists: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(values, starts (N + 1,))."""
    starts = np.concatenate([[0], np.cumsum([len(part) for part in lists])]).astype(np.int64)
    return np.concatenate([np.empty(0, np.int64), *lists]), starts


def _bag(lists: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(values, where each list begins (N,)), as EmbeddingBag reads them."""
    values, starts = _joined(lists)
    return values, starts[:-1]
