"""How treatments are recommended. Apart from the models, so that reading settings needs no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RecommendSettings:
    """Lists and what stands beside them.

    Attributes:
        top_k: length of a list.
        num_reasons: parts of a score that are told; all others are one number.
        min_patients: how many patients had a reason and the treatment both is told from so many on; what fewer have
            had of the formulary is new.
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
    reg: float = 0.2
    alpha: float = 2.0
    kappa: float = 20.0
    feature_reg: float = 5.0
    seed: int = 1


@dataclass(frozen=True)
class EaseSettings:
    """How much is believed of the counts.

    Attributes:
        reg: ridge penalty, in patients.
        feature_weight: how loud a feature is beside a treatment; 0 leaves features out.
        dropout_odds: p / (1 - p), where a share p of each history is hidden at random while it is learnt from: the
            more, the less a treatment leans on a single other one. 0: nothing is hidden.
    """

    reg: float = 20.0
    feature_weight: float = 0.5
    dropout_odds: float = 0.5


@dataclass(frozen=True)
class BlendSettings:
    """How the models weigh; chosen on the tuning parts of eICU (tests/bench/recommend_quality.py).

    Weights drawn anew each night would be one more reason for a list to change.

    Attributes:
        als, ease: shares of exact ALS and of EASE; the rest is that of the ridge regression on features.
        few: of whom fewer treatments are known, EASE says little: then ALS has als_of_few and the ridge the rest.
        ridge_reg: penalty of that ridge, in patients.
    """

    als: float = 0.6
    ease: float = 0.3
    few: int = 4
    als_of_few: float = 0.5
    ridge_reg: float = 50.0


@dataclass(frozen=True)
class SimilaritySettings:
    """How many neighbours, and how many patients a task compares with everybody (changes its memory, not the result).

    A task keeps about 20 bytes per own patient and neighbour, and the pseudonyms of all patients.
    """

    num_neighbours: int = 50
    block_rows: int = 16_384
