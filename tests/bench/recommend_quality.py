"""How well each recommender ranks what was held out: real ICU patients, films, a simulated hospital, new patients.

    MEDPIPE_TEST_DATA=DATA python -m tests.bench.recommend_quality --out /tmp/quality --part eicu-1
    python -m tests.bench.recommend_quality --out /tmp/quality --report

Parts: eicu-1 ... eicu-5 (random holdouts; any number is another), eicu-time (time-ordered), cold-1 ... cold-5, films,
simulated. Each takes minutes and leaves one file in --out. The peers' settings are chosen on the tuning part, and the
test part is read once. The blend is the night's at its own settings; of films EASE's and the shares are chosen as the
peers' settings are. --part weights shows what its shares were chosen by: NDCG on the tuning parts of the first
holdouts, whose test parts it does not look at.
"""

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy import sparse

from medpipe.evaluate.lists import NDCG, best_left, measured
from medpipe.recommend.exact_als import ExactAlsSettings, exact_als
from medpipe.recommend.histories import Histories
from medpipe.recommend.linear import EaseSettings, ease, feature_ridge
from medpipe.recommend.parts import Model
from medpipe.recommend.served import blended
from medpipe.recommend.settings import BlendSettings
from medpipe.session import open_session
from tests.bench import recommend_data, recommend_report
from tests.bench.recommend_data import MIN_TREATMENTS, Data
from tests.bench.recommend_models import (
    MLLIB,
    OWN,
    WITH_FEATURES,
    WITHOUT_FEATURES,
    Grid,
    Taught,
    draws,
    mllib_scores,
    served,
    taught,
)

