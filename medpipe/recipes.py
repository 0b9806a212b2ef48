"""What a model needs to be trained and to score: its table, its columns, how rows become tensors, logits scores."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from medpipe.errors import MissingEnvironmentError, UsageError
from medpipe.models.cnn import ImageClassifier, ImageConfig, channels_last, fused
from medpipe.models.gan import GanConfig, MoleculeGan
from medpipe.models.sequence import FoldedSequenceClassifier, SequenceClassifier, SequenceConfig
from medpipe.molecules.smiles import canonical, decode
from medpipe.stream.batches import Encoded, Sequences, buckets, flat, pad, sequence_faults, sequences_of
from medpipe.stream.images import Images, image_faults, images_of
from medpipe.stream.noise import Draws, draw, uniforms
from medpipe.stream.reader import read
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
        table: gold table of the features; None where the model makes its rows out of noise.
        scores_table: gold table of the scores.
        columns: what scoring reads of `table`; the first names the row and is in both tables.
        batch_rows: rows read at a time; bounds a task's memory.
        rows: batches of a shard, as reader.read.
        config: the shape of a new model for the rows it will be trained on, and their vocabulary; None for a generator.
        build: a model from the shape, as it stands in model.json; weights are not set.
        faults: from an Arrow batch with `columns` and the shape, a code for each row that `read` would refuse, "" for
            the others; str objects (N,).
        read: an Arrow batch with `columns`, encoded.
        inputs: arguments of the model for the rows `rows`, from (encoded, rows, config).
        scores: probabilities from logits; what else the model gives stays beside them.
        results: columns of ops.scored, `score` among them, from the array (N, ...) that `scores` gave, and the shape.
        forms: name -> what makes of a trained model one that scores the same, sooner; `eager` leaves it as it is.
        batch_sizes: to choose from when a model is registered.
        form: of a model for which none was chosen.
        gpu_form: on a GPU, whatever was chosen for a core; there a pass of few rows costs as much as one of many.
    """

    name: str
    table: str | None
    scores_table: str
    columns: tuple[str, ...]
    batch_rows: int
    rows: Callable[[str, Sequence[int], Sequence[str], int], Iterator[pa.RecordBatch]]
    config: Callable[[Vocabulary | None, Encoded], dict] | None
    build: Callable[[dict], nn.Module]
    faults: Callable[[pa.RecordBatch, dict], np.ndarray]
    read: Callable[[pa.RecordBatch, Vocabulary | None], Encoded]
    inputs: Callable[[Encoded, np.ndarray, dict], tuple[Tensor, ...]]
    scores: Callable[[Tensor], Tensor]
    results: Callable[[np.ndarray, dict], dict[str, pa.Array]]
    forms: dict[str, Callable[[nn.Module], nn.Module]]
    batch_sizes: tuple[int, ...]
    form: Form
    gpu_form: Form


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
    recipes = {recipe.name: recipe for recipe in (RISK_GRU, XRAY_CNN, MOLECULE_GAN)}
    if name not in recipes:
        raise UsageError("UNKNOWN_RECIPE", f"no recipe {name!r}; expected one of {', '.join(sorted(recipes))}")
    return recipes[name]


def ready(recipe: Recipe, trained: Trained) -> nn.Module:
    """The model in its form, for scoring.

    Raises:
        MissingEnvironmentError: WRONG_SHAPE.
    """
    model = recipe.build(trained.config)
    try:
        model.load_state_dict(trained.weights)
    except RuntimeError:
        shape = f"the weights of {trained.recipe} are not those of a model of its shape"
        raise MissingEnvironmentError(
            "WRONG_SHAPE", f"{shape}; restore its folder, or train and promote again"
        ) from None
    with torch.no_grad():
        return recipe.forms[trained.form.name](model.eval())


@torch.inference_mode()
def predict(recipe: Recipe, config: dict, model: nn.Module, encoded: Encoded, batch_size: int) -> np.ndarray:
    """Scores float32 (N, ...) of all rows on the CPU, in their order; those of similar length share a forward pass."""
    model.eval()
    taken = batches(recipe, config, encoded, batch_size)
    return in_order([(rows, recipe.scores(model(*inputs)).numpy()) for rows, inputs in taken])


