import os
import signal
import time

import pytest

from medpipe.child import Child
from medpipe.molecules.smiles import canonical
from medpipe.molecules.standardise import guard, structure, structures

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"


@pytest.fixture(scope="module")
def child():
    with guard() as opened:
        yield opened


def test_spellings_salts_and_charges_of_a_drug_are_one_structure():
    spellings = [ASPIRIN, "OC(=O)c1ccccc1OC(C)=O", "[Na+].CC(=O)Oc1ccccc1C(=O)[O-]", "O.CC(=O)Oc1ccccc1C(=O)O"]
    found = [structure(spelling) for spelling in spellings]
    assert {(s.molecule_id, s.smiles) for s in found} == {("BSYNRYMUTXBXSQ-UHFFFAOYSA-N", ASPIRIN)}
    assert [s.was_salt for s in found] == [False, False, True, True]
    assert [s.was_charged for s in found] == [False, False, True, False]
    first = found[0]
    assert (first.num_heavy_atoms, first.scaffold) == (13, "c1ccccc1")
    assert first.molecular_weight == pytest.approx(180.159, abs=1e-3)


def test_the_organic_fragment_is_the_drug_however_heavy_the_other_is():
    found = structure("C[NH3+].[O-]S(=O)(=O)OS(=O)(=O)OS(=O)(=O)[O-]")
    assert (found.smiles, found.was_salt, found.was_charged) == ("CN", True, True)


def test_a_charge_that_cannot_be_neutralised_stays():
    found = structure("C[N+](C)(C)CC(=O)[O-]")
    assert (found.smiles, found.was_charged) == ("C[N+](C)(C)CC(=O)[O-]", False)


def test_an_isotope_and_a_stereoisomer_are_other_molecules():
    alike = [structure(s) for s in ("CC(N)C(=O)O", "C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O", "[2H]C(C)(N)C(=O)O")]
    assert len({s.molecule_id for s in alike}) == 4
    assert [s.has_isotope for s in alike] == [False, False, False, True]
    assert "[2H]" in alike[3].smiles


def test_tautomers_share_the_key():
    keto, enol = structure("O=c1cccc[nH]1"), structure("Oc1ccccn1")
    assert keto.molecule_id == enol.molecule_id and keto.smiles != enol.smiles


@pytest.mark.parametrize(
    ("smiles", "expected"),
    [
        ("C1CC", "BAD_SMILES"),
        ("CC(C)(C)(C)C", "BAD_SMILES"),
        ("none", "BAD_SMILES"),
        ("[999999999999C]", "BAD_SMILES"),
        ("*CC", "WILDCARD_ATOM"),
        ("[H][H]", "NO_HEAVY_ATOM"),
    ],
)
def test_what_is_no_molecule_has_a_code(smiles, expected, capfd):
    found = structure(smiles)
    assert found == expected
    assert capfd.readouterr().err == ""


def test_a_structure_is_its_own_structure():
    for smiles in (ASPIRIN, "C[N+](C)(C)CC(=O)[O-]", "CN", "[2H]C(C)(N)C(=O)O", "Oc1ccccn1"):
        found = structure(smiles).smiles
        assert structure(found).smiles == found == canonical(found)


def test_hostile_strings_are_answered_in_milliseconds_and_the_others_go_on(child):
    structures([ASPIRIN], child)
    hostile = [
        None,
        "",
        "C1CC",
        "CC\0O",
        "C(" * 20_000 + "C" + ")" * 20_000,
        "C" * 100_000,
        ".".join("C" * 50_000),
        "[Na+].CC(=O)[O-]",
        "[13CH4]",
    ]
    started = time.perf_counter()
    *refused, salt, isotope = structures(hostile, child)
    assert time.perf_counter() - started < 1
    assert refused == ["EMPTY_SMILES"] * 2 + ["BAD_SMILES", "BAD_CHARACTER", "TOO_LONG", "TOO_LONG", "TOO_LONG"]
    assert (salt.smiles, salt.was_salt, isotope.smiles) == ("CC(=O)O", True, "[13CH4]")
    assert [s.smiles for s in structures([" OCC ", "CCO\t"], child)] == ["CCO", "CCO"]


def deadly(texts):
    """The structures; of I the process dies, P takes it a minute."""
    for text in texts:
        if text == "I":
            os.kill(os.getpid(), signal.SIGKILL)
        if text == "P":
            time.sleep(60)
        yield structure(text)


def test_a_string_that_kills_or_hangs_gets_a_code_and_all_others_their_structure():
    texts = ["C", "I", "CC", "P", "", "CCC"]
    with Child(lambda: deadly) as child:
        found = structures(texts, child, seconds=0.5)
    assert found[1::2][:2] == ["RDKIT_KILLED", "RDKIT_TIMEOUT"] and found[4] == "EMPTY_SMILES"
    assert [found[i].smiles for i in (0, 2, 5)] == ["C", "CC", "CCC"]


def test_a_string_whose_process_died_once_only_is_answered(tmp_path):
    mark = tmp_path / "it-died"

    def dying_once(texts):
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return map(structure, texts)

    with Child(lambda: dying_once) as child:
        found = structures(["C", "CC"], child)
    assert mark.exists() and [s.smiles for s in found] == ["C", "CC"]