TOP_K = 10
HELD_OUT, TUNED_ON = 0.2, 0.15
NUM_DRAWS = 5
COLD = 0.14
# The holdouts whose tuning parts the weights were chosen by, and the shares of ALS and EASE that were compared.
WEIGHED_ON = (1, 2, 3, 4)
WEIGHTS = [(1.0, 0.0), (0.0, 1.0), (0.65, 0.35), (0.6, 0.3), (0.6, 0.35), (0.55, 0.35), (0.5, 0.4), (1 / 3, 1 / 3)]
KINDS = WITHOUT_FEATURES | WITH_FEATURES
# Measured on patients never seen: the baselines, and what can speak of them.
SPEAKING = (
    "popularity",
    "exact_als",
    "popularity_by_feature",
    "patient_cosine_features",
    "als_features",
    "ease_features",
    "feature_ridge",
)
# Models fitted once: by name and settings.
Kept = dict[str, Model]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part")
    parser.add_argument("--report", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.part == "weights":
        show_weights(recommend_data.eicu(Path(os.environ["MEDPIPE_TEST_DATA"]) / "ehr_eicu_demo"))
    elif args.part:
        figures, chosen = run(args.part, Path(os.environ["MEDPIPE_TEST_DATA"]), args.out)
        np.savez_compressed(args.out / f"{args.part}.npz", **figures)
        (args.out / f"{args.part}.json").write_text(json.dumps(chosen, indent=1, default=float))
        for name, found in figures.items():
            print(f"{name:<28} {' '.join(f'{value:.4f}' for value in np.nanmean(found, axis=0))}", flush=True)
    if args.report:
        recommend_report.show(args.out)


def run(part: str, folder: Path, out: Path) -> tuple[dict[str, np.ndarray], dict]:
    """(model -> (B, 4) NDCG, recall, average precision, Jaccard of the test patients, what was chosen)."""
    name, _, number = part.partition("-")
    if name == "eicu":
        data = recommend_data.eicu(folder / "ehr_eicu_demo")
        return compare(data, number == "time", 0 if number == "time" else int(number), is_default=True)
    if name == "cold":
        return compare_new(recommend_data.eicu(folder / "ehr_eicu_demo"), int(number))
    if name == "films":
        return compare(recommend_data.movielens(folder / "rec_movielens_small"), False, 1, is_default=False)
    return compare(recommend_data.hospital(out / "hospital", 10_000, seed=1), True, 1, is_default=True)


def show_weights(data: Data) -> None:
    """NDCG of the night's models at other weights, its other settings kept."""
    found: dict[tuple[float, float], list[float]] = {}
    for seed in WEIGHED_ON:
        _, _, learnt, tuned_on = parts_of(data, False, seed)
        first = taught(data.histories(learnt))
        als, closed = (
            exact_als(first.population, first.counted, ExactAlsSettings()),
            ease(first.counted, EaseSettings()),
        )
        models = (als, closed, feature_ridge(first.counted, BlendSettings().ridge_reg))
        for shares in WEIGHTS:
            blend = blended(models, BlendSettings(*shares))
            value = np.nanmean(ndcg(blend.scores(first.histories), first.histories.had, tuned_on))
            found.setdefault(shares, []).append(float(value))
    for (of_als, of_ease), values in found.items():
        rest = 1 - of_als - of_ease
        print(f"ALS {of_als:.2f}, EASE {of_ease:.2f}, ridge {rest:.2f}: {np.mean(values):.4f}", flush=True)


def compare(data: Data, is_time_ordered: bool, seed: int, is_default: bool) -> tuple[dict[str, np.ndarray], dict]:
    """Every model on one split of each patient's treatments.

    Args:
        is_default: the blend has the night's own settings; else they are drawn, as all others are.
    """
    known, later, learnt, tuned_on = parts_of(data, is_time_ordered, seed)
    first, final = taught(data.histories(learnt)), taught(data.histories(known))
    names = [name for name, kind in KINDS.items() if data.features.shape[1] or not kind.uses_features]
    kept: Kept = {}
    settings, quality = choose(first, first.histories, tuned_on, seed, names, kept)
    found = {name: KINDS[name].fit(final, **chosen) for name, (chosen, _) in settings.items()}
    if not is_default:
        settings["blend"] = best_of(OWN, lambda drawn: served(first, **drawn), first.histories, quality, seed)
    found["blend"] = served(final, **settings.get("blend", ({}, None))[0])
    scores = {name: model.scores(final.histories) for name, model in found.items()}
    chosen = {name: {"chosen": chosen, "tuning": value} for name, (chosen, value) in settings.items()}
    scores["mllib_als"], chosen["mllib_als"] = mllib(learnt, known, quality, seed)
    if data.truth is not None:
        scores["oracle"] = data.truth
    return {name: measured(best_left(found, known, TOP_K), later) for name, found in scores.items()}, chosen


def parts_of(data: Data, is_time_ordered: bool, seed: int) -> tuple[sparse.csr_matrix, ...]:
    """(known, held out; and of the known: learnt, tuned on)."""
    draw = np.random.default_rng([seed, 1])
    key = -data.day if is_time_ordered else draw.random(data.had.nnz)
    known, later = split(data.had, HELD_OUT, key)
    key = -data.day[np.isin(entries(data.had), entries(known))] if is_time_ordered else draw.random(known.nnz)
    return known, later, *split(known, TUNED_ON, key)


def compare_new(data: Data, seed: int) -> tuple[dict[str, np.ndarray], dict]:
    """Patients the models have never seen: with no treatment known, and with one.

    Settings come from warm patients whose histories are taken away; the test patients are others.
    """
    draw = np.random.default_rng([seed, 2])
    order = draw.permutation(np.flatnonzero(np.diff(data.had.indptr) >= MIN_TREATMENTS))
    num_cold = int(len(order) * COLD)
    cold, tuned_on = np.sort(order[:num_cold]), np.sort(order[num_cold : 2 * num_cold])
    everybody = np.arange(data.had.shape[0])
    warm = np.setdiff1d(everybody, cold)
    learnt = np.setdiff1d(warm, tuned_on)
    first, final = (taught(data.histories(data.had[rows], rows)) for rows in (learnt, warm))
    found, chosen = {}, {}
    kept: Kept = {}
    kept_final: Kept = {}
    for num_known in (0, 1):
        asked, wanted = revealed(data, tuned_on, num_known, draw)
        settings, _ = choose(first, asked, wanted, seed, SPEAKING, kept)
        models = {name: fitted(name, final, best, kept_final) for name, (best, _) in settings.items()}
        models["blend"] = served(final)
        asked, wanted = revealed(data, cold, num_known, draw)
        for name, model in models.items():
            lists = best_left(model.scores(asked), asked.had, TOP_K)
            found[f"{name} {num_known} known"] = measured(lists, wanted)
        chosen[num_known] = {name: {"chosen": c, "tuning": value} for name, (c, value) in settings.items()}
    return found, chosen


def fitted(name: str, given: Taught, settings: dict, kept: Kept) -> Model:
    """The model, fitted the first time it is asked for."""
    key = f"{name} {json.dumps(settings, default=float)}"
    if key not in kept:
        kept[key] = KINDS[name].fit(given, **settings)
    return kept[key]


def choose(
    first: Taught, asked: Histories, wanted: sparse.csr_matrix, seed: int, names: Sequence[str], kept: Kept
) -> tuple[dict, Callable]:
    """(model -> (settings, NDCG on the tuning part), that NDCG as a function of scores)."""

    def quality(scores: np.ndarray) -> float:
        return float(np.nanmean(ndcg(scores, asked.had, wanted)))

    found = {}
    for name in names:
        found[name] = best_of(
            KINDS[name].grid, lambda drawn, name=name: fitted(name, first, drawn, kept), asked, quality, seed
        )
        print(f"{name:<28} tuning {found[name][1]:.4f} {found[name][0]}", flush=True)
    return found, quality


def best_of(
    grid: Grid, fit: Callable[[dict], Model], asked: Histories, quality: Callable, seed: int
) -> tuple[dict, float]:
    """(the drawn settings that were best on the tuning part, their NDCG)."""
    tried = [(quality(fit(drawn).scores(asked)), drawn) for drawn in draws(grid, NUM_DRAWS, seed)]
    value, best = max(tried, key=lambda pair: pair[0])
    return best, value


def mllib(learnt: sparse.csr_matrix, known: sparse.csr_matrix, quality: Callable, seed: int) -> tuple[np.ndarray, dict]:
    spark = open_session("quality", {"spark.master": "local[1]", "spark.sql.shuffle.partitions": "1"})
    spark.sparkContext.setLogLevel("ERROR")
    tried = [(quality(mllib_scores(spark, learnt, c)), c) for c in draws(MLLIB, NUM_DRAWS, seed)]
    value, best = max(tried, key=lambda pair: pair[0])
    scores = mllib_scores(spark, known, best)
    spark.stop()
    return scores, {"chosen": best, "tuning": value}


def ndcg(scores: np.ndarray, had: sparse.csr_matrix, wanted: sparse.csr_matrix) -> np.ndarray:
    return measured(best_left(scores, had, TOP_K), wanted)[:, NDCG]


def entries(matrix: sparse.csr_matrix) -> np.ndarray:
    """int64: row and column of each stored entry as one number."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return rows * matrix.shape[1] + matrix.indices.astype(np.int64)


def split(had: sparse.csr_matrix, share: float, key: np.ndarray) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """(known, held out): of each patient of MIN_TREATMENTS or more the share with the smallest keys is held out."""
    rows = np.repeat(np.arange(had.shape[0]), np.diff(had.indptr))
    order = np.lexsort((key, rows))
    place = np.empty(had.nnz, int)
    place[order] = np.arange(had.nnz) - had.indptr[rows[order]]
    counts = np.diff(had.indptr)
    num_out = np.where(counts >= MIN_TREATMENTS, np.maximum(1, np.floor(share * counts)), 0)
    return tuple(_only(had, rows, chosen) for chosen in (place >= num_out[rows], place < num_out[rows]))


def revealed(data: Data, rows: np.ndarray, num_known: int, draw: np.random.Generator):
    """(histories that show so many treatments of each patient, the rest)."""
    had = data.had[rows]
    of = np.repeat(np.arange(len(rows)), np.diff(had.indptr))
    order = np.lexsort((draw.random(had.nnz), of))
    place = np.empty(had.nnz, int)
    place[order] = np.arange(had.nnz) - had.indptr[of[order]]
    shown, hidden = (_only(had, of, chosen) for chosen in (place < num_known, place >= num_known))
    return data.histories(shown, rows), hidden


def _only(had: sparse.csr_matrix, rows: np.ndarray, chosen: np.ndarray) -> sparse.csr_matrix:
    found = sparse.csr_matrix((had.data[chosen], (rows[chosen], had.indices[chosen])), shape=had.shape)
    found.sort_indices()
    return found


if __name__ == "__main__":
    main()
