"""What a model needs to be trained and to score: its table, its columns, how rows become tensors, logits scores."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from medpipe.errors import UsageError
from medpipe.models.sequence import FoldedSequenceClassifier, SequenceClassifier, SequenceConfig
from medpipe.stream.batches import Sequences, buckets, pad, sequence_faults, sequences_of
from medpipe.stream.tokens import Vocabulary


@dataclass(frozen=True)
class Form:
    """How a model scores: what of Recipe.forms it is turned into, and rows per forward pass.

    Both change the last bits of a score, so a model keeps the form it was registered with.
    """

    name: str
    batch_size: int


@dataclass(frozen=True)
class Recipe:
    """One way from a gold table to a score. Functions are module-level ones: a recipe travels to the workers.

    Attributes:
        name: as in gold.score.recipe.
        table: gold table of the features.
        columns: what scoring reads of it, patient_id first.
        config: the shape of a new model, from the size of its vocabulary.
        build: a model from the shape, as it stands in model.json; weights are not set.
        faults: a code for each row of an Arrow batch that `read` would refuse, "" for the others; str objects (N,).
        read: an Arrow batch with `columns`, encoded.
        inputs: arguments of the model for the patients `rows`, from (sequences, rows, config).
        scores: probabilities from logits.
        forms: name -> what makes of a trained model one that scores the same, sooner; `eager` leaves it as it is.
        batch_sizes: to choose from when a model is registered.
        form: of a model for which none was chosen.
    """

    name: str
    table: str
    columns: tuple[str, ...]
    config: Callable[[int], dict]
    build: Callable[[dict], nn.Module]
    faults: Callable[[pa.RecordBatch], np.ndarray]
    read: Callable[[pa.RecordBatch, Vocabulary], Sequences]
    inputs: Callable[[Sequences, np.ndarray, dict], tuple[Tensor, ...]]
    scores: Callable[[Tensor], Tensor]
    forms: dict[str, Callable[[nn.Module], nn.Module]]
    batch_sizes: tuple[int, ...]
    form: Form


@dataclass(frozen=True, eq=False)
class Trained:
    """A model at rest: all a worker needs. `weights` are torch tensors by name, `config` as in Recipe.build."""

    recipe: str
    config: dict
    weights: dict[str, Tensor]
    vocabulary: Vocabulary
    form: Form


def named(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        UsageError: UNKNOWN_RECIPE.
    """
    recipes = {recipe.name: recipe for recipe in (RISK_GRU,)}
    if name not in recipes:
        raise UsageError("UNKNOWN_RECIPE", f"no recipe {name!r}; expected one of {', '.join(sorted(recipes))}")
    return recipes[name]


def ready(recipe: Recipe, trained: Trained) -> nn.Module:
    """The model in its form, for scoring."""
    model = recipe.build(trained.config)
    model.load_state_dict(trained.weights)
    with torch.no_grad():
        return recipe.forms[trained.form.name](model.eval())


@torch.inference_mode()
def predict(recipe: Recipe, config: dict, model: nn.Module, sequences: Sequences, batch_size: int) -> np.ndarray:
    """Scores float32 (N,) of all patients on the CPU, in their order; those of similar length share a forward pass."""
    model.eval()
    scores = np.empty(len(sequences.patient_ids), np.float32)
    for rows, inputs in batches(recipe, config, sequences, batch_size):
        scores[rows] = recipe.scores(model(*inputs)).numpy()
    return scores


def batches(
    recipe: Recipe, config: dict, sequences: Sequences, batch_size: int
) -> Iterator[tuple[np.ndarray, tuple[Tensor, ...]]]:
    """(rows (B,), the model's arguments for them), until each row came once."""
    for rows in buckets(sequences.lengths, batch_size):
        yield rows, recipe.inputs(sequences, rows, config)


def sequence_config(num_tokens: int) -> dict:
    """The default shape of the GRU."""
    return asdict(SequenceConfig(num_tokens))


def sequence_model(config: dict) -> SequenceClassifier:
    """A GRU of that shape with fresh weights from torch's current seed."""
    return SequenceClassifier(SequenceConfig(**config))


def sequence_inputs(sequences: Sequences, rows: np.ndarray, config: dict) -> tuple[Tensor, ...]:
    """Tokens (B, T), days before (B, T), values (B, T) and lengths (B,) of the patients `rows` (B,)."""
    padded = pad(sequences, rows, config["max_events"])
    arrays = (padded.tokens, padded.days_before, padded.amounts, padded.lengths)
    return tuple(torch.from_numpy(array) for array in arrays)


def unchanged(model: nn.Module) -> nn.Module:
    """The form of a model as it was trained."""
    return model


def probabilities(logits: Tensor) -> Tensor:
    """float32 (B,) from logits (B,)."""
    return torch.sigmoid(logits)


RISK_GRU = Recipe(
    name="risk_gru",
    table="gold.sequence",
    columns=("patient_id", "concepts", "days_before", "amounts"),
    config=sequence_config,
    build=sequence_model,
    faults=sequence_faults,
    read=sequences_of,
    inputs=sequence_inputs,
    scores=probabilities,
    forms={"eager": unchanged, "folded": FoldedSequenceClassifier},
    batch_sizes=(64, 128, 256, 512),
    form=Form("eager", 256),
)
