"""Is the simulated task as hard as it should be? Oracle, GRU and logistic regression; oracle, ALS and popularity.

    python -m tests.bench.simulator_task --patients 20000 --seeds 1 2 3

Works on the simulated patients in memory, without dirt and without Spark: minutes instead of a night.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from medpipe import recipes
from medpipe.evaluate.baselines import count_inputs, logistic
from medpipe.evaluate.classification import Bootstrap, differences
from medpipe.simulate.history import DRUG
from medpipe.simulate.hospital import Chunk, simulate_chunk
from medpipe.simulate.people import CHUNK_PATIENTS, day_number
from medpipe.simulate.risk import terms
from medpipe.simulate.settings import HospitalSettings
from medpipe.simulate.world import make_world
from medpipe.stream.batches import Sequences
from medpipe.stream.tokens import encode, vocabulary_of
from medpipe.train.examples import Examples
from medpipe.train.loop import TrainSettings, fit

RANK, ALPHA, REG, SWEEPS = 24, 1.0, 0.1, 8


def raw_sequences(settings: HospitalSettings, chunk: Chunk) -> tuple[Sequences, np.ndarray, np.ndarray, np.ndarray]:
    """Eligible patients of the fit cohort with concept codes as tokens and raw values; labels; true risks; terms."""
    people, index = chunk.people, day_number(settings.index_dates["fit"])
    day, person = chunk.visits.day[chunk.events.visit], chunk.visits.person[chunk.events.visit]
    has_prior = np.zeros(len(people.person_id), bool)
    has_prior[person[(chunk.events.concept == 316139) & (day < index)]] = True
    is_in = (
        (people.joined_day <= index - settings.observation_days) & (people.last_day(index + 1) >= index) & ~has_prior
    )
    censored = (people.left_day < index + settings.time_at_risk_days - 1) & (people.died_day > people.left_day)
    is_in &= ~censored | (chunk.outcome["fit"] == 1)
    rows = np.flatnonzero(is_in)
    seen = np.flatnonzero((day < index) & is_in[person])
    code = np.concatenate([chunk.events.concept[seen], np.where(people.is_female[rows], 1, 2)])
    who = np.concatenate([person[seen], rows])
    before = index - np.concatenate([day[seen], people.birth_day[rows]])
    value = np.concatenate([chunk.events.value[seen], np.full(len(rows), np.nan)])
    order = np.lexsort((code, -before, who))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(who, minlength=len(is_in))[rows])])
    ids = people.person_id[rows].astype(str).astype(object)
    sequences = Sequences(ids, offsets, code[order], before[order].astype(np.int32), value[order].astype(np.float32))
    parts = terms(people, chunk.visits, chunk.events, index)
    parts = np.column_stack([part[rows] for name, part in parts.items() if name != "intercept"])
    return sequences, chunk.outcome["fit"][rows].astype(np.float32), chunk.risk["fit"][rows], parts


def risk_task(settings: HospitalSettings, chunks: list[Chunk], args) -> str:
    parts = [raw_sequences(settings, chunk) for chunk in chunks]
    offsets = np.concatenate([[0], np.cumsum(np.concatenate([part[0].lengths for part in parts]))])
    ids, codes, days, values = (
        np.concatenate([getattr(part[0], name) for part in parts])
        for name in ("ids", "tokens", "days_before", "amounts")
    )
    labels, risks, summands = (np.concatenate([part[place] for part in parts]) for place in (1, 2, 3))
    splits = np.array(["train", "tune", "test"], object)[
        np.searchsorted([0.6, 0.8], np.random.default_rng(settings.seed).random(len(ids)))
    ]
    who = np.repeat(np.arange(len(ids)), np.diff(offsets))
    train = splits[who] == "train"
    known, token = np.unique(codes[train], return_inverse=True)
    held = train.nonzero()[0]
    has_value = ~np.isnan(values[held])
    num = np.maximum(np.bincount(token[has_value], minlength=len(known)), 1)
    mean = np.bincount(token[has_value], values[held][has_value], len(known)) / num
    square = np.bincount(token[has_value], values[held][has_value] ** 2, len(known)) / num
    std = np.sqrt(np.maximum(square - mean**2, 0))
    vocabulary = vocabulary_of(known, np.arange(len(known)) + 2, mean, np.where(std > 0, std, 1))
    tokens, z = encode(vocabulary, codes, values)
    examples = Examples(Sequences(ids, offsets, tokens, days, z), labels, splits)

    is_test = splits == "test"
    inputs = count_inputs(offsets, tokens, days, vocabulary.num_tokens)
    linear = logistic(inputs, labels, *(np.flatnonzero(splits == name) for name in ("train", "tune")))[is_test]
    began = time.time()
    recipe = recipes.RISK_GRU
    config = recipe.config(vocabulary, None)
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit(recipe, config, examples, TrainSettings(max_epochs=args.epochs, seed=settings.seed), Path(folder))
    model = recipe.build(config)
    model.load_state_dict(fitted.weights)
    gru = recipes.predict(recipe, config, model, examples.encoded.take(np.flatnonzero(is_test)), 256)
    truth, y = risks[is_test], labels[is_test]
    oracle, of_gru, of_linear = (roc_auc_score(y, scores) for scores in (truth, gru, linear))
    # What the GRU learned of each term of the truth, 1 = all of it.
    design = np.column_stack([np.ones(len(y)), summands[is_test]])
    learned = np.linalg.lstsq(design, np.log(gru / (1 - gru)), rcond=None)[0][1:]
    gap = differences(y, gru, linear, "logistic", Bootstrap())[0]
    return (
        f"seed {settings.seed}: n={len(y)} prevalence={labels.mean():.3f} "
        f"oracle_all={roc_auc_score(labels, risks):.3f} oracle={oracle:.3f} gru={of_gru:.3f} "
        f"share={(of_gru - 0.5) / (oracle - 0.5):.3f} logistic={of_linear:.3f} "
        f"gap={gap.value:.3f} [{gap.low:.3f}, {gap.high:.3f}] events={np.diff(offsets).mean():.0f} "
        f"learned={learned.round(2).tolist()} "
        f"stds={summands.std(axis=0).round(2).tolist()} epochs={len(fitted.history)} seconds={time.time() - began:.0f}"
    )


def recommendation_task(chunks: list[Chunk], drugs: np.ndarray) -> str:
    """Implicit ALS as Spark's: confidence 1 + alpha * rating, regularisation times a row's number of ratings."""
    given, held, truth = [], [], []
    for chunk in chunks:
        at = chunk.events.table == DRUG
        visit = chunk.events.visit[at]
        person, day = chunk.visits.person[visit], chunk.visits.day[visit]
        drug = np.searchsorted(np.sort(drugs), chunk.events.concept[at])
        num = np.zeros((CHUNK_PATIENTS, len(drugs)))
        np.add.at(num, (person, drug), 1)
        first = np.full(num.shape, 2**31)
        np.minimum.at(first, (person, drug), day)
        order = np.argsort(first, axis=1, kind="stable")
        has = (num > 0).sum(axis=1)
        rank = np.argsort(order, axis=1)
        late = (rank >= has[:, None] - np.floor(0.2 * has)[:, None]) & (num > 0)
        given.append(np.where((num > 0) & ~late, 1 + np.log(np.maximum(num, 1)), 0))
        held.append(late)
        truth.append(chunk.people.preference[:, np.argsort(drugs)])
    given, held, truth = (np.concatenate(part) for part in (given, held, truth))
    share = (given > 0).mean(axis=0)
    asked = held.any(axis=1)
    found = {
        "oracle": truth,
        "popularity": np.broadcast_to(share, truth.shape),
        "als": _als(given, np.random.default_rng(1)),
    }
    ndcg = {name: _ndcg(scores[asked], given[asked], held[asked]) for name, scores in found.items()}
    return (
        f"distinct={((given > 0) | held).sum(axis=1).mean():.1f} "
        + " ".join(f"{name}={value:.3f}" for name, value in ndcg.items())
        + f" als/popularity={ndcg['als'] / ndcg['popularity']:.2f} als/oracle={ndcg['als'] / ndcg['oracle']:.2f}"
    )


def _als(ratings: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    users, items = (np.abs(rng.normal(size=(num, RANK))) / np.sqrt(RANK) for num in ratings.shape)
    for _ in range(SWEEPS):
        users = _solve(items, ratings)
        items = _solve(users, ratings.T)
    return users @ items.T


def _solve(fixed: np.ndarray, ratings: np.ndarray) -> np.ndarray:
    """Source: Hu, Koren and Volinsky, ICDM 2008; regularisation as Spark's (Zhou et al., AAIM 2008)."""
    gram = fixed.T @ fixed
    solved = np.empty((len(ratings), RANK))
    for start in range(0, len(ratings), 2000):
        part = ratings[start : start + 2000]
        extra = (ALPHA * part) @ (fixed[:, :, None] * fixed[:, None, :]).reshape(len(fixed), -1)
        left = gram + extra.reshape(-1, RANK, RANK)
        left += (REG * (part > 0).sum(axis=1))[:, None, None] * np.eye(RANK) + 1e-9 * np.eye(RANK)
        right = np.where(part > 0, 1 + ALPHA * part, 0) @ fixed
        solved[start : start + 2000] = np.linalg.solve(left, right[:, :, None])[:, :, 0]
    return solved


def _ndcg(scores: np.ndarray, given: np.ndarray, held: np.ndarray) -> float:
    ranked = np.argsort(-np.where(given > 0, -np.inf, scores), axis=1)[:, :10]
    gain = 1 / np.log2(np.arange(10) + 2)
    hits = np.take_along_axis(held, ranked, axis=1) @ gain
    ideal = np.cumsum(gain)[np.minimum(held.sum(axis=1), 10) - 1]
    return float((hits / ideal).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--only", choices=["risk", "recommendation"])
    args = parser.parse_args()
    for seed in args.seeds:
        settings = HospitalSettings(args.patients, seed=seed)
        world = make_world(seed)
        chunks = [simulate_chunk(settings, world, number) for number in range(args.patients // CHUNK_PATIENTS)]
        if args.only != "recommendation":
            print(risk_task(settings, chunks, args), flush=True)
        if args.only != "risk":
            print(f"seed {seed}: {recommendation_task(chunks, world.drugs)}", flush=True)


if __name__ == "__main__":
    main()
