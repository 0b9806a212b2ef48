import numpy as np

from medpipe.recommend.topk import MASKED, largest, pack, scores_of, steps_of, unpack


def test_equal_scores_fall_to_the_lower_column_also_below_zero():
    scores = np.array([[0.5, 0.5, -0.25, 0.5, -0.25]])
    steps, columns = unpack(largest(pack(steps_of(scores), np.arange(5)), 5))
    assert columns.tolist() == [[0, 1, 3, 2, 4]]
    assert scores_of(steps).tolist() == [[0.5, 0.5, 0.5, -0.25, -0.25]]


def test_differences_below_a_step_are_ties():
    scores = np.array([[0.2999999999, 0.3, 0.30000009]])
    _, columns = unpack(largest(pack(steps_of(scores), np.arange(3)), 1))
    assert columns.tolist() == [[0]]


def test_a_masked_key_is_the_last_of_all():
    keys = pack(steps_of(np.array([[-2000.0, -1999.0]])), np.arange(2))
    assert (keys > MASKED).all()


def test_fewer_columns_than_asked_for_give_fewer():
    assert largest(np.array([[3, 1, 2]]), 10).tolist() == [[3, 2, 1]]
