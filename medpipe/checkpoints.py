"""Models on a store: one folder per model, named by the sha256 of its weights, checked whenever it is loaded.

`weights.safetensors` holds all that decides a score but for its last bits: tensors, vocabulary, recipe and shape.
`model.json` beside it is for people and for ops.model, and holds the form. Nothing is pickled, so loading runs no code.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from datetime import date

import fsspec
import numpy as np
import torch
from pyspark.sql import DataFrame, Row
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from
from safetensors.torch import save as bytes_of

from medpipe import __version__
from medpipe.errors import MissingEnvironmentError, UsageError
from medpipe.recipes import Form, Trained
from medpipe.stream.tokens import Vocabulary

WEIGHTS, CARD = "weights.safetensors", "model.json"
VOCABULARY = ("concept_hash", "token", "amount_mean", "amount_std")


@dataclass(frozen=True)
class Checkpoint:
    """What model.json says.

    Attributes:
        sha256: of weights.safetensors, hex; the model's name everywhere.
        config: shape and training settings. metrics: at the chosen epoch. data: table -> Delta version.
        form: how the model scores, as recipes.Form; a search that measures time chose it.
    """

    recipe: str
    sha256: str
    config: dict
    metrics: dict
    data: dict
    form: dict
    medpipe_version: str

    @property
    def folder(self) -> str:
        """Relative to the store."""
        return f"{self.recipe}/{self.sha256}"


def save(store: str, trained: Trained, settings: dict, metrics: dict, data: dict) -> Checkpoint:
    """Writes the model under store/recipe/sha256; the same model again keeps the form it was first given.

    Args:
        store: folder, as a path or any URL fsspec knows.
        settings: training settings, kept beside the shape in `config`.
    """
    content = _content(trained)
    checkpoint = Checkpoint(
        recipe=trained.recipe,
        sha256=hashlib.sha256(content).hexdigest(),
        config={"model": trained.config, "train": settings},
        metrics=metrics,
        data=data,
        form=asdict(trained.form),
        medpipe_version=__version__,
    )
    files, root = fsspec.core.url_to_fs(f"{store.rstrip('/')}/{checkpoint.folder}")
    if files.exists(f"{root}/{CARD}"):
        checkpoint = replace(checkpoint, form=describe(f"{store.rstrip('/')}/{checkpoint.folder}").form)
    files.makedirs(root, exist_ok=True)
    files.pipe_file(f"{root}/{WEIGHTS}", content)
    # Last: a folder without it is one whose writing was cut off.
    files.pipe_file(f"{root}/{CARD}", (json.dumps(asdict(checkpoint), indent=2, sort_keys=True) + "\n").encode())
    return checkpoint


def current(models: DataFrame, recipe: str, as_of: date) -> Row:
    """The row of ops.model that scores of as_of are made with; see `promoted`.

    Raises:
        UsageError: NO_CURRENT_MODEL.
    """
    row = promoted(models, recipe, as_of)
    if row is None:
        raise UsageError(
            "NO_CURRENT_MODEL",
            f"no model of {recipe} is current at {as_of}; run retrain_risk and promote_model for that date or before",
        )
    return row


def promoted(models: DataFrame, recipe: str, as_of: date) -> Row | None:
    """The promotion that holds at as_of: the latest effective_from up to it, then the one made last.

    Args:
        models: as ops.model; a handful of rows, all collected.
    """
    rows = [row for row in models.collect() if row.recipe == recipe and row.status == "current"]
    rows = [row for row in rows if row.effective_from <= as_of]
    return max(rows, key=lambda row: (row.effective_from, row.sequence), default=None)


def num_promotions(models: DataFrame, recipe: str) -> int:
    """Promotions of a recipe made so far."""
    return max((row.sequence for row in models.collect() if row.recipe == recipe), default=0)


def newest_candidate(models: DataFrame, recipe: str, as_of: date) -> Row:
    """The row of ops.model of the candidate trained for the latest date up to as_of.

    Raises:
        UsageError: NO_CANDIDATE; SEVERAL_CANDIDATES where two were trained for that date.
    """
    rows = [row for row in models.collect() if row.recipe == recipe and row.status == "candidate"]
    latest = max((row.as_of for row in rows if row.as_of <= as_of), default=None)
    found = sorted({row.model_sha256 for row in rows if row.as_of == latest})
    if not found:
        raise UsageError("NO_CANDIDATE", f"no model of {recipe} was trained for {as_of} or before; run retrain_risk")
    if len(found) > 1:
        raise UsageError("SEVERAL_CANDIDATES", f"trained for {latest}: {', '.join(found)}; choose one with --model")
    return next(row for row in rows if row.model_sha256 == found[0])


def describe(folder: str) -> Checkpoint:
    """model.json of a checkpoint folder (path or URL).

    Raises:
        MissingEnvironmentError: NO_CHECKPOINT.
    """
    return Checkpoint(**json.loads(_read(folder, CARD)))


def load(folder: str, sha256: str) -> Trained:
    """The model in a checkpoint folder (path or URL), if its weights are the ones that were registered.

    Raises:
        MissingEnvironmentError: NO_CHECKPOINT, WEIGHTS_CHANGED, WEIGHTS_UNREADABLE, WEIGHTS_NOT_FINITE; each names the
            folder.
    """
    content = _read(folder, WEIGHTS)
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        told = f"{folder}/{WEIGHTS} has sha256 {found}, registered is {sha256}; restore it"
        raise MissingEnvironmentError("WEIGHTS_CHANGED", told)
    try:
        tensors = tensors_from(content)
        # safetensors: 8 bytes of length, then a JSON header.
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        model = json.loads(header["__metadata__"]["model"])
        names = [name for name in VOCABULARY if f"vocabulary.{name}" in tensors]
        arrays = {name: tensors.pop(f"vocabulary.{name}").numpy() for name in names}
        vocabulary = Vocabulary(**arrays) if arrays else None
    except (SafetensorError, KeyError, TypeError, ValueError) as failure:
        raise MissingEnvironmentError(
            "WEIGHTS_UNREADABLE", f"{folder}/{WEIGHTS}: {type(failure).__name__}; not a medpipe checkpoint"
        ) from None
    if broken := sorted(name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()):
        told = f"{folder}/{WEIGHTS}: no finite numbers in {', '.join(broken)}; train and promote again"
        raise MissingEnvironmentError("WEIGHTS_NOT_FINITE", told)
    return Trained(model["recipe"], model["config"], tensors, vocabulary, Form(**describe(folder).form))


def _content(trained: Trained) -> bytes:
    """The weights file; equal models give equal bytes."""
    tensors = {name: tensor.detach().contiguous() for name, tensor in trained.weights.items()}
    for name in VOCABULARY if trained.vocabulary else ():
        array = np.ascontiguousarray(getattr(trained.vocabulary, name))
        tensors[f"vocabulary.{name}"] = torch.from_numpy(array)
    # One key only: safetensors writes several in no fixed order.
    model = {"recipe": trained.recipe, "config": trained.config}
    return bytes_of(tensors, {"model": json.dumps(model, sort_keys=True)})


def _read(folder: str, name: str) -> bytes:
    files, root = fsspec.core.url_to_fs(folder.rstrip("/"))
    try:
        return files.cat_file(f"{root}/{name}")
    except FileNotFoundError:
        raise MissingEnvironmentError(
            "NO_CHECKPOINT", f"{folder} has no {name}; restore the model's folder or train and promote again"
        ) from None
