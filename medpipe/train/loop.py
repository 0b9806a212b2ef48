"""Trains a model on the driver: seeded, early stopped, and after a kill continued to the very same weights."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from medpipe.errors import UsageError
from medpipe.recipes import Recipe, predict
from medpipe.train.examples import Examples, epoch_batches
from medpipe.train.settings import TrainSettings


@dataclass(frozen=True, eq=False)
class Fitted:
    """The best epoch's weights (torch tensors by name), its metrics, and the tune log loss of every epoch."""

    weights: dict[str, Tensor]
    metrics: dict[str, float]
    history: tuple[float, ...]


@dataclass
class _State:
    """Everything the next epoch depends on."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    best: dict[str, Tensor] = field(default_factory=dict)
    history: list[float] = field(default_factory=list)


def fit(recipe: Recipe, config: dict, examples: Examples, settings: TrainSettings, folder: Path) -> Fitted:
    """Trains until the tune log loss stops falling and returns the best epoch.

    The same examples, config, settings and number of threads give the same bits on one machine, in one go or
    continued: the state is written after each epoch, and each epoch seeds itself.

    Args:
        folder: local; holds state.safetensors of this very training, or nothing yet.
    Raises:
        UsageError: OTHER_TRAINING if the state in the folder is of other settings, config or patients.
    """
    identity = _identity(recipe, config, examples, settings)
    with reproducible(settings.num_threads):
        torch.manual_seed(settings.seed)
        model = recipe.build(config)
        state = _State(model, _optimiser(model, settings))
        _resume(folder, identity, state)
        while not _is_over(state.history, settings):
            _train_epoch(recipe, config, examples, settings, state)
            loss = _log_loss(recipe, config, examples, model)
            if loss < min(state.history, default=np.inf):
                state.best = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
            state.history.append(loss)
            _save(folder, identity, state)
    best = int(np.argmin(state.history))
    metrics = {"tune_log_loss": state.history[best], "epoch": best + 1, "num_epochs": len(state.history)}
    return Fitted(state.best, metrics, tuple(state.history))


def _train_epoch(recipe: Recipe, config: dict, examples: Examples, settings: TrainSettings, state: _State) -> None:
    epoch = len(state.history)
    # Dropout must not depend on how many epochs this process has run.
    torch.manual_seed(settings.seed * 1_000_003 + epoch)
    share = (1 + np.cos(np.pi * epoch / settings.max_epochs)) / 2
    for group in state.optimiser.param_groups:
        group["lr"] = settings.learning_rate * (0.1 + 0.9 * share)
    state.model.train()
    for rows in epoch_batches(examples, examples.rows("train"), settings.batch_size, settings.seed, epoch):
        logits = state.model(*recipe.inputs(examples.encoded, rows, config))
        loss = binary_cross_entropy_with_logits(logits, torch.from_numpy(examples.labels[rows]))
        state.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(state.model.parameters(), settings.max_norm)
        state.optimiser.step()


def _log_loss(recipe: Recipe, config: dict, examples: Examples, model: nn.Module) -> float:
    rows = examples.rows("tune")
    scores = predict(recipe, config, model, examples.encoded.take(rows), recipe.form.batch_size)
    scores = scores.astype(np.float64).clip(1e-7, 1 - 1e-7)
    labels = examples.labels[rows]
    return float(-np.mean(labels * np.log(scores) + (1 - labels) * np.log1p(-scores)))


def _is_over(history: list[float], settings: TrainSettings) -> bool:
    if not history:
        return False
    return len(history) >= settings.max_epochs or len(history) - 1 - int(np.argmin(history)) >= settings.patience


def _optimiser(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)


@contextmanager
def reproducible(num_threads: int) -> Iterator[None]:
    """Torch on CPU with so many threads and deterministic kernels; what was set before comes back."""
    threads, is_deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(num_threads)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(is_deterministic)


def _identity(recipe: Recipe, config: dict, examples: Examples, settings: TrainSettings) -> dict:
    """What a state must agree in to be continued."""
    digest = hashlib.sha256("\n".join(examples.encoded.ids).encode())
    arrays = [array for name, array in sorted(vars(examples.encoded).items()) if name != "ids"]
    for array in (*arrays, examples.labels):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update("\n".join(examples.splits).encode())
    return {"recipe": recipe.name, "config": config, "settings": asdict(settings), "examples": digest.hexdigest()}


def _save(folder: Path, identity: dict, state: _State) -> None:
    """One file, renamed into place: after a kill there is the old state or the new one."""
    tensors = {f"model.{name}": tensor for name, tensor in state.model.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
    for index, moments in state.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": tensor for name, tensor in moments.items()}
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / "state.safetensors.new"
    progress = json.dumps({"identity": identity, "history": state.history}, sort_keys=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, new, {"progress": progress})
    os.replace(new, folder / "state.safetensors")


def _resume(folder: Path, identity: dict, state: _State) -> None:
    path = folder / "state.safetensors"
    if not path.is_file():
        return
    with safe_open(path, "pt") as file:
        progress = json.loads(file.metadata()["progress"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    if progress["identity"] != json.loads(json.dumps(identity)):
        raise UsageError("OTHER_TRAINING", f"{path} is the state of another training; remove it or give another folder")
    state.history = progress["history"]
    state.best = _part(tensors, "best.")
    state.model.load_state_dict(_part(tensors, "model."))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _part(tensors, "optimiser.").items():
        index, moment = name.split(".")
        moments.setdefault(int(index), {})[moment] = tensor
    state.optimiser.load_state_dict(state.optimiser.state_dict() | {"state": moments})


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
