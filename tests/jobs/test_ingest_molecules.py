"""Deliveries of molecules: every fault once, repeats merged, and JAK2 as it was published."""

import json
import shutil
from collections import Counter
from datetime import date

import pytest
from pyspark.sql import functions as F

from medpipe import keys
from medpipe.errors import DataError, UsageError
from medpipe.jobs import build_molecules, ingest_molecules
from medpipe.jobs.ingest_molecules import load
from medpipe.privacy.sealing import NUM_KEY_BYTES, unseal
from tests.deliveries import KEY
from tests.jobs.conftest import open_at

LENIENT = {"molecules": {"max_bad_ratio": 1.0}}
MAPPING = """
["assays.csv"]
id = "name"
measured."IC50" = { assay = "IC50", unit = "nM", relation_column = "rel", tolerance = 1 }
measured."active" = { assay = "active", kind = "class" }
"""
ROWS = [
    "smiles,name,IC50,rel,active",
    # Ethanol five times: as it is, twice the same row, as a hydrate, in another spelling, and told otherwise.
    "CCO,ethanol,10,=,1",
    "CCO,ethanol,10,=,1",
    "CCO.O,hydrate,10.5,=,1",
    "OCC,again,20,'=',0",
    "C(O)C,bound,50,>,",
    # A salt, a charge, an isotope, a molecule nothing was measured of, and one with rings.
    "CC(=O)[O-].[Na+],acetate,7,=,0",
    "[13CH4],methane,,,",
    "C,methane,,,",
    "c1ccccc1O,phenol,5,<,1",
    # One of each fault.
    ",empty,1,=,1",
    "C1CC,invalid,1,=,1",
    "C\0C,nul,1,=,1",
    f"{'C(' * 20_000}C{')' * 20_000},nested,1,=,1",
    f"{'C' * 100_000},long,1,=,1",
    f"{'.'.join('C' * 50_000)},fragments,1,=,1",
    f"{'C(' * 60}C{')' * 60},deep,1,=,1",
    f"{'.'.join('C' * 30)},mixture,1,=,1",
    "*CC,open,1,=,1",
    "CCCl,number,ten,=,1",
    "CCCl,infinite,Infinity,=,1",
    "CCCl,class,1,=,2",
    "CCCl,relation,1,about,1",
    "CCCl,missing relation,1,,1",
    "CCCl,two faults,NaN,=,yes",
    "CCCl,short,1",
]


def deliver(folder, rows=ROWS, delivered_at="2026-01-30T22:00:00"):
    folder.mkdir(parents=True)
    (folder / "delivery.toml").write_text(f"delivered_at = {delivered_at}\n")
    (folder / "molecules.toml").write_text(MAPPING)
    (folder / "assays.csv").write_text("\n".join(rows) + "\n")
    return folder


def copy(loaded, folder):
    for name in ("lake", "lake-phi"):
        shutil.copytree(loaded / name, folder / name)
    return folder


@pytest.fixture(scope="module", autouse=True)
def key():
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MEDPIPE_PSEUDONYM_KEY", KEY)
        yield


