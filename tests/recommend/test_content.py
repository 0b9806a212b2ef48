import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

from medpipe.recommend import content
from medpipe.recommend.blend import Blend
from medpipe.recommend.catalogue import Catalogue
from medpipe.recommend.content import OfKnown, WithNew
from medpipe.recommend.exact_als import ExactAlsSettings, exact_als
from medpipe.recommend.gram import gram
from medpipe.recommend.histories import Histories, to_batch
from medpipe.recommend.linear import EaseSettings, ease, popularity
from medpipe.recommend.lists import Lister
from medpipe.recommend.population import InMemory
from medpipe.recommend.rules import rules_of
from medpipe.recommend.served import Served
from medpipe.recommend.settings import RecommendSettings
from tests.recommend.drawn import NUM_FEATURES, NUM_TREATMENTS, drawn

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
    together = both.scored(wide)
    assert (together.scores == both.scores(wide)).all()
    assert (together.parts(items).totals(wide) == parts.totals(wide)).all()
    assert (parts.of_treatments[wide.had.indices >= NUM_TREATMENTS] == 0).all()
    assert (parts.of_treatments[wide.had.indices < NUM_TREATMENTS] != 0).any()


def test_lists_hold_new_treatments_but_not_those_had_whatever_the_batch(told):
    wide, _, model = told
    names = Catalogue([f"t{n:02}" for n in range(NUM_TREATMENTS + 2)], [f"f{n}" for n in range(NUM_FEATURES)])
    # Like the two best-known ones, so that they stand in many lists.
    best = np.argsort(-np.bincount(wide.had.indices, minlength=NUM_TREATMENTS))[:2]
    rows = np.zeros((2, NUM_TREATMENTS))
    rows[:, best] = 0.5
    together = np.zeros((NUM_TREATMENTS + 2 + NUM_FEATURES, NUM_TREATMENTS + 2), np.int32)
    both = WithNew(model, sparse.csr_matrix(rows))
    lister = Lister(both, rules_of({}, names.treatments), names, together, RecommendSettings(top_k=5))
    asked = to_batch(wide)
    nothing = pa.array([[]] * asked.num_rows, pa.list_(pa.int32()))
    asked = pa.RecordBatch.from_arrays([*asked.columns, nothing], names=[*asked.schema.names, "causes"])
    found = pa.Table.from_batches(list(lister(iter([asked])))).to_pylist()
    parts = [asked.slice(start, 23) for start in range(0, asked.num_rows, 23)]
    assert pa.Table.from_batches(list(lister(iter(parts)))).to_pylist() == found
    listed = [{place["treatment"] for place in row["listed"]} for row in found]
    assert sum(bool(own & {"t30", "t31"}) for own in listed) > 50
    had = wide.had.toarray() > 0
    assert not any(own & {names.treatments[n] for n in np.flatnonzero(had[row])} for row, own in enumerate(listed))


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
        ("ann", "aspirin", "history", None),
        ("ann", "edoxaban", "content", ["DOAC", "anticoagulant"]),
        ("bob", "heparin", "content", ["anticoagulant"]),
    ]
