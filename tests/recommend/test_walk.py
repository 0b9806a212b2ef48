import numpy as np
import pytest
from scipy import sparse

from medpipe.errors import DataError
from medpipe.recommend.rules import Rules
from medpipe.recommend.topk import MASKED, STEPS, pack, scores_of, steps_of
from medpipe.recommend.walk import _best, walked

NUM_PATIENTS, NUM_TREATMENTS, NUM_CAUSES, TOP_K = 200, 60, 12, 5


def drawn(seed, share_blocked=0.05, share_together=0.1):
    """Scores with many ties, and rules, drawn."""
    draw = np.random.default_rng(seed)
    scores = draw.integers(-20, 20, (NUM_PATIENTS, NUM_TREATMENTS)) / 10
    had = sparse.csr_matrix(draw.random(scores.shape) < 0.2)
    causes = sparse.csr_matrix(draw.random((NUM_PATIENTS, NUM_CAUSES)) < 0.3)
    together = np.zeros((NUM_TREATMENTS + 1,) * 2, bool)
    together[:-1, :-1] = draw.random((NUM_TREATMENTS,) * 2) < share_together
    together |= together.T
    np.fill_diagonal(together, False)
    blocks = draw.random((NUM_CAUSES, NUM_TREATMENTS)) < share_blocked
    return scores, had, causes, Rules([("allergy", str(n)) for n in range(NUM_CAUSES)], blocks, together)


def one_by_one(scores, had, causes, rules):
    """The same, written as the words say it."""
    lists, blocked = [], []
    for patient in range(len(scores)):
        held = set(had[patient].indices)
        ranking = sorted(set(range(NUM_TREATMENTS)) - held, key=lambda item: (-scores[patient, item], item))
        taken = []
        for place, item in enumerate(ranking, 1):
            own = [number for number in causes[patient].indices if rules.blocks[number, item]]
            clashes = [] if own else [NUM_CAUSES + other for other in taken if rules.together[other, item]]
            if place <= TOP_K:
                blocked += [(patient, place, item, cause) for cause in own + clashes]
            if not own and not clashes and len(taken) < TOP_K:
                taken.append(item)
                lists.append((patient, len(taken), item, scores[patient, item]))
    return lists, sorted(blocked)


def told(found):
    columns = (found.rows, found.ranks, found.columns, scores_of(found.steps))
    return list(zip(*(column.tolist() for column in columns), strict=True)), [
        tuple(row) for row in found.blocked.tolist()
    ]


@pytest.mark.parametrize(("share_blocked", "share_together"), [(0.05, 0.1), (0.3, 0.0), (0.25, 0.5), (1.0, 0.0)])
def test_lists_and_what_is_blocked_are_those_of_a_walk_one_by_one(share_blocked, share_together):
    drawn_now = drawn(1, share_blocked, share_together)
    lists, blocked = one_by_one(*drawn_now)
    assert told(walked(*drawn_now, TOP_K)) == (lists, blocked)
    assert blocked


def test_nothing_blocked_stands_in_a_list_and_a_patient_with_nothing_left_has_none():
    scores, had, causes, rules = drawn(2, 0.5)
    had = sparse.lil_matrix(had)
    had[7] = True
    found = walked(scores, sparse.csr_matrix(had), causes, rules, TOP_K)
    forbidden = (causes.astype(int) @ rules.blocks.astype(int)) > 0
    assert not forbidden[found.rows, found.columns].any()
    assert not had.toarray()[found.rows, found.columns].any()
    for patient in range(NUM_PATIENTS):
        own = found.columns[found.rows == patient]
        assert not rules.together[np.ix_(own, own)].any()
    assert 7 not in found.rows and 7 not in found.blocked[:, 0]


def test_blocks_of_patients_do_not_change_a_list():
    scores, had, causes, rules = drawn(3)
    whole = told(walked(scores, had, causes, rules, TOP_K))
    lists, blocked = [], []
    for start in range(0, NUM_PATIENTS, 33):
        part = slice(start, start + 33)
        own = told(walked(scores[part], had[part], causes[part], rules, TOP_K))
        lists += [(row[0] + start, *row[1:]) for row in own[0]]
        blocked += [(row[0] + start, *row[1:]) for row in own[1]]
    assert (lists, blocked) == whole


@pytest.mark.parametrize("score", [np.nan, np.inf, -3000.0])
def test_a_score_that_cannot_be_ranked_stops_the_walk(score):
    scores, had, causes, rules = drawn(4)
    scores[3, 5] = score
    with pytest.raises(DataError, match="BAD_SCORE: the model gave a score that is not between -2146 and 2146"):
        walked(scores, had, causes, rules, TOP_K)


@pytest.mark.parametrize("num_treatments", [40, 1003])
def test_a_ranking_is_that_of_all_scores_also_where_they_differ_by_less_than_a_step(num_treatments):
    draw = np.random.default_rng(5)
    # Four to a step, so that a higher score may stand behind a lower one of the same step.
    scores = draw.integers(0, 300, (150, num_treatments)) / 4 / STEPS
    scores[::2] += draw.normal(size=(75, num_treatments))
    had = sparse.csr_matrix(draw.random(scores.shape) < 0.3)
    keys = pack(steps_of(scores), np.arange(num_treatments))
    keys[had.toarray()] = MASKED
    for width in (1, 15, num_treatments):
        assert (_best(scores, had, width) == np.sort(keys, axis=1)[:, ::-1][:, :width]).all()
