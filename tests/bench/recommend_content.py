"""How well treatments that nobody has had are ranked by their content, on real ICU patients.

    MEDPIPE_TEST_DATA=DATA python -m tests.bench.recommend_content

Of each draw a fifth of the treatments is hidden from the fit, and a fifth of the patients: these are asked, by the rest
of what they had. Classes are the levels of a treatment's path and its last name, or a drug's therapeutic class (GTC).
"""

import argparse
import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from medpipe.evaluate.lists import NDCG, best_left, measured
from medpipe.recommend.catalogue import Catalogue
from medpipe.recommend.content import WithNew, alike, offer
from medpipe.recommend.exact_als import ExactAlsSettings
from medpipe.recommend.linear import EaseSettings, popularity
from medpipe.recommend.population import InMemory
from medpipe.recommend.served import fitted
from medpipe.recommend.settings import BlendSettings
from tests.bench import recommend_data
from tests.bench.recommend_data import Data

TOP_K = 10
SHARE = 0.2
# Of fewer patients a treatment is not hidden: nobody asked would have had it.
MIN_PATIENTS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(101, 121)))
    seeds = parser.parse_args().seeds
    folder = Path(os.environ["MEDPIPE_TEST_DATA"]) / "ehr_eicu_demo"
    data, names = recommend_data.eicu(folder), names_of(folder)
    classes = classes_of(folder, names)
    draws = [compare(data, names, classes, seed) for seed in seeds]
    print(f"{len(names)} treatments, {len(classes)} classes, {len(seeds)} draws: mean (standard error over draws)")
    for name in draws[0]:
        values = np.array([draw[name] for draw in draws])
        print(f"{name:<44}{values.mean():8.4f} ({values.std(ddof=1) / np.sqrt(len(values)):.4f})", flush=True)


def names_of(folder: Path) -> list[str]:
    """Of the columns of recommend_data.eicu."""
    return sorted(pd.read_csv(folder / "patient_treatment.csv.gz").treatment_code.unique())


def classes_of(folder: Path, names: list[str]) -> dict[str, tuple[str, ...]]:
    """class -> its treatments, sorted."""
    drugs = pd.read_csv(folder / "medication.csv.gz", usecols=["drughiclseqno", "gtc"]).dropna().astype(int)
    # One drug may stand under several; the commonest, of equals the smallest.
    of_drug = drugs[drugs.gtc > 0].groupby("drughiclseqno").gtc.agg(lambda codes: codes.mode().min())
    found = defaultdict(list)
    for name in names:
        kind, _, text = name.partition(":")
        path = text.split("|")
        if kind == "tx":
            for depth in range(2, len(path)):
                found["|".join(path[:depth])].append(name)
            found[f"last {path[-1]}"].append(name)
        elif int(text) in of_drug.index:
            found[f"gtc {of_drug[int(text)]}"].append(name)
    return {name: tuple(members) for name, members in found.items()}


def compare(data: Data, names: list[str], classes: dict[str, tuple[str, ...]], seed: int) -> dict[str, float]:
    """Figures of the patients who are asked."""
    draw = np.random.default_rng([seed, 3])
    num_patients = data.had.shape[0]
    asked = np.sort(draw.permutation(num_patients)[: int(num_patients * SHARE)])
    taught = np.setdiff1d(np.arange(num_patients), asked)
    able = np.flatnonzero(np.bincount(data.had.indices, minlength=len(names)) >= MIN_PATIENTS)
    hidden = draw.choice(able, int(len(able) * SHARE), replace=False)
    made = offer(Catalogue(names, []), {names[column] for column in hidden}, classes)
    column = {name: place for place, name in enumerate(names)}
    known, new = ([column[name] for name in part] for part in (made.known.treatments, made.new))

    served = fitted(
        InMemory(data.histories(data.had[taught][:, known], taught)),
        ExactAlsSettings(),
        EaseSettings(),
        BlendSettings(),
    )
    weights = alike(made, served.counted.treatments.diagonal())
    past, later = parted(data.had[asked][:, known], draw)
    theirs = data.had[asked][:, new]
    past = sparse.hstack([past, sparse.csr_matrix(theirs.shape, dtype=np.float32)], format="csr")
    histories = data.histories(past, asked)
    of_content = WithNew(served.model, weights).scores(histories)
    of_class = WithNew(popularity(served.counted), weights).scores(histories)
    found = ndcg_of_new(theirs, len(known), draw, of_content, of_class)

    wanted = sparse.hstack([later, theirs], format="csr")
    lists = best_left(of_content, past, TOP_K)
    without = best_left(of_content[:, : len(known)], past[:, : len(known)], TOP_K)
    is_new = lists >= len(known)
    hits = np.take_along_axis(wanted.toarray() > 0, lists, axis=1)
    return found | {
        "NDCG@10 of lists without new ones": np.nanmean(measured(without, wanted)[:, NDCG]),
        "NDCG@10 of lists with new ones": np.nanmean(measured(lists, wanted)[:, NDCG]),
        "share of places that hold a new one": is_new.mean(),
        "share of these that were given": hits[is_new].mean() if is_new.any() else 0.0,
        "share of the others that were given": hits[~is_new].mean(),
    }


def parted(had: sparse.csr_matrix, draw: np.random.Generator) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """(what is told, what is held out), a fifth of the entries."""
    entries = had.tocoo()
    is_told = draw.random(entries.nnz) >= SHARE
    return tuple(
        sparse.csr_matrix((entries.data[own], (entries.row[own], entries.col[own])), shape=had.shape)
        for own in (is_told, ~is_told)
    )


def ndcg_of_new(
    theirs: sparse.csr_matrix,
    num_known: int,
    draw: np.random.Generator,
    of_content: np.ndarray,
    of_class: np.ndarray,
) -> dict[str, float]:
    """Of the new treatments alone; scores (B, M + F)."""
    nothing = sparse.csr_matrix(theirs.shape)
    content, by_class, random = (
        np.nanmean(measured(best_left(scores, nothing, TOP_K), theirs)[:, NDCG])
        for scores in (of_content[:, num_known:], of_class[:, num_known:], draw.random(theirs.shape))
    )
    return {
        "NDCG@10 among new ones, by content": content,
        "  by popularity of their classes": by_class,
        "  at random": random,
        "  by content above popularity": content - by_class,
    }


if __name__ == "__main__":
    main()
