"""SMILES as delivered -> one structure for what is one drug: its largest fragment without charge, by RDKit.

RDKit sees no string that `smiles.refusal` has a code for, and sees the others in a process that may die or hang.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rdkit import Chem, rdBase
from rdkit.Chem.Descriptors import MolWt
from rdkit.Chem.MolStandardize import rdMolStandardize
from rdkit.Chem.Scaffolds.MurckoScaffold import GetScaffoldForMol

from medpipe.child import Child
from medpipe.molecules.smiles import MAX_LENGTH, refusal

# A molecule takes about a millisecond.
SECONDS = 10.0
BATCH_ROWS = 256
PRELOADED = ("medpipe.molecules.standardise", "pyspark.worker")


@dataclass(frozen=True)
class Structure:
    """A molecule.

    Attributes:
        molecule_id: standard InChIKey, which tautomers and spellings share; where InChI has none (some metals), SMILES-
            and 128 bits of the SHA-256 of `smiles`, hex.
        smiles: canonical, of the parent: the largest fragment, organic before inorganic, neutral where that can be.
        scaffold: canonical SMILES of the Murcko scaffold; None for a molecule without rings.
        molecular_weight: average, g/mol.
        was_salt: other fragments (counterions, solvents) were left out.
        was_charged: charges of the parent were neutralised.
        has_isotope: an atom has a mass number, which is kept.
    Source: InChI Technical Manual 2020; Bemis and Murcko, J. Med. Chem. 1996; MolStandardize of RDKit.
    """

    molecule_id: str
    smiles: str
    scaffold: str | None
    num_heavy_atoms: int
    molecular_weight: float
    was_salt: bool
    was_charged: bool
    has_isotope: bool


def guard() -> Child:
    """The process to ask `structures` of; open it with `with`."""
    return Child(lambda: lambda texts: map(structure, texts), PRELOADED)


def structures(texts: Sequence[str | None], child: Child, seconds: float = SECONDS) -> list[Structure | str]:
    """The structure of each string, or the code of why it has none: of `refusal`, of `structure`, or of the process.

    Args:
        texts: blanks at their ends are not looked at.
        seconds: that a string may take. On a machine that stands still for so long, twice, a good one is refused, too.
    Returns:
        RDKIT_KILLED for a string of which the process died, RDKIT_TIMEOUT where it took too long, both twice.
    """
    texts = [text.strip(" \t") if text else text for text in texts]
    codes = [refusal(text) for text in texts]
    answers = _answers([text for text, code in zip(texts, codes, strict=True) if code is None], child, seconds)
    return [next(answers) if code is None else code for code in codes]


def structure(smiles: str) -> Structure | str:
    """What RDKit makes of a string, or a code; in this process, so for strings that are known to be harmless.

    BAD_SMILES: no molecule; WILDCARD_ATOM: a part of it is left open; NO_HEAVY_ATOM; TOO_LONG: canonical, it is;
    RDKIT_FAILED: RDKit gave up.
    """
    with rdBase.BlockLogs():
        try:
            molecule = Chem.MolFromSmiles(smiles)
            return "BAD_SMILES" if molecule is None else _structure(molecule)
        except (ValueError, RuntimeError):
            return "RDKIT_FAILED"


def _structure(molecule: Chem.Mol) -> Structure | str:
    was_salt = len(Chem.GetMolFrags(molecule)) > 1
    fragment = _parent_chooser().choose(molecule) if was_salt else molecule
    is_charged = any(atom.GetFormalCharge() for atom in fragment.GetAtoms())
    parent = rdMolStandardize.Uncharger().uncharge(fragment) if is_charged else fragment
    if any(atom.GetAtomicNum() == 0 for atom in parent.GetAtoms()):
        return "WILDCARD_ATOM"
    if parent.GetNumHeavyAtoms() == 0:
        return "NO_HEAVY_ATOM"
    smiles = Chem.MolToSmiles(parent)
    if len(smiles) > MAX_LENGTH:
        return "TOO_LONG"
    has_rings = parent.GetRingInfo().NumRings() > 0
    return Structure(
        molecule_id=Chem.MolToInchiKey(parent) or f"SMILES-{hashlib.sha256(smiles.encode()).hexdigest()[:32]}",
        smiles=smiles,
        scaffold=Chem.MolToSmiles(GetScaffoldForMol(parent)) if has_rings else None,
        num_heavy_atoms=parent.GetNumHeavyAtoms(),
        molecular_weight=MolWt(parent),
        was_salt=was_salt,
        was_charged=is_charged and smiles != Chem.MolToSmiles(fragment),
        has_isotope=any(atom.GetIsotope() for atom in parent.GetAtoms()),
    )


def _parent_chooser() -> rdMolStandardize.LargestFragmentChooser:
    parameters = rdMolStandardize.CleanupParameters()
    # A drug is not its counterion, however heavy that is.
    parameters.preferOrganic = True
    return rdMolStandardize.LargestFragmentChooser(parameters)


def _answers(texts: Sequence[str], child: Child, seconds: float) -> Iterator[Structure | str]:
    """One answer a text, in order; those of a batch that got none are asked one by one."""
    for start in range(0, len(texts), BATCH_ROWS):
        batch = texts[start : start + BATCH_ROWS]
        try:
            answer = child.ask(batch, seconds)
        except TimeoutError:
            answer = None
        yield from answer if answer is not None else (_alone(text, child, seconds) for text in batch)


def _alone(text: str, child: Child, seconds: float) -> Structure | str:
    """Asked twice before it is blamed: a death or a delay may have come from outside."""
    code = ""
    for _ in range(2):
        try:
            answer = child.ask([text], seconds)
        except TimeoutError:
            code = "RDKIT_TIMEOUT"
            continue
        if answer is not None:
            return answer[0]
        code = "RDKIT_KILLED"
    return code
