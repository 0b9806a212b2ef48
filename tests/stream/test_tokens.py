import numpy as np
import pytest

from medpipe.errors import ContractError
from medpipe.stream.tokens import MAX_Z, UNKNOWN, encode, vocabulary_of

HASHES = [50, -7, 2**62]
NAN = np.nan


@pytest.fixture
def vocabulary():
    return vocabulary_of(HASHES, [2, 3, 4], [0.0, 10.0, 5.0], [1.0, 2.0, 5.0])


def test_known_concepts_get_their_token_and_others_unknown(vocabulary):
    tokens, _ = encode(vocabulary, np.array([-7, 2**62, 50, 49, 2**63 - 1, -(2**63)]), np.full(6, NAN, np.float32))
    assert tokens.tolist() == [3, 4, 2, UNKNOWN, UNKNOWN, UNKNOWN]


def test_values_are_scaled_by_their_own_concept_and_cut(vocabulary):
    _, z = encode(vocabulary, np.array([-7, -7, 2**62, 50]), np.array([14, NAN, 0, 1e9], np.float32))
    assert z[[0, 2, 3]].tolist() == [2.0, -1.0, MAX_Z]
    assert np.isnan(z[1])


def test_a_value_of_an_unknown_concept_is_no_value(vocabulary):
    _, z = encode(vocabulary, np.array([51]), np.array([3.0], np.float32))
    assert np.isnan(z).all()


def test_an_empty_vocabulary_knows_nothing():
    tokens, z = encode(vocabulary_of([], [], [], []), np.array([1, 2]), np.array([1.0, 2.0], np.float32))
    assert tokens.tolist() == [UNKNOWN, UNKNOWN] and np.isnan(z).all()


@pytest.mark.parametrize(("hashes", "tokens"), [([5, 5], [2, 3]), ([5, 6], [2, 4]), ([5, 6], [2, 2])])
def test_a_vocabulary_with_a_hash_twice_or_a_gap_is_refused(hashes, tokens):
    with pytest.raises(ContractError, match="BAD_VOCABULARY"):
        vocabulary_of(hashes, tokens, [0, 0], [1, 1])
