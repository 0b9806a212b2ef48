"""How good generated molecules are, by the measures of MOSES that need nothing but the strings.

Source: Polykovskiy et al., Frontiers in Pharmacology 2020, section Metrics.
"""

from collections.abc import Sequence

from medpipe.molecules.smiles import canonical


def generation(molecules: Sequence[str | None], trained_on: Sequence[str], num_compared: int = 10_000) -> dict:
    """valid: share of all that RDKit takes. unique: share of different ones among the first num_compared valid ones.
    novel: share of the different valid ones that are not trained_on. Each in [0, 1]; 0 where there is nothing to share.

    Args:
        molecules: canonical SMILES; None for what is no molecule.
        trained_on: SMILES; brought to canonical form here.
    """
    valid = [smiles for smiles in molecules if smiles is not None]
    compared, different = valid[:num_compared], set(valid)
    known = {canonical(smiles) for smiles in trained_on}
    return {
        "valid": _share(len(valid), len(molecules)),
        "unique": _share(len(set(compared)), len(compared)),
        "novel": _share(len(different - known), len(different)),
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
