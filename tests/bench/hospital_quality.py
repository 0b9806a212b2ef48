"""How near the night's models come to the truth of a simulated hospital, through the whole pipeline.

    python -m tests.bench.hospital_quality --patients 20000 --seeds 1 2 3 --out /tmp/quality

For each seed: simulate, load, train, recommend, then compare on the test split with the true risks and with lists made
from the true preferences. Prints one line of figures per seed; about ten minutes each on 2 cores.
"""

import argparse
import json
import os
import resource
import time
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from pyspark.sql import functions as F
from sklearn.metrics import roc_auc_score

from medpipe import job, keys, settings
from medpipe.cohort.eligibility import index_date
from medpipe.evaluate import ranking
from medpipe.jobs import build_ratings, nightly, recommend_treatments, retrain_risk
from medpipe.privacy.pseudonyms import pseudonym
from medpipe.simulate import HospitalSettings, write_hospital

KEY = "c3" * 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    os.environ["MEDPIPE_PSEUDONYM_KEY"] = KEY
    for seed in args.seeds:
        started = time.monotonic()
        figures = measured(args.out / f"seed-{seed}", HospitalSettings(args.patients, seed=seed, num_nights=1))
        figures["seconds"] = round(time.monotonic() - started)
        figures["driver_peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(json.dumps({"seed": seed} | figures), flush=True)


def measured(folder: Path, hospital: HospitalSettings) -> dict:
    """Runs load, training and recommendation of one hospital; figures beside the oracle's."""
    if not (folder / "hospital" / "hospital.toml").exists():
        write_hospital(hospital, folder / "hospital")
    as_of = hospital.last_as_of
    configured = settings.load(folder / "hospital" / "hospital.toml", {"lake": str(folder / "lake")})
    work = job.open_workplace("hospital_quality", configured, as_of)
    nightly.load(work, sorted((folder / "hospital" / "deliveries").iterdir()))
    retrain_risk.retrain(work)
    job.announce(work.run(build_ratings.main))
    job.announce(work.run(recommend_treatments.main))
    return risk(work, folder, as_of) | recommendation(work, folder, as_of)


def hidden(person_ids: np.ndarray) -> list[str]:
    subkey = keys.load("env:MEDPIPE_PSEUDONYM_KEY").subkey("pseudonym")
    return [pseudonym(subkey, "patient", str(person)) for person in person_ids]


def metrics(work: job.Workplace, as_of: date, recipe: str) -> dict:
    rows = work.lake.for_run("").read("gold.model_metric", as_of, where={"recipe": recipe, "subgroup": "all"}).collect()
    # Of new patients the figures are another question.
    return {(row.model, row.metric): row for row in rows if row.split != "cold_start"}


def risk(work: job.Workplace, folder: Path, as_of: date) -> dict:
    """AUROC of oracle, GRU and logistic regression on the test split."""
    truth = pq.read_table(folder / "hospital" / "truth" / "risk.parquet").to_pandas()
    truth = truth[truth.index_date == index_date(as_of, "fit", work.settings.cohort)]
    true_risk = dict(zip(hidden(truth.person_id.to_numpy()), truth.risk, strict=True))
    cohort = work.lake.for_run("").read("gold.cohort", as_of, where={"role": "fit", "split": "test"})
    rows = cohort.where("exclusion is null").select("patient_id", "label").collect()
    labels = np.array([row.label for row in rows])
    oracle = roc_auc_score(labels, [true_risk[row.patient_id] for row in rows])
    found = metrics(work, as_of, "risk_gru")
    gru, logistic = (found[(model, "auroc")].value for model in ("risk_gru", "logistic_counts"))
    above = found[("risk_gru", "auroc_above_logistic_counts")]
    return {
        "test_patients": len(rows),
        "prevalence": round(float(labels.mean()), 4),
        "oracle_auroc": round(oracle, 4),
        "gru_auroc": round(gru, 4),
        "gru_share": round((gru - 0.5) / (oracle - 0.5), 4),
        "logistic_auroc": round(logistic, 4),
        "gru_above_logistic": [round(above.value, 4), round(above.low, 4), round(above.high, 4)],
    }


def recommendation(work: job.Workplace, folder: Path, as_of: date) -> dict:
    """NDCG@10 of the true preferences, the blend and popularity on the time-ordered split."""
    held = ranking.RankingSettings()
    rated = work.lake.for_run("").read("gold.rating", as_of).drop("as_of", "run_id")
    known, later = ranking.both_splits(rated, held)
    later = later.where(ranking.split_of(held) == "time_ordered")
    lists = oracle_lists(folder, known.select("patient_id", "treatment").toPandas())
    frame = work.lake.spark.createDataFrame(lists, "patient_id string, rank int, treatment string")
    oracle = ranking.per_patient(frame, later, held).agg(F.avg("ndcg")).first()[0]
    found = metrics(work, as_of, "blend")
    blend, popular = (found[(model, "ndcg_at_10")].value for model in ("blend", "popularity"))
    return {
        "oracle_ndcg": round(oracle, 4),
        "blend_ndcg": round(blend, 4),
        "popularity_ndcg": round(popular, 4),
        "blend_over_popularity": round(blend / popular, 3),
        "blend_share": round(blend / oracle, 4),
    }


def oracle_lists(folder: Path, known) -> list[tuple[str, int, str]]:
    """Top 10 of the true preferences without what is known."""
    truth = folder / "hospital" / "truth"
    treatments = json.loads((truth / "treatments.json").read_text())
    column = {name: index for index, name in enumerate(treatments)}
    table = pq.read_table(truth / "preference.parquet")
    preference = np.stack(table.column("preference").to_numpy())
    patients = hidden(table.column("person_id").to_numpy())
    row = {patient: index for index, patient in enumerate(patients)}
    taken = known[known.treatment.isin(column)]
    preference[taken.patient_id.map(row).to_numpy(), taken.treatment.map(column).to_numpy()] = -1
    best = np.argsort(-preference, axis=1, kind="stable")[:, :10]
    return [(p, rank + 1, treatments[t]) for p, tops in zip(patients, best, strict=True) for rank, t in enumerate(tops)]


if __name__ == "__main__":
    main()
