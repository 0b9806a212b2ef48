"""How a model is trained; its shape is its own config. Apart from the loop, so that reading settings needs no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainSettings:
    """How to train.

    Attributes:
        learning_rate: of Adam, at the start; falls to a tenth along half a cosine over max_epochs.
        weight_decay: decoupled (AdamW). max_norm: of the gradient.
        patience: epochs without a better log loss on the tune split before training stops.
        max_patients: per split; bounds the driver's memory (about 12 bytes per event).
        max_tokens: concepts of the vocabulary.
        num_threads: of torch; part of the result's last bits.
        num_draws: bootstrap resamples behind each interval of the evaluation.
    """

    batch_size: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    max_norm: float = 1.0
    max_epochs: int = 20
    patience: int = 4
    seed: int = 1
    max_patients: int = 200_000
    max_tokens: int = 20_000
    num_threads: int = 1
    num_draws: int = 500


@dataclass(frozen=True)
class GanSettings:
    """How a generator of molecules is trained against its discriminator.

    Attributes:
        max_molecules: to train on; bounds time and memory (64 bytes a molecule).
        hidden_dim: of the generator.
        num_merges: pairs of tokens that become one.
        num_epochs: of maximum likelihood, before the two meet.
        batch_size: of maximum likelihood. learning_rate: of Adam, for the generator by likelihood; rises over the first
            200 steps and falls along half a cosine. max_norm: of the gradient.
        decay: of the moving average of the generator's weights, per step; the average is what is kept.
        num_rounds: in each the generator draws molecules, the discriminator learns, then the generator.
        round_size: molecules drawn in a round. warm_up: rounds before the generator's first.
        rate_against: learning rate of the generator in the rounds. discriminator_rate: of the discriminator.
        max_logit: of the discriminator, as far as it is believed.
        likelihood_weight: of real molecules beside the drawn ones.
        num_threads: of torch; part of the result's last bits.
        num_measured: molecules drawn for the figures in gold.model_metric.
    """

    max_molecules: int = 150_000
    hidden_dim: int = 512
    num_merges: int = 200
    num_epochs: int = 4
    batch_size: int = 128
    learning_rate: float = 2e-3
    max_norm: float = 5.0
    decay: float = 0.999
    num_rounds: int = 60
    round_size: int = 1024
    warm_up: int = 20
    rate_against: float = 2e-4
    discriminator_rate: float = 5e-4
    max_logit: float = 2.0
    likelihood_weight: float = 1.0
    seed: int = 1
    num_threads: int = 1
    num_measured: int = 10_000
