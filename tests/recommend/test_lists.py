from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from medpipe.errors import DataError
from medpipe.recommend.catalogue import Catalogue
from medpipe.recommend.exact_als import ExactAlsSettings
from medpipe.recommend.histories import to_batch
from medpipe.recommend.linear import EaseSettings
from medpipe.recommend.lists import Lister, blocked, listed, safe_lists
from medpipe.recommend.population import InMemory
from medpipe.recommend.rules import pairs_of, rules_of, with_causes
from medpipe.recommend.safety import Line, Table, Tables
from medpipe.recommend.served import fitted
from medpipe.recommend.settings import BlendSettings, RecommendSettings
from tests.recommend.drawn import NUM_FEATURES, NUM_TREATMENTS, drawn
from tests.recommend.linear_model import Sums

TREATMENTS = ["aspirin", "ibuprofen", "insulin", "statin", "warfarin"]
FEATURES = ["old"]
# Alike for everybody: aspirin first, warfarin last.
MODEL = Sums(
    base=np.array([0.5, 0.4, 0.3, 0.2, 0.1]),
    of_treatments=np.arange(25).reshape(5, 5) / 1000,
    of_features=np.array([[0.0, -0.05, 0.02, 0.0, 0.0]]),
)
TABLES = Tables(
    (
        Table("allergies.csv", "allergy", "", (Line("rash", "NSAID", "major", "house list"),)),
        Table("contraindications.csv", "contraindication", "", (Line("ulcer", "aspirin", "moderate", "label"),)),
        Table(
            "interactions.csv",
            "interaction",
            "",
            (
                Line("warfarin", "NSAID", "major", "label"),
                Line("aspirin", "warfarin", "contraindicated", "label"),
                Line("NSAID", "NSAID", "minor", "atlas"),
                Line("mystery", "elsewhere", "minor", "atlas"),
            ),
        ),
    ),
    {"NSAID": ("aspirin", "ibuprofen")},
)
PAIRS = pairs_of(TABLES, TREATMENTS)
RULES = rules_of(PAIRS, TREATMENTS)
# Ten patients have insulin and statin, nine have any other two.
TOGETHER = np.full((6, 5), 9)
TOGETHER[2, 3] = TOGETHER[3, 2] = 10
LISTER = Lister(MODEL, RULES, Catalogue(TREATMENTS, FEATURES), TOGETHER, RecommendSettings(top_k=3, num_reasons=2))
EVENTS = """
    patient_id string | kind string | concept string | ended_at timestamp
    ann               | drug        | warfarin       |
    ann               | condition   | ulcer          | 2020-01-01 00:00:00
    bob               | drug        | warfarin       | 2026-01-01 00:00:00
    bob               | condition   | rash           |
    cat               | observation | rash           |
    cat               | observation | rash           |
    cat               | drug        | statin         |
    dan               | drug        | warfarin       | 2025-10-02 00:00:00
"""


def batch(*rows):
    """Rows of patient_id, treatments, features, causes."""
    ids, treatments, features, causes = zip(*rows, strict=True)
    arrays = [pa.array(ids)]
    arrays += [pa.array(treatments, pa.list_(pa.int32()))]
    arrays += [pa.array([[1.0] * len(row) for row in treatments], pa.list_(pa.float32()))]
    arrays += [pa.array(part, pa.list_(pa.int32())) for part in (features, causes)]
    return pa.RecordBatch.from_arrays(arrays, ["patient_id", "treatments", "weights", "features", "causes"])


def test_classes_are_put_out_both_ways_and_the_gravest_line_counts():
    assert PAIRS["interaction", "warfarin", "aspirin"] == ("contraindicated", "label")
    assert PAIRS["interaction", "ibuprofen", "warfarin"] == ("major", "label")
    assert PAIRS["interaction", "aspirin", "ibuprofen"] == ("minor", "atlas")
    assert ("interaction", "aspirin", "aspirin") not in PAIRS and "elsewhere" not in str(PAIRS)
    assert RULES.causes[:2] == [("allergy", "rash"), ("contraindication", "ulcer")]
    assert (RULES.together == RULES.together.T).all() and RULES.together.sum() == 6


def test_current_medication_conditions_and_allergies_of_the_record_are_causes(table, spark):
    rows = spark.createDataFrame([("ann",), ("bob",), ("cat",), ("dan",), ("eve",)], "patient_id string")
    found = with_causes(rows, table(EVENTS), RULES, datetime(2026, 1, 31, tzinfo=UTC), 90)
    told = {row.patient_id: [RULES.causes[number] for number in row.causes] for row in found.collect()}
    assert told == {
        # A condition that is over still contraindicates; an open medication is current.
        "ann": [("contraindication", "ulcer"), ("interaction", "warfarin")],
        # A rash is an allergy only where it stands as one.
        "bob": [("interaction", "warfarin")],
        "cat": [("allergy", "rash")],
        # Over for 121 days.
        "dan": [],
        "eve": [],
    }


