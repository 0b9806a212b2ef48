import time

import numpy as np
import pytest

from medpipe.molecules.smiles import END, SPECIAL, canonical, decode, encode, learn, refusal

MOLECULES = ["CCO", "CCCC", "CC(=O)Oc1ccccc1C(=O)O", "Clc1ccccc1Br", "c1cc[nH]c1", "CCCCC"]


def rows_of(tokens, smiles):
    line, offsets = encode(tokens, smiles)
    return [line[start:stop] for start, stop in zip(offsets, offsets[1:], strict=False)]


@pytest.mark.parametrize("num_merges", [0, 1, 5, 50])
def test_tokens_put_together_are_the_string_again(num_merges):
    tokens = learn(MOLECULES, num_merges)
    for smiles, row in zip(MOLECULES, rows_of(tokens, MOLECULES), strict=True):
        assert row[-1] == END
        assert decode(tokens.texts, row[None]) == [smiles]


def test_an_atom_of_several_letters_is_one_token():
    tokens = learn(["Clc1cc[nH]c1Br"], 0)
    assert tokens.texts == (*SPECIAL, "1", "Br", "Cl", "[nH]", "c")


def test_the_most_frequent_pair_becomes_a_token_first():
    tokens = learn(["CCO", "CCN", "CCO"], 1)
    assert tokens.texts[-1] == "CC"
    assert [len(row) for row in rows_of(tokens, ["CCO", "CCCCN", "CCCO"])] == [3, 4, 4]


def test_a_run_of_one_letter_is_paired_from_the_left():
    tokens = learn(["CCCCC", "CCCCC"], 1)
    (row,) = rows_of(tokens, ["CCCCC"])
    assert [tokens.texts[token] for token in row[:-1]] == ["CC", "CC", "C"]


def test_no_token_grows_beyond_max_atoms():
    tokens = learn(["C" * 30] * 3, 10, max_atoms=3)
    assert max(len(text) for text in tokens.texts[len(SPECIAL) :]) == 2
    assert max(len(text) for text in learn(["C" * 30] * 3, 10).texts[len(SPECIAL) :]) == 8


def test_an_atom_that_was_not_learned_is_an_error():
    with pytest.raises(KeyError):
        encode(learn(["CCO"], 0), ["CN"])


def test_without_an_end_there_is_no_string():
    tokens = learn(["CO"], 0)
    assert decode(tokens.texts, np.array([[3, 4, END], [3, 4, 4], [END, 0, 0]])) == ["CO", None, ""]


@pytest.mark.parametrize(
    ("smiles", "expected"),
    [
        ("OCC", "CCO"),
        ("CCO", "CCO"),
        ("C1CC", None),
        ("CC(C)(C)(C)C", None),
        ("", None),
        (None, None),
        ("C" * 60_000, None),
        ("C(" * 20_000 + "C" + ")" * 20_000, None),
        ("C(" * 60 + "C" + ")" * 60, None),
        ("C(" * 3 + "C" + ")" * 3, "CCCC"),
    ],
    ids=[
        "other order",
        "canonical",
        "open ring",
        "five bonds",
        "empty",
        "no end",
        "too long",
        "too long and deep",
        "too deep",
        "branches",
    ],
)
def test_rdkit_is_asked_only_what_it_can_answer(smiles, expected, capfd):
    assert canonical(smiles) == expected
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("smiles", "expected"),
    [
        (None, "EMPTY_SMILES"),
        ("", "EMPTY_SMILES"),
        ("C" * 501, "TOO_LONG"),
        ("C" * 100_000, "TOO_LONG"),
        ("C(" * 20_000 + "C" + ")" * 20_000, "TOO_LONG"),
        (".".join("C" * 50_000), "TOO_LONG"),
        ("CCO ethanol", "BAD_CHARACTER"),
        ("CC\0O", "BAD_CHARACTER"),
        ("CC\u00e9", "BAD_CHARACTER"),
        ("C(" * 51 + "C" + ")" * 51, "TOO_DEEP"),
        ("C(C)" * 101, "TOO_MANY_BRANCHES"),
        ("C12" * 70, "TOO_MANY_RINGS"),
        ("C" + "%99" * 129, "TOO_MANY_RINGS"),
        ("C" + "%99" * 64 + "%(99)" * 32 + "1" * 32, None),
        (".".join("C" * 21), "TOO_MANY_FRAGMENTS"),
        (".".join("C" * 20), None),
        ("C" * 500, None),
        ("[13CH4]" * 70, None),
        ("c1ccccc1", None),
        ("this is none", "BAD_CHARACTER"),
        ("none", None),
    ],
)
def test_a_string_is_refused_in_no_time_before_rdkit_sees_it(smiles, expected):
    started = time.perf_counter()
    assert refusal(smiles) == expected
    assert time.perf_counter() - started < 0.02
