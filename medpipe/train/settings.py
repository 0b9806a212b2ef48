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
