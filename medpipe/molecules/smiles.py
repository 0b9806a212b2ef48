"""SMILES strings: cut into tokens and put together again, and asked of RDKit, which sees no string without limits."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from rdkit import Chem, rdBase

# An atom in brackets, an element of two letters, a ring closure of two digits, or one character
# (Schwaller et al., ACS Central Science 2019, the regular expression of the Molecular Transformer).
ATOMS = re.compile(r"\[[^\]]+\]|Br|Cl|%\d\d|.")
PADDING, START, END = 0, 1, 2
SPECIAL = ("<padding>", "<start>", "<end>")
# RDKit fails on a segmentation fault for deep nesting, and does not end in a minute for very long chains.
MAX_LENGTH, MAX_DEPTH = 500, 50
# Measured molecules of MoleculeNet, MOSES and MoleculeACE have up to 48 ring closures, 69 branches and 9 fragments.
MAX_RINGS, MAX_BRANCHES, MAX_FRAGMENTS = 64, 100, 20
# What may stand between brackets: digits there are isotopes, charges and hydrogens, not rings.
IN_BRACKETS = re.compile(r"\[[^\]]*\]?")
CLOSURES = re.compile(r"%\d\d|%\(\d+\)|\d")
# Strings that pairs are counted in: more change hardly a merge.
SAMPLE = 30_000


@dataclass(frozen=True)
class Tokens:
    """Pieces of SMILES. texts: of each token, SPECIAL first. merges: (left, right, whole) tokens, in the order learned.

    Source: byte-pair encoding, Sennrich et al., ACL 2016, section 3.2.
    """

    texts: tuple[str, ...]
    merges: tuple[tuple[int, int, int], ...]


def learn(smiles: Sequence[str], num_merges: int, max_atoms: int = 12) -> Tokens:
    """Tokens of the strings' atoms, and of the most frequent pairs of the first SAMPLE, merged num_merges times.

    Args:
        max_atoms: no token has more.
    Cost: num_merges passes over the sample.
    """
    texts = list(SPECIAL) + sorted({atom for text in smiles for atom in ATOMS.findall(text)})
    num_atoms = [1] * len(texts)
    line = _line(smiles[:SAMPLE], {text: token for token, text in enumerate(texts)})
    merges = []
    while len(merges) < num_merges:
        pair = _most_frequent_pair(line, np.array(num_atoms), max_atoms)
        if pair is None:
            break
        merges.append((*pair, len(texts)))
        texts.append(texts[pair[0]] + texts[pair[1]])
        num_atoms.append(num_atoms[pair[0]] + num_atoms[pair[1]])
        line = _merged(line, *merges[-1])
    return Tokens(tuple(texts), tuple(merges))


def encode(tokens: Tokens, smiles: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens int64 (E,) of all strings end to end, each closed by END, and offsets int64 (N + 1,).

    Raises:
        KeyError: an atom that is in no token.
    """
    line = _line(smiles, {text: token for token, text in enumerate(tokens.texts)})
    for merge in tokens.merges:
        line = _merged(line, *merge)
    return line, np.concatenate([[0], np.flatnonzero(line == END) + 1]).astype(np.int64)


def decode(texts: Sequence[str], tokens: np.ndarray) -> list[str | None]:
    """The string of each row of int (N, T), up to its END; None where there is none."""
    found = []
    for row in tokens.tolist():
        is_whole = END in row
        found.append("".join(texts[token] for token in row[: row.index(END)]) if is_whole else None)
    return found


def refusal(smiles: str | None) -> str | None:
    """Code of why RDKit should not be given a string, or None: it may see it. Linear in the string, at most MAX_LENGTH.

    EMPTY_SMILES; TOO_LONG; BAD_CHARACTER: a blank, a control or a letter beyond ASCII (RDKit would take what follows a
    blank for a name); TOO_DEEP, TOO_MANY_BRANCHES, TOO_MANY_RINGS, TOO_MANY_FRAGMENTS. The first that holds.
    """
    if not smiles:
        return "EMPTY_SMILES"
    if len(smiles) > MAX_LENGTH:
        return "TOO_LONG"
    if not (smiles.isascii() and smiles.isprintable()) or " " in smiles:
        return "BAD_CHARACTER"
    if _depth(smiles) > MAX_DEPTH:
        return "TOO_DEEP"
    if smiles.count("(") > MAX_BRANCHES:
        return "TOO_MANY_BRANCHES"
    if len(CLOSURES.findall(IN_BRACKETS.sub("", smiles))) > 2 * MAX_RINGS:
        return "TOO_MANY_RINGS"
    return "TOO_MANY_FRAGMENTS" if smiles.count(".") >= MAX_FRAGMENTS else None


def canonical(smiles: str | None) -> str | None:
    """RDKit's canonical form; None for what is no molecule, or is refused before RDKit sees it."""
    if refusal(smiles):
        return None
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
        return None if molecule is None else Chem.MolToSmiles(molecule)


def _depth(smiles: str) -> int:
    """Branches open at once, at most."""
    depth = np.cumsum([(letter == "(") - (letter == ")") for letter in smiles])
    return int(depth.max(initial=0))


def _line(smiles: Iterable[str], tokens: dict[str, int]) -> np.ndarray:
    """Atoms of all strings as tokens int64 (E,), each string closed by END."""
    return np.array([token for text in smiles for token in (*(tokens[a] for a in ATOMS.findall(text)), END)], np.int64)


def _most_frequent_pair(line: np.ndarray, num_atoms: np.ndarray, max_atoms: int) -> tuple[int, int] | None:
    """Two neighbours inside a string; of equally frequent pairs the first by token. None where no pair comes twice."""
    left, right = line[:-1], line[1:]
    fits = (left != END) & (right != END) & (num_atoms[left] + num_atoms[right] <= max_atoms)
    counts = np.bincount(left[fits] * len(num_atoms) + right[fits], minlength=1)
    return divmod(int(counts.argmax()), len(num_atoms)) if counts.max() > 1 else None


def _merged(line: np.ndarray, left: int, right: int, whole: int) -> np.ndarray:
    """The line with every such pair replaced, from the left."""
    places = np.flatnonzero((line[:-1] == left) & (line[1:] == right))
    if left == right:
        places = _apart(places)
    line = line.copy()
    line[places] = whole
    return np.delete(line, places + 1)


def _apart(places: np.ndarray) -> np.ndarray:
    """Of neighbouring places the first, the third ...: AAAA is two pairs, not three."""
    is_first = np.diff(places, prepend=-2) != 1
    run = np.cumsum(is_first) - 1
    return places[(places - places[is_first][run]) % 2 == 0]
