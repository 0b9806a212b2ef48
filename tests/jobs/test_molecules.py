"""Molecules of MOSES: a generator learns from them, is promoted, and makes candidates."""

import gzip
from datetime import date

import pytest
from pyspark.sql import functions as F
from rdkit import Chem

from medpipe import job, ledger, settings
from medpipe.errors import UsageError
from medpipe.jobs import promote_model, score_population, train_generator, train_model
from medpipe.tables import Lake

AS_OF = date(2026, 1, 31)
SMALL = {
    "hidden_dim": 128,
    "num_epochs": 6,
    "batch_size": 32,
    "learning_rate": 5e-3,
    "num_rounds": 4,
    "warm_up": 2,
    "round_size": 256,
    "num_measured": 600,
}


@pytest.fixture(scope="module")
def generated(spark, shared_data, tmp_path_factory):
    """The workplace after training, promotion and scoring in two tasks."""
    with gzip.open(shared_data / "mol_moses" / "train_150k.csv.gz", "rt") as file:
        smiles = file.read().split()[1:4001]
    root = str(tmp_path_factory.mktemp("molecules") / "lake")
    configured = settings.load(None, {"lake": root, "gan": SMALL, "score": in_tasks_of(2048)})
    lake = Lake(spark, configured.lake, configured.phi_root)
    frame = spark.createDataFrame(
        [(f"m{i}", text, "train") for i, text in enumerate(smiles)], "molecule_id string, smiles string, split string"
    )
    lake.for_run("molecules").replace(frame.withColumn("as_of", F.lit(AS_OF)), "gold.molecule", where={"as_of": AS_OF})
    work = job.Workplace(lake, configured, AS_OF, ledger.Ledger.open(lake))
    for step in (train_generator.main, promote_model.main, score_population.main):
        work.run(step, recipe="molecule_gan")
    return work


def in_tasks_of(num_molecules, **other):
    return {"num_molecules": 4096, "shard_rows": num_molecules} | other


def again(work, **score):
    """The candidates after one more run with other settings."""
    configured = settings.load(None, {"lake": work.lake.root, "gan": SMALL, "score": score})
    (outcome,) = job.Workplace(work.lake, configured, AS_OF, work.ledger).run(
        score_population.main, recipe="molecule_gan"
    )
    assert outcome.status == "done"
    return candidates(work)


def candidates(work):
    rows = work.lake.for_run("").read("gold.candidate", AS_OF).drop("run_id").collect()
    return sorted(tuple(row) for row in rows)


def test_every_molecule_asked_for_is_there_once_valid_or_not(generated):
    rows = generated.lake.for_run("").read("gold.candidate", AS_OF).collect()
    assert sorted(row.molecule_id for row in rows) == [f"1-{place:09d}" for place in range(4096)]
    for row in rows[:500]:
        molecule = Chem.MolFromSmiles(row.smiles) if row.smiles else None
        assert row.is_valid == (molecule is not None)
        assert not row.is_valid or row.smiles == Chem.MolToSmiles(molecule)
    share = sum(row.is_valid for row in rows) / len(rows)
    assert 0.05 < share < 1, "a small generator learns to make molecules, and makes strings that are none"
    assert len({row.smiles for row in rows if row.is_valid}) > 100


def test_over_four_tasks_the_molecules_are_those_of_two(generated):
    of_two = candidates(generated)
    assert again(generated, **in_tasks_of(1024)) == of_two
    assert again(generated, **in_tasks_of(1024, tasks_per_part=3)) == of_two


def test_another_seed_gives_other_molecules(generated):
    names = {row[2:4] for row in candidates(generated)}
    others = {row[2:4] for row in again(generated, **in_tasks_of(2048, seed=2))}
    assert len(others) == 4096 and not {name for name, _ in names} & {name for name, _ in others}
    assert len({smiles for _, smiles in names} & {smiles for _, smiles in others}) < 400


def test_what_it_makes_is_measured(generated):
    rows = generated.lake.for_run("").read("gold.model_metric", AS_OF, {"recipe": "molecule_gan"}).collect()
    found = {row.metric: row.value for row in rows}
    assert found.keys() == {"valid", "unique", "novel"}
    assert {(row.split, row.num_patients) for row in rows} == {("generated", 600)}
    assert 0.05 < found["valid"] < 1 and found["unique"] > 0.9 and found["novel"] > 0.9


def test_a_recipe_without_labels_has_a_training_of_its_own(generated):
    with pytest.raises(UsageError, match="OTHER_JOB: molecule_gan learns without labels; run train_generator"):
        generated.run(train_model.main, recipe="molecule_gan")
