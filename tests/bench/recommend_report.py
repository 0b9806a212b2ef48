"""The quality benchmark's table: each demand, what was found, and by how many standard errors."""

import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tests.bench.recommend_models import WITH_FEATURES, WITHOUT_FEATURES


def show(folder: Path) -> None:
    """Prints the figures of every part that stands in the folder."""
    found = {file.stem: dict(np.load(file)) for file in sorted(folder.glob("*.npz"))}
    holdouts = [figures for part, figures in found.items() if part.startswith("eicu-") and part != "eicu-time"]
    if holdouts:
        figures = over_splits(holdouts)
        table(f"eICU, {len(holdouts)} random holdouts", figures)
        peers(figures)
    if "eicu-time" in found:
        table("eICU, time-ordered", found["eicu-time"])
        peers(found["eicu-time"])
    if "films" in found:
        table("films", found["films"])
        ratio("best peer", found["films"], "blend", best(found["films"], (*WITHOUT_FEATURES, "mllib_als")), 0.99)
    if "simulated" in found:
        table("simulated hospital", found["simulated"])
        ratio("blend against the oracle", found["simulated"], "blend", "oracle", 0.90)
    new = [figures for part, figures in found.items() if part.startswith("cold-")]
    if new:
        # Other patients in each draw.
        figures = {name: np.concatenate([part[name] for part in new]) for name in new[0]}
        table(f"eICU, patients never seen, {len(new)} draws", figures)
        ratio("no history: blend against popularity", figures, "blend 0 known", "popularity 0 known", 1.15)
        ratio("no history: ALS prior against popularity", figures, "als_features 0 known", "popularity 0 known", 1.15)
        ratio("one known: blend against plain ALS", figures, "blend 1 known", "exact_als 1 known", 1.7)
        ratio("one known: ALS prior against plain ALS", figures, "als_features 1 known", "exact_als 1 known", 1.7)


def over_splits(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Each patient's mean over the splits: one patient's figures are not independent, so patients are the unit."""
    with warnings.catch_warnings():
        # A patient too short to be measured has a figure in no split.
        warnings.simplefilter("ignore", RuntimeWarning)
        return {name: np.nanmean([part[name] for part in parts], axis=0) for name in parts[0]}


def table(title: str, figures: dict[str, np.ndarray]) -> None:
    print(f"\n{title}\n{'':<30}{'NDCG@10':>9}{'recall':>9}{'MAP':>9}{'Jaccard':>9}")
    for name, values in sorted(figures.items(), key=lambda pair: -np.nanmean(pair[1][:, 0])):
        print(f"{name:<30}" + "".join(f"{value:9.4f}" for value in np.nanmean(values, axis=0)))


def peers(figures: dict[str, np.ndarray]) -> None:
    """The blend against the best single peer without and with features, Spark's ALS and the formula."""
    ratio("best peer without features", figures, "blend", best(figures, (*WITHOUT_FEATURES, "mllib_als")), 1.04)
    ratio("best peer with features", figures, "blend", best(figures, WITH_FEATURES), 1.02)
    ratio("Spark's ALS", figures, "blend", "mllib_als", 1.07)
    ratio("the cosine formula", figures, "blend", "cosine_formula", 1.10)


def best(figures: dict[str, np.ndarray], names: Iterable[str]) -> str:
    """The one of these models with the highest NDCG."""
    return max(names, key=lambda name: np.nanmean(figures[name][:, 0]))


def ratio(title: str, figures: dict[str, np.ndarray], model: str, other: str, demand: float) -> None:
    """One demand; the difference is taken patient by patient."""
    mine, theirs = figures[model][:, 0], figures[other][:, 0]
    difference = (mine - theirs)[np.isfinite(mine)]
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    found = np.nanmean(mine) / np.nanmean(theirs)
    verdict = "holds" if found >= demand else "MISSES"
    print(
        f"  {title} ({other}): {found:.3f}, demanded {demand:.2f}: {verdict}; "
        f"difference {difference.mean():+.4f} (se {error:.4f}, n {len(difference)})"
    )
