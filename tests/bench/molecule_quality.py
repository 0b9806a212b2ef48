"""How good the molecules of molecule_gan are, through the whole pipeline, beside figures published for MOSES.

    python -m tests.bench.molecule_quality --data ../shared/data/mol_moses --lake /tmp/molecules

Trains on 150,000 molecules (about half an hour on one core; a second call goes on where the first ended), makes 30,000
over two tasks and again over four, compares them, and measures the first: FCD on the valid ones against 15,000 held-out
molecules (Preuer et al., JCIM 2018, by fcd_torch; only figures of equal numbers compare), and the MOSES measures.
"""

import argparse
import gzip
import json
import time
from datetime import date
from pathlib import Path

import torch
from fcd_torch import FCD
from pyspark.sql import functions as F

from medpipe import job, settings
from medpipe.evaluate.generation import generation
from medpipe.jobs import promote_model, score_population, train_generator

AS_OF = date(2026, 1, 31)
NUM_MOLECULES = 30_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--lake", required=True)
    parser.add_argument("--gan", type=json.loads, default={}, help="settings of the training, as JSON")
    args = parser.parse_args()
    trained_on, held_out = (smiles_of(args.data / name) for name in ("train_150k.csv.gz", "test_15k.csv.gz"))
    work = workplace(args, 2)
    if not work.lake.exists("gold.molecule"):
        load(work, trained_on)
    started = time.monotonic()
    for step in (train_generator.main, promote_model.main):
        job.announce(work.run(step, recipe="molecule_gan"))
    figures = {"training_seconds": round(time.monotonic() - started)}
    of_tasks = {num_tasks: made(workplace(args, num_tasks), figures) for num_tasks in (2, 4)}
    figures["same_over_2_and_4_tasks"] = of_tasks[2] == of_tasks[4]
    molecules = [smiles if is_valid else None for _, smiles, is_valid, _ in of_tasks[2]]
    figures |= {name: round(value, 4) for name, value in generation(molecules, trained_on).items()}
    figures["fcd"] = distance(molecules, held_out)
    print(json.dumps(figures), flush=True)


def smiles_of(path: Path) -> list[str]:
    with gzip.open(path, "rt") as file:
        return file.read().split()[1:]


def workplace(args: argparse.Namespace, num_tasks: int) -> job.Workplace:
    score = {"num_molecules": NUM_MOLECULES, "shard_rows": -(-NUM_MOLECULES // num_tasks // 512) * 512}
    given = {"lake": args.lake, "gan": args.gan, "score": score, "spark": {"spark.master": "local[2,4]"}}
    return job.open_workplace("molecule_quality", settings.load(None, given), AS_OF)


def load(work: job.Workplace, smiles: list[str]) -> None:
    rows = [(f"m{i}", text, "train") for i, text in enumerate(smiles)]
    frame = work.lake.spark.createDataFrame(rows, "molecule_id string, smiles string, split string")
    frame = frame.withColumn("as_of", F.lit(AS_OF))
    work.lake.for_run("molecules").replace(frame, "gold.molecule", where={"as_of": AS_OF})


def made(work: job.Workplace, figures: dict) -> list[tuple]:
    """molecule_id, smiles, is_valid, score of every candidate, in order."""
    (outcome,) = work.run(score_population.main, recipe="molecule_gan")
    job.announce([outcome])
    if outcome.seconds:
        figures["molecules_per_second"] = round(outcome.num_rows / outcome.seconds)
    rows = work.lake.for_run("").read("gold.candidate", AS_OF)
    return sorted(map(tuple, rows.select("molecule_id", "smiles", "is_valid", "score").collect()))


def distance(molecules: list[str | None], held_out: list[str]) -> float:
    torch.set_num_threads(2)
    chemnet = FCD(device="cpu", n_jobs=2)
    return round(float(chemnet([smiles for smiles in molecules if smiles is not None], held_out)), 4)


if __name__ == "__main__":
    main()
