"""How treatments are recommended. Apart from the models, so that reading settings needs no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RecommendSettings:
    """Lists and what stands beside them.

    Attributes:
        top_k: length of a list.
        num_reasons: parts of a score that are told; all others are one number.
        min_patients: how many patients had a reason and the treatment both is told from so many on.
        max_treatments, max_features: the most common ones, which the model knows; it holds a few arrays of the square
            of both together.
    """

    top_k: int = 10
    num_reasons: int = 3
    min_patients: int = 10
    max_treatments: int = 5000
    max_features: int = 1000


@dataclass(frozen=True)
class ExactAlsSettings:
    """Confidence 1 + alpha * rating; a patient's factors minimise sum c (p - x'y)^2 + reg n |x|^2 + kappa |x - W'f|^2.

    Attributes:
        reg: multiplied by the number of ratings of the patient (or treatment), as Spark's ALS does.
        kappa: how much a patient's features weigh, in units of one treatment's square; 0 is plain ALS.
        feature_reg: ridge penalty of W, the factors that features let expect.
    """

    rank: int = 64
    iterations: int = 8
    reg: float = 0.1
    alpha: float = 1.0
    kappa: float = 10.0
    feature_reg: float = 10.0
    seed: int = 1


@dataclass(frozen=True)
class EaseSettings:
    """reg: ridge penalty. feature_weight: how loud a feature is beside a treatment; 0 leaves features out."""

    reg: float = 200.0
    feature_weight: float = 0.5


@dataclass(frozen=True)
class SimilaritySettings:
    """How many neighbours, and how many patients a task compares with everybody (changes its memory, not the result).

    A task keeps about 20 bytes per own patient and neighbour, and the pseudonyms of all patients.
    """

    num_neighbours: int = 50
    block_rows: int = 16_384