@pytest.fixture(scope="module")
def loaded(spark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("molecules")
    work = open_at(spark, folder, "2026-01-31", thresholds=LENIENT)
    load(work, deliver(folder / "2026-01-30"))
    return folder


@pytest.fixture
def work(spark, loaded):
    return open_at(spark, loaded, "2026-01-31", thresholds=LENIENT)


@pytest.fixture
def lake(work):
    return work.lake.for_run("")


def test_every_row_is_a_molecule_another_row_of_one_or_quarantined_with_its_reasons(lake):
    fates = {r.fate: r["count"] for r in lake.read("phi.fate").groupBy("fate").count().collect()}
    assert fates == {"accepted": 5, "duplicate": 4, "quarantined": 16}
    secret = keys.load("env:MEDPIPE_PSEUDONYM_KEY").subkey("quarantine", NUM_KEY_BYTES)
    found = {}
    for row in lake.read("phi.quarantine").collect():
        raw = json.loads(unseal(secret, row.raw))
        found[raw["fields"].get("name") or raw["corrupt"]] = row.reasons
    assert found == {
        "empty": ["EMPTY_SMILES"],
        "invalid": ["BAD_SMILES"],
        "nul": ["BAD_CHARACTER"],
        "nested": ["TOO_LONG"],
        "long": ["TOO_LONG"],
        "fragments": ["TOO_LONG"],
        "deep": ["TOO_DEEP"],
        "mixture": ["TOO_MANY_FRAGMENTS"],
        "open": ["WILDCARD_ATOM"],
        "number": ["BAD_NUMBER"],
        "infinite": ["NOT_FINITE"],
        "class": ["BAD_CLASS"],
        "relation": ["BAD_RELATION"],
        "missing relation": ["BAD_RELATION"],
        "two faults": ["BAD_NUMBER", "NOT_FINITE"],
        "CCCl,short,1": ["FIELD_COUNT"],
    }


def test_a_molecule_stands_once_as_its_parent_with_flags(lake):
    rows = lake.read("silver.molecule").collect()
    assert {
        (r.smiles, r.name, r.scaffold, r.num_heavy_atoms, r.was_salt, r.was_charged, r.has_isotope) for r in rows
    } == {
        ("CCO", "ethanol", None, 3, False, False, False),
        ("CC(=O)O", "acetate", None, 4, True, True, False),
        ("[13CH4]", "methane", None, 1, False, False, True),
        ("C", "methane", None, 1, False, False, False),
        ("Oc1ccccc1", "phenol", "c1ccccc1", 7, False, False, False),
    }
    assert len({r.molecule_id for r in rows}) == len(rows) == 5
    assert {(r.source, r.source_table, str(r.known_at), r.is_deleted) for r in rows} == {
        ("molecules", "assays", "2026-01-30 21:00:00", False)
    }


def test_what_disagrees_is_told_and_an_exact_copy_is_no_second_measurement(lake):
    names = lake.read("silver.molecule").select("molecule_id", F.col("smiles"))
    rows = lake.read("silver.assay_result").join(names, on="molecule_id", how="inner").collect()
    assert {
        (r.smiles, r.assay): (
            r.value,
            r.relation,
            r.unit,
            r.num_measurements,
            r.min_value,
            r.max_value,
            r.is_conflicting,
        )
        for r in rows
    } == {
        ("CCO", "IC50"): (10.5, "=", "nM", 4, 10.0, 50.0, True),
        ("CCO", "active"): (1.0, "=", None, 3, 0.0, 1.0, True),
        ("CC(=O)O", "IC50"): (7.0, "=", "nM", 1, 7.0, 7.0, False),
        ("CC(=O)O", "active"): (0.0, "=", None, 1, 0.0, 0.0, False),
        ("Oc1ccccc1", "IC50"): (5.0, "<", "nM", 1, 5.0, 5.0, False),
        ("Oc1ccccc1", "active"): (1.0, "=", None, 1, 1.0, 1.0, False),
    }


def test_the_same_delivery_again_writes_nothing(work, lake, loaded):
    before = {name: lake.version(name) for name in ("bronze.record", "silver.molecule", "ops.run")}
    assert [outcome.status for outcome in load(work, loaded / "2026-01-30")] == ["skipped"]
    assert {name: work.lake.for_run("").version(name) for name in before} == before


def test_a_later_delivery_corrects_from_its_day_on_and_the_generator_gets_what_is_known(spark, loaded, tmp_path):
    later = open_at(spark, copy(loaded, tmp_path), "2026-02-01", thresholds=LENIENT)
    rows = [ROWS[0], "CCO,ethanol,12,=,1", "CCN,amine,3,=,0"]
    folder = deliver(tmp_path / "2026-01-31", rows, "2026-01-31T22:00:00")
    # The mapping need not be delivered.
    outside = (folder / "molecules.toml").rename(tmp_path / "mapping.toml")
    load(later, folder, str(outside))

    def of_ethanol(day):
        rows = later.lake.for_run("").read("silver.assay_result", day).where("assay = 'IC50' and unit = 'nM'")
        return [row.value for row in rows.where("max_value in (12, 50)").collect()]

    assert (of_ethanol(date(2026, 1, 31)), of_ethanol(date(2026, 2, 1))) == ([10.5], [12.0])
    before = open_at(spark, tmp_path, "2026-01-31")
    before.run(build_molecules.main)
    rows = before.lake.for_run("").read("gold.molecule", before.as_of).collect()
    assert {row.smiles for row in rows} == {"CCO", "CC(=O)O", "[13CH4]", "C", "Oc1ccccc1"} and len(rows) == 5
    assert {row.split for row in rows} <= {"train", "tune", "test"}


def test_of_a_delivery_that_is_too_bad_nothing_is_published(spark, loaded, tmp_path):
    strict = open_at(spark, copy(loaded, tmp_path), "2026-02-01")
    folder = deliver(tmp_path / "2026-01-31", [ROWS[0], "CCBr,good,1,=,1", *ROWS[-7:-4]], "2026-01-31T22:00:00")
    with pytest.raises(DataError, match=r"TOO_MANY_BAD_ROWS: molecules: 3 of 4 rows quarantined"):
        load(strict, folder)
    lake = strict.lake.for_run("")
    assert lake.read("phi.quarantine").count() == 16 + 3
    assert lake.history("silver.molecule").count() == 5 and lake.history("silver.assay_result").count() == 6


def test_another_mapping_of_the_same_delivery_is_another_run(tmp_path):
    outside = tmp_path / "mapping.toml"
    digests = []
    for text in (MAPPING, MAPPING.replace('assay = "IC50"', 'assay = "potency"')):
        outside.write_text(text)
        digests.append(ingest_molecules.ingest.extra(None, {"mapping": str(outside)}))
    assert digests[0] != digests[1] and all(digest["mapping"] for digest in digests)
    with pytest.raises(UsageError, match="NO_MAPPING: --mapping nowhere.toml is no file"):
        ingest_molecules.ingest.extra(None, {"mapping": "nowhere.toml"})


def test_a_delivery_of_something_else_or_of_a_later_day_is_refused(spark, tmp_path):
    folder = deliver(tmp_path / "in")
    with pytest.raises(UsageError, match="LATER_DELIVERY: .* was delivered at 2026-01-30T21:00:00"):
        load(open_at(spark, tmp_path, "2026-01-30"), folder)
    (folder / "delivery.toml").write_text('source = "omop"\n')
    with pytest.raises(UsageError, match="OTHER_SOURCE: .* says source 'omop', expected 'molecules'"):
        load(open_at(spark, tmp_path, "2026-01-31"), folder)


def test_the_command_says_what_became_of_the_rows(spark, loaded, capsys):
    argv = ["--lake", str(loaded / "lake"), "--as-of", "2026-01-31", "--delivery", str(loaded / "2026-01-30")]
    argv += ["--set", "hospital.timezone=Europe/Vienna", "--set", "thresholds.molecules.max_bad_ratio=1.0"]
    assert ingest_molecules.main(argv) == 0
    assert "25 rows delivered: 5 molecules, 4 more rows of them, 16 quarantined" in capsys.readouterr().out


@pytest.fixture(scope="module")
def jak2(spark, shared_data, tmp_path_factory):
    """The lake of the 1,911 measurements of JAK2 of ReLeaSE."""
    root = tmp_path_factory.mktemp("jak2")
    (root / "in").mkdir()
    shutil.copy(shared_data / "mol_activity" / "jak2_pic50.csv.gz", root / "in")
    mapping = 'measured.pIC50 = { assay = "JAK2 pIC50", unit = "-log10(mol/L)", tolerance = 1.0 }'
    (root / "in" / "molecules.toml").write_text(f'["jak2_pic50.csv.gz"]\n{mapping}\n')
    work = open_at(spark, root, "2026-01-31")
    load(work, root / "in")
    work.run(build_molecules.main)
    return work


def test_jak2_has_its_molecules_and_its_contradictions(jak2):
    lake = jak2.lake.for_run("")
    fates = Counter(r.fate for r in lake.read("phi.fate").collect())
    assert sum(fates.values()) == 1911 and not fates["quarantined"]
    results = lake.read("silver.assay_result").collect()
    assert len(results) == fates["accepted"] == lake.read("silver.molecule").count()
    assert sum(row.is_conflicting for row in results) == 16
    assert all(row.is_conflicting == (row.max_value - row.min_value > 1) for row in results)


def test_a_scaffold_is_on_one_side_of_the_split(jak2):
    lake = jak2.lake.for_run("")
    scaffolds = lake.read("silver.molecule").select("molecule_id", "scaffold")
    rows = lake.read("gold.molecule", jak2.as_of).join(scaffolds, on="molecule_id", how="inner").collect()
    assert len({(row.scaffold, row.split) for row in rows if row.scaffold}) == len(
        {r.scaffold for r in rows if r.scaffold}
    )
    sizes = Counter(row.split for row in rows)
    assert sizes["train"] > sizes["tune"] > 100 and sizes["test"] > 100
