"""What a model needs to be trained and to score: its table, its columns, how rows become tensors, logits scores."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from medpipe.errors import UsageError
from medpipe.models.cnn import ImageClassifier, ImageConfig, channels_last, fused
from medpipe.models.sequence import FoldedSequenceClassifier, SequenceClassifier, SequenceConfig
from medpipe.stream.batches import Encoded, Sequences, buckets, pad, sequence_faults, sequences_of
from medpipe.stream.images import Images, image_faults, images_of
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
        scores_table: gold table of the scores.
        columns: what scoring reads of `table`; the first names the row and is in both tables.
        batch_rows: rows read at a time; bounds a task's memory.
        config: the shape of a new model for the rows it will be trained on, and their vocabulary.
        build: a model from the shape, as it stands in model.json; weights are not set.
        faults: from an Arrow batch with `columns` and the shape, a code for each row that `read` would refuse, "" for
            the others; str objects (N,).
        read: an Arrow batch with `columns`, encoded.
        inputs: arguments of the model for the rows `rows`, from (encoded, rows, config).
        scores: probabilities from logits.
        forms: name -> what makes of a trained model one that scores the same, sooner; `eager` leaves it as it is.
        batch_sizes: to choose from when a model is registered.
        form: of a model for which none was chosen.
    """

    name: str
    table: str
    scores_table: str
    columns: tuple[str, ...]
    batch_rows: int
    config: Callable[[Vocabulary | None, Encoded], dict]
    build: Callable[[dict], nn.Module]
    faults: Callable[[pa.RecordBatch, dict], np.ndarray]
    read: Callable[[pa.RecordBatch, Vocabulary | None], Encoded]
    inputs: Callable[[Encoded, np.ndarray, dict], tuple[Tensor, ...]]
    scores: Callable[[Tensor], Tensor]
    forms: dict[str, Callable[[nn.Module], nn.Module]]
    batch_sizes: tuple[int, ...]
    form: Form


@dataclass(frozen=True, eq=False)
class Trained:
    """A model at rest: all a worker needs. `weights` are torch tensors by name, `config` as in Recipe.build.

    vocabulary: None for a recipe that reads no concepts.
    """

    recipe: str
    config: dict
    weights: dict[str, Tensor]
    vocabulary: Vocabulary | None
    form: Form


def named(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        UsageError: UNKNOWN_RECIPE.
    """
    recipes = {recipe.name: recipe for recipe in (RISK_GRU, XRAY_CNN)}
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
def predict(recipe: Recipe, config: dict, model: nn.Module, encoded: Encoded, batch_size: int) -> np.ndarray:
    """Scores float32 (N,) of all rows on the CPU, in their order; those of similar length share a forward pass."""
    model.eval()
    scores = np.empty(len(encoded.ids), np.float32)
    for rows, inputs in batches(recipe, config, encoded, batch_size):
        scores[rows] = recipe.scores(model(*inputs)).numpy()
    return scores


def batches(
    recipe: Recipe, config: dict, encoded: Encoded, batch_size: int
) -> Iterator[tuple[np.ndarray, tuple[Tensor, ...]]]:
    """(rows (B,), the model's arguments for them), until each row came once."""
    for rows in buckets(encoded.lengths, batch_size):
        yield rows, recipe.inputs(encoded, rows, config)


def sequence_config(vocabulary: Vocabulary, sequences: Sequences) -> dict:
    """The default shape of the GRU."""
    return asdict(SequenceConfig(vocabulary.num_tokens))


def sequence_model(config: dict) -> SequenceClassifier:
    """A GRU of that shape with fresh weights from torch's current seed."""
    return SequenceClassifier(SequenceConfig(**config))


def sequence_inputs(sequences: Sequences, rows: np.ndarray, config: dict) -> tuple[Tensor, ...]:
    """Tokens (B, T), days before (B, T), values (B, T) and lengths (B,) of the patients `rows` (B,)."""
    padded = pad(sequences, rows, config["max_events"])
    arrays = (padded.tokens, padded.days_before, padded.amounts, padded.lengths)
    return tuple(torch.from_numpy(array) for array in arrays)


def image_config(vocabulary: None, images: Images) -> dict:
    """The default shape of the CNN, for images of that size."""
    _, height, width = images.pixels.shape
    return asdict(ImageConfig(height, width))


def image_model(config: dict) -> ImageClassifier:
    """A CNN of that shape with fresh weights from torch's current seed."""
    return ImageClassifier(ImageConfig(**config))


def images_without_concepts(batch: pa.RecordBatch, vocabulary: None) -> Images:
    """images_of, in the form Recipe.read has."""
    return images_of(batch)


def image_inputs(images: Images, rows: np.ndarray, config: dict) -> tuple[Tensor, ...]:
    """Pixels float32 (B, 1, H, W) in [0, 1] of the images `rows` (B,)."""
    return (torch.from_numpy(images.pixels[rows]).unsqueeze(1).float().div_(255.0),)


def unchanged(model: nn.Module) -> nn.Module:
    """The form of a model as it was trained."""
    return model


def probabilities(logits: Tensor) -> Tensor:
    """float32 (B,) from logits (B,)."""
    return torch.sigmoid(logits)


RISK_GRU = Recipe(
    name="risk_gru",
    table="gold.sequence",
    scores_table="gold.score",
    columns=("patient_id", "concepts", "days_before", "amounts"),
    batch_rows=8192,
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

XRAY_CNN = Recipe(
    name="xray_cnn",
    table="gold.image",
    scores_table="gold.image_score",
    columns=("image_id", "height", "width", "pixels"),
    batch_rows=512,
    config=image_config,
    build=image_model,
    faults=image_faults,
    read=images_without_concepts,
    inputs=image_inputs,
    scores=probabilities,
    forms={"eager": unchanged, "fused": fused, "channels_last": channels_last},
    batch_sizes=(8, 16, 32, 64, 128),
    form=Form("eager", 32),
)
