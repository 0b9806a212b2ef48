import numpy as np
import pytest
from scipy import sparse

from medpipe.recommend import content
from medpipe.recommend.blend import Blend
from medpipe.recommend.catalogue import Catalogue
from medpipe.recommend.content import OfKnown, WithNew
from medpipe.recommend.exact_als import ExactAlsSettings, exact_als
from medpipe.recommend.gram import gram
from medpipe.recommend.histories import Histories
from medpipe.recommend.linear import EaseSettings, ease, popularity
from medpipe.recommend.population import InMemory
from medpipe.recommend.served import Served
from tests.recommend.drawn import NUM_TREATMENTS, drawn

NAMES = Catalogue(["apixaban", "aspirin", "heparin", "warfarin"], ["old"])
CLASSES = {
    "anticoagulant": ("apixaban", "edoxaban", "heparin", "warfarin"),
    "DOAC": ("apixaban", "dabigatran", "edoxaban"),
    "statin": ("pitavastatin",),
}
OFFER = content.offer(NAMES, {"edoxaban", "heparin", "pitavastatin"}, CLASSES)


def test_a_rare_treatment_is_new_if_it_shares_a_class_with_one_that_is_not():
    # Heparin is rare and in the catalogue: it is moved. Nobody known is a statin.
    assert OFFER.new == {"edoxaban": ["DOAC", "anticoagulant"], "heparin": ["anticoagulant"]}
    assert OFFER.known.treatments == ["apixaban", "aspirin", "warfarin"]
    assert OFFER.all.treatments == ["apixaban", "aspirin", "warfarin", "edoxaban", "heparin"]
    # A rare one that stands alone stays what it was.
    alone = content.offer(NAMES, {"aspirin"}, CLASSES)
    assert alone.known == NAMES and alone.all == NAMES


def test_classes_speak_alike_and_their_members_by_the_root_of_their_patients():
    found = content.alike(OFFER, np.array([4, 100, 16])).toarray()
    # Of the anticoagulants apixaban weighs 2, warfarin 4; of the DOACs known apixaban stands alone.
    assert found == pytest.approx(np.array([[(1 + 1 / 3) / 2, 0, (2 / 3) / 2], [1 / 3, 0, 2 / 3]]))


def test_rare_is_of_the_formulary_what_fewer_patients_have_had(table):
    rated = table("""
        patient_id string | treatment string
        ann               | statin
        bob               | statin
        ann               | aspirin
        ann               | insulin
    """)
    assert content.rare_of(rated, ["aspirin", "edoxaban", "statin"], 2) == {"aspirin", "edoxaban"}
    assert content.rare_of(rated, [], 2) == set()


@pytest.fixture(scope="module")
def told():
    """(histories with two more treatments that a few had, the same without them, a model of the latter)."""
    known = drawn(200, seed=6)
    more = sparse.csr_matrix((np.ones(9, np.float32), (np.arange(9) * 7, [0, 1, 1] * 3)), shape=(200, 2))
    wide = Histories(known.patient_ids, sparse.hstack([known.had, more], format="csr"), known.features)
    counted = gram(InMemory(known))
    als = exact_als(InMemory(known), counted, ExactAlsSettings(rank=8, iterations=2))
    model = Blend((als, ease(counted, EaseSettings())), np.array([[0.5, 0.5], [0.3, 0.7]]))
    return wide, known, model


def test_scores_of_known_treatments_stay_and_a_new_one_has_the_mean_of_those_alike(told):
    wide, known, model = told
    rows = np.zeros((2, NUM_TREATMENTS))
    rows[0, [3, 5]], rows[1, [1, 2, 9]] = [0.25, 0.75], [0.5, 0.3, 0.2]
    found, alone = WithNew(model, sparse.csr_matrix(rows)).scores(wide), model.scores(known)
    assert (found[:, :NUM_TREATMENTS] == alone).all()
    assert found[:, NUM_TREATMENTS:] == pytest.approx(alone @ rows.T)
    # A mean stands above nobody's best.
    assert (found[:, NUM_TREATMENTS] <= alone[:, [3, 5]].max(axis=1) + 1e-12).all()


def test_parts_of_new_and_known_treatments_add_up_and_what_was_had_of_new_ones_carries_nothing(told):
    wide, _, model = told
    rows = np.zeros((2, NUM_TREATMENTS))
    rows[0, [3, 5]], rows[1, [1, 2, 9]] = [0.25, 0.75], [0.5, 0.3, 0.2]
    both = WithNew(model, sparse.csr_matrix(rows))
    items = np.argsort(-both.scores(wide), axis=1)[:, :4]
    items[::3, 1], items[::4, 1], items[::5, 3] = NUM_TREATMENTS, NUM_TREATMENTS + 1, NUM_TREATMENTS + 1
    parts = both.parts(wide, items)
    assert parts.totals(wide) == pytest.approx(np.take_along_axis(both.scores(wide), items, axis=1), abs=1e-9)
    assert (parts.of_treatments[wide.had.indices >= NUM_TREATMENTS] == 0).all()
    assert (parts.of_treatments[wide.had.indices < NUM_TREATMENTS] != 0).any()


def test_what_patients_had_of_new_treatments_teaches_the_models_nothing(told):
    wide, known, _ = told
    narrowed = OfKnown(InMemory(wide), NUM_TREATMENTS)
    assert narrowed.num_features == wide.features.shape[1]
    assert (gram(narrowed).counts == gram(InMemory(known)).counts).all()
    settings = ExactAlsSettings(rank=4, iterations=2)
    factors = (exact_als(p, gram(p), settings).of_treatments for p in (narrowed, InMemory(known)))
    assert (next(factors) == next(factors)).all()


def test_without_anything_new_the_served_model_stays_the_very_same():
    known = drawn(50, seed=2)
    served = Served(Blend((popularity(gram(InMemory(known))),), np.ones((2, 1))), gram(InMemory(known)))
    model, together = content.with_new(served, content.offer(NAMES, set(), CLASSES))
    assert model is served.model and (together == served.together).all()


def test_rows_of_new_treatments_say_by_which_classes_they_stand_there(table):
    listed = table("""
        patient_id string | treatment string | path string
        ann               | edoxaban         | history
        ann               | aspirin          | history
        bob               | heparin          | features
    """)
    found = content.marked(listed, OFFER).orderBy("patient_id", "treatment").collect()
    assert [(row.patient_id, row.treatment, row.path, row.classes) for row in found] == [
        ("ann", "aspirin", "history", []),
        ("ann", "edoxaban", "content", ["DOAC", "anticoagulant"]),
        ("bob", "heparin", "content", ["anticoagulant"]),
    ]
