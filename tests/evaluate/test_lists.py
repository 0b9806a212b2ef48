import numpy as np
import pytest
from scipy import sparse

from medpipe.evaluate.lists import NOTHING, best_left, measured


def marked(rows, width):
    return sparse.csr_matrix(np.array([[1.0 if column in row else 0.0 for column in range(width)] for row in rows]))


def test_lists_leave_out_what_a_patient_has_and_ties_fall_by_column():
    scores = np.array([[0.1, 0.9, 0.5, 0.5], [0.4, 0.3, 0.2, 0.1], [1.0, 1.0, 1.0, 1.0]])
    had = marked([[1], [], [0, 1, 3]], 4)
    assert best_left(scores, had, 2).tolist() == [[2, 3], [0, 1], [2, NOTHING]]


def test_figures_are_those_worked_out_by_hand():
    items = np.array([[3, 0, 2], [1, 0, 2], [2, NOTHING, NOTHING], [0, 1, 2]])
    later = marked([[0, 1], [1], [2, 3, 4, 5], []], 6)
    ndcg, recall, precision, jaccard = measured(items, later).T
    best_of_three = 1 + 1 / np.log2(3) + 1 / 2
    assert ndcg[:3] == pytest.approx([(1 / np.log2(3)) / (1 + 1 / np.log2(3)), 1, 1 / best_of_three])
    assert recall[:3] == pytest.approx([1 / 2, 1, 1 / 4])
    assert precision[:3] == pytest.approx([(1 / 2) / 2, 1, 1 / 3])
    assert jaccard[:3] == pytest.approx([1 / 4, 1 / 3, 1 / 4])
    assert np.isnan([ndcg[3], recall[3], precision[3], jaccard[3]]).all()