def in_order(found: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """float32 (N, ...) from (rows (B,), their scores (B, ...)) in which each of N rows comes once."""
    if not found:
        return np.empty(0, np.float32)
    rows, parts = (np.concatenate(part) for part in zip(*found, strict=True))
    scores = np.empty_like(parts)
    scores[rows] = parts
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


def score_alone(scores: np.ndarray, config: dict) -> dict[str, pa.Array]:
    """The results of a classifier."""
    return {"score": pa.array(scores)}


def gan_model(config: dict) -> MoleculeGan:
    """A generator and a discriminator of that shape with fresh weights from torch's current seed."""
    return MoleculeGan(GanConfig(**config))


def no_faults(batch: pa.RecordBatch, config: dict) -> np.ndarray:
    """Nothing is wrong with noise, str objects (N,)."""
    return np.full(batch.num_rows, "", object)


def draws_of(batch: pa.RecordBatch, vocabulary: None) -> Draws:
    """A batch of noise.draw."""
    ids, seeds, places = (flat(batch, name, batch.schema.field(name).type) for name in MOLECULE_GAN.columns)
    return Draws(ids, seeds, places)


def noise_inputs(draws: Draws, rows: np.ndarray, config: dict) -> tuple[Tensor, ...]:
    """Noise float32 (B, T) of the molecules `rows` (B,)."""
    return (torch.from_numpy(uniforms(draws, rows, config["max_tokens"])),)


def realness(found: Tensor) -> Tensor:
    """float32 (B, 1 + T) from MoleculeGan: its logit as a probability, the tokens as they are."""
    return torch.cat([torch.sigmoid(found[:, :1]), found[:, 1:]], dim=1)


def molecules(found: np.ndarray, config: dict) -> dict[str, pa.Array]:
    """score, smiles (null where the molecule did not end) and is_valid, by RDKit; canonical where valid."""
    texts = decode(config["tokens"], found[:, 1:].astype(np.int64))
    known = [canonical(text) for text in texts]
    smiles = [whole or text for whole, text in zip(known, texts, strict=True)]
    return {
        "score": pa.array(found[:, 0]),
        "smiles": pa.array(smiles, pa.string()),
        "is_valid": pa.array([whole is not None for whole in known]),
    }


RISK_GRU = Recipe(
    name="risk_gru",
    table="gold.sequence",
    scores_table="gold.score",
    columns=("patient_id", "concepts", "days_before", "amounts"),
    batch_rows=8192,
    rows=read,
    config=sequence_config,
    build=sequence_model,
    faults=sequence_faults,
    read=sequences_of,
    inputs=sequence_inputs,
    scores=probabilities,
    results=score_alone,
    forms={"eager": unchanged, "folded": FoldedSequenceClassifier},
    batch_sizes=(64, 128, 256, 512),
    form=Form("eager", 256),
    gpu_form=Form("eager", 2048),
)

XRAY_CNN = Recipe(
    name="xray_cnn",
    table="gold.image",
    scores_table="gold.image_score",
    columns=("image_id", "height", "width", "pixels"),
    batch_rows=512,
    rows=read,
    config=image_config,
    build=image_model,
    faults=image_faults,
    read=images_without_concepts,
    inputs=image_inputs,
    scores=probabilities,
    results=score_alone,
    forms={"eager": unchanged, "fused": fused, "channels_last": channels_last},
    batch_sizes=(8, 16, 32, 64, 128),
    form=Form("eager", 32),
    gpu_form=Form("fused", 512),
)

# The size of a batch changes a probability's last bits, and they can change a token: a block is always made whole.
MOLECULE_GAN = Recipe(
    name="molecule_gan",
    table=None,
    scores_table="gold.candidate",
    columns=("molecule_id", "seed", "place"),
    batch_rows=512,
    rows=draw,
    config=None,
    build=gan_model,
    faults=no_faults,
    read=draws_of,
    inputs=noise_inputs,
    scores=realness,
    results=molecules,
    forms={"eager": unchanged},
    batch_sizes=(512,),
    form=Form("eager", 512),
    gpu_form=Form("eager", 512),
)