def test_lists_hold_what_is_safe_and_beside_them_stands_what_was_blocked_and_why(spark):
    causes = {cause: number for number, cause in enumerate(RULES.causes)}
    rows = pa.Table.from_batches(
        [
            batch(
                ("ann", [4], [], [causes["contraindication", "ulcer"], causes["interaction", "warfarin"]]),
                ("cat", [], [0], [causes["allergy", "rash"]]),
                ("eve", [], [], []),
                ("fay", [0, 1, 2, 3, 4], [0], []),
            )
        ]
    )
    lists = safe_lists(spark.createDataFrame(rows), LISTER).persist()
    found = sorted(listed(lists).collect(), key=lambda row: (row.patient_id, row.rank))
    assert [(r.patient_id, r.rank, r.treatment, r.path) for r in found] == [
        ("ann", 1, "insulin", "history"),
        ("ann", 2, "statin", "history"),
        ("cat", 1, "insulin", "features"),
        ("cat", 2, "statin", "features"),
        ("cat", 3, "warfarin", "features"),
        ("eve", 1, "aspirin", "popularity"),
        ("eve", 2, "insulin", "popularity"),
        ("eve", 3, "statin", "popularity"),
    ]
    assert [tuple(part) for part in found[0].reasons] == [("treatment", "warfarin", 0.022, None)]
    assert [tuple(part) for part in found[2].reasons] == [("feature", "old", 0.02, None)]
    for row in found:
        assert row.score == pytest.approx(row.rest + sum(part.contribution for part in row.reasons), abs=1e-6)
    told = blocked(lists, PAIRS).orderBy("patient_id", "place", "reason").collect()
    columns = ("patient_id", "place", "treatment", "reason", "cause", "severity", "source")
    assert [tuple(row[name] for name in columns) for row in told] == [
        ("ann", 1, "aspirin", "contraindication", "ulcer", "moderate", "label"),
        ("ann", 1, "aspirin", "interaction", "warfarin", "contraindicated", "label"),
        ("ann", 2, "ibuprofen", "interaction", "warfarin", "major", "label"),
        ("cat", 1, "aspirin", "allergy", "rash", "major", "house list"),
        ("cat", 2, "ibuprofen", "allergy", "rash", "major", "house list"),
        ("eve", 2, "ibuprofen", "interaction_in_list", "aspirin", "minor", "atlas"),
    ]
    assert lists.count() == 4


def test_the_gravest_reasons_are_told_and_the_rest_is_one_number():
    (rows,) = LISTER(iter([batch(("gus", [0, 1, 2], [0], []))]))
    (first, second) = rows.column("listed")[0].as_py()
    # statin: 0.2 + 0.003 (aspirin) + 0.008 (ibuprofen) + 0.013 (insulin)
    assert (first["treatment"], first["score"], first["rest"]) == ("statin", 0.224, 0.203)
    # Fewer than ten patients are not told of.
    told = [("treatment", "insulin", 0.013, 10), ("treatment", "ibuprofen", 0.008, None)]
    assert [tuple(reason.values()) for reason in first["reasons"]] == told
    assert (second["rank"], second["treatment"]) == (2, "warfarin")


def test_a_model_whose_parts_do_not_add_up_stops_the_lists():
    class Wrong(Sums):
        def parts(self, histories, items):
            found = super().parts(histories, items)
            return replace(found, base=found.base + 1e-6)

    wrong = replace(LISTER, model=Wrong(MODEL.base, MODEL.of_treatments, MODEL.of_features))
    with pytest.raises(DataError, match="REASONS_DO_NOT_ADD_UP: parts of a score miss it by 1e-06"):
        list(wrong(iter([batch(("ann", [1], [], []))])))


def test_lists_of_the_nights_own_model_add_up_and_do_not_depend_on_the_batch():
    known = drawn(300, seed=3)
    served = fitted(InMemory(known), ExactAlsSettings(rank=16, iterations=2), EaseSettings(), BlendSettings())
    names = Catalogue([f"t{n:02}" for n in range(NUM_TREATMENTS)], [f"f{n}" for n in range(NUM_FEATURES)])
    lister = Lister(served.model, rules_of({}, names.treatments), names, served.together, RecommendSettings())
    rows = to_batch(known)
    nothing = pa.array([[]] * rows.num_rows, pa.list_(pa.int32()))
    rows = pa.RecordBatch.from_arrays([*rows.columns, nothing], names=[*rows.schema.names, "causes"])
    found = pa.Table.from_batches(list(lister(iter([rows])))).to_pylist()
    parts = [rows.slice(start, 37) for start in range(0, rows.num_rows, 37)]
    assert pa.Table.from_batches(list(lister(iter(parts)))).to_pylist() == found
    assert {row["path"] for row in found} == {"history", "features", "popularity"}
    had = known.had.toarray() > 0
    for patient, row in enumerate(found):
        listed_now = {place["treatment"] for place in row["listed"]}
        assert not listed_now & {names.treatments[n] for n in np.flatnonzero(had[patient])}
        for place in row["listed"]:
            told = sum(reason["contribution"] for reason in place["reasons"])
            assert place["score"] == pytest.approx(place["rest"] + told, abs=1e-6)
            assert all(reason["num_patients"] is None or reason["num_patients"] >= 10 for reason in place["reasons"])
