"""Concept hashes to model tokens and raw values to z-scores: one way, for training and for scoring."""

from dataclasses import dataclass

import numpy as np

from medpipe.errors import ContractError

PADDING, UNKNOWN = 0, 1
# Beyond this a value says "extreme"; how extreme is mostly typing errors.
MAX_Z = 5.0


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """gold.vocabulary as arrays, V concepts.

    Attributes:
        concept_hash: int64 (V,), ascending.
        token: int64 (V,), a permutation of 2 .. V + 1.
        amount_mean, amount_std: float32 (V,), of the train split's values; std > 0.
    """

    concept_hash: np.ndarray
    token: np.ndarray
    amount_mean: np.ndarray
    amount_std: np.ndarray

    @property
    def num_tokens(self) -> int:
        """Size of the model's table: the concepts, padding and unknown."""
        return len(self.token) + 2


def vocabulary_of(concept_hash, token, amount_mean, amount_std) -> Vocabulary:
    """Rows of gold.vocabulary, in any order, as a Vocabulary.

    Raises:
        ContractError: BAD_VOCABULARY where a hash stands twice or the tokens are not 2, 3 ... without a gap.
    """
    concept_hash = np.asarray(concept_hash, np.int64)
    order = np.argsort(concept_hash, kind="stable")
    token = np.asarray(token, np.int64)[order]
    if len(np.unique(concept_hash)) != len(token) or not np.array_equal(np.sort(token), np.arange(len(token)) + 2):
        raise ContractError("BAD_VOCABULARY", "expected one row per concept_hash and tokens 2, 3 ...; rebuild it")
    mean, std = (np.asarray(values, np.float32)[order] for values in (amount_mean, amount_std))
    return Vocabulary(concept_hash[order], token, mean, std)


def encode(vocabulary: Vocabulary, concepts: np.ndarray, amounts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(tokens int32 (E,), z-scores float32 (E,)) of E events.

    A concept outside the vocabulary is UNKNOWN. The z-score is cut to +-MAX_Z and NaN where the event has no value or
    its concept, and with it the scale, is unknown.

    Args:
        concepts: int64 (E,) hashes. amounts: float32 (E,), NaN where there is none.
    """
    if not len(vocabulary.concept_hash):
        return np.full(len(concepts), UNKNOWN, np.int32), np.full(len(concepts), np.nan, np.float32)
    place = np.searchsorted(vocabulary.concept_hash, concepts)
    place = np.minimum(place, len(vocabulary.concept_hash) - 1)
    known = vocabulary.concept_hash[place] == concepts
    tokens = np.where(known, vocabulary.token[place], UNKNOWN).astype(np.int32)
    z = (amounts - vocabulary.amount_mean[place]) / vocabulary.amount_std[place]
    z = np.where(known & np.isfinite(amounts), np.clip(z, -MAX_Z, MAX_Z), np.nan)
    return tokens, z.astype(np.float32)
