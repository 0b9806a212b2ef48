import numpy as np
import pytest
import torch

from medpipe.recommend.exact_als import ExactAlsSettings, exact_als
from medpipe.recommend.gram import gram
from medpipe.recommend.histories import HISTORIES, to_batch
from medpipe.recommend.population import InMemory, in_blocks
from medpipe.recommend.solve import ridges
from tests.recommend.drawn import NUM_FEATURES, NUM_TREATMENTS, drawn


def solved_one_by_one(model, histories):
    """The definition: each patient's normal equations, written out."""
    chosen, found = model.settings, []
    for had, features in zip(histories.had.toarray(), histories.features.toarray(), strict=True):
        expected = features @ model.of_features[:-1] + model.of_features[-1]
        confidence, y = 1 + chosen.alpha * had, model.of_treatments
        matrix = (y * confidence[:, None]).T @ y + (chosen.reg * (had > 0).sum() + chosen.kappa) * np.eye(y.shape[1])
        right = y.T @ (confidence * (had > 0)) + chosen.kappa * expected
        found.append(np.linalg.solve(matrix, right) if had.any() else expected)
    return np.array(found)


@pytest.mark.parametrize("rank", [4, 25])
def test_a_patient_folded_in_has_the_factors_of_a_full_solve(rank):
    population = InMemory(drawn(200, seed=3))
    model = exact_als(population, gram(population), ExactAlsSettings(rank=rank, iterations=2, kappa=3.0))
    new = drawn(60, seed=4)
    assert np.abs(model.factors(new) - solved_one_by_one(model, new)).max() < 1e-9


def test_the_treatments_too_are_solved_exactly_and_kappa_0_is_plain_als():
    histories = drawn(200, seed=3)
    settings = ExactAlsSettings(rank=5, iterations=1, kappa=0.0, reg=0.3, alpha=2.0)
    fitted = exact_als(InMemory(histories), gram(InMemory(histories)), settings)
    start = np.random.default_rng(settings.seed).standard_normal((NUM_TREATMENTS, 5)) * 0.1 / np.sqrt(5)
    had = histories.had.toarray()
    known = had[had.any(axis=1)]
    x = []
    for row in known:
        confidence = 1 + 2.0 * row
        matrix = (start * confidence[:, None]).T @ start + 0.3 * (row > 0).sum() * np.eye(5)
        x.append(np.linalg.solve(matrix, start.T @ (confidence * (row > 0))))
    x = np.array(x)
    for column, row in enumerate(known.T):
        confidence, count = 1 + 2.0 * row, max((row > 0).sum(), 1)
        matrix = (x * confidence[:, None]).T @ x + 0.3 * count * np.eye(5)
        wanted = np.linalg.solve(matrix, x.T @ (confidence * (row > 0)))
        assert fitted.of_treatments[column] == pytest.approx(wanted, rel=2e-3, abs=2e-4)


def test_each_way_to_solve_gives_the_same_answer():
    draw = np.random.default_rng(6)
    factors, right = draw.normal(size=(NUM_TREATMENTS, 7)), draw.normal(size=(90, 3, 7))
    confidences = drawn(90, seed=5).had.astype(np.float64)
    asked = ridges(factors)
    num_answered = 0
    for group in asked.groups(confidences, np.full(90, 0.5)):
        answers = group.solved(torch.from_numpy(right[group.rows]) @ asked.vectors) @ asked.vectors.T
        for row, found in zip(group.rows, answers, strict=True):
            confidence = confidences[row].toarray()[0]
            matrix = factors.T @ (factors * (1 + confidence)[:, None]) + 0.5 * np.eye(7)
            matrix = matrix if confidence.any() else np.eye(7)
            assert found.numpy() == pytest.approx(np.linalg.solve(matrix, right[row].T).T, abs=1e-9)
            num_answered += 1
    assert num_answered == 90


def test_patients_in_spark_teach_what_they_teach_in_memory_whatever_their_order(spark):
    histories = drawn(200, seed=3)
    table = to_batch(histories).to_pylist()
    settings = ExactAlsSettings(rank=5, iterations=1)

    def fitted(rows, num_partitions):
        frame = spark.createDataFrame(rows, HISTORIES).repartition(num_partitions)
        population = in_blocks(frame, NUM_TREATMENTS, NUM_FEATURES, num_blocks=2)
        counted = gram(population)
        return counted, exact_als(population, counted, settings)

    counted, model = fitted(table, 1)
    counted_again, again = fitted(table[::-1], 5)
    assert (model.of_treatments == again.of_treatments).all() and (model.of_features == again.of_features).all()
    assert (counted.counts == counted_again.counts).all()
    at_once = InMemory(histories)
    assert (counted.counts == gram(at_once).counts).all()
    wanted = exact_als(at_once, gram(at_once), settings).scores(histories)
    assert np.abs(model.scores(histories) - wanted).max() < 1e-3
