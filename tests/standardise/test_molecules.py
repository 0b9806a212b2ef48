import pytest

from medpipe.standardise.molecules import assay_results, judged

ROW = (
    "source_table string, record_hash string, occurrence int, molecule_id string, smiles string, was_salt boolean, "
    "was_charged boolean, faults array<string>"
)


def test_of_rows_with_one_structure_the_plainest_is_accepted_and_the_others_are_duplicates(spark):
    rows = [
        ("a", "1", 1, "M", "CCO", True, False, []),
        ("a", "2", 1, "M", "CCO", False, False, []),
        ("a", "2", 2, "M", "CCO", False, False, []),
        ("b", "3", 1, "M", "CCO", False, False, []),
        ("a", "4", 1, None, None, None, None, ["BAD_SMILES"]),
        ("a", "4", 2, None, None, None, None, ["BAD_SMILES"]),
        ("a", "5", 1, "M", "CCO", False, False, ["BAD_NUMBER"]),
        ("a", "6", 1, "N", "C", True, True, []),
    ]
    found = {
        (r.record_hash, r.occurrence): (r.fate, r.is_read) for r in judged(spark.createDataFrame(rows, ROW)).collect()
    }
    assert found == {
        ("1", 1): ("duplicate", True),
        ("2", 1): ("accepted", True),
        ("2", 2): ("duplicate", False),
        ("3", 1): ("duplicate", True),
        ("4", 1): ("quarantined", False),
        ("4", 2): ("duplicate", False),
        ("5", 1): ("quarantined", False),
        ("6", 1): ("accepted", True),
    }


RESULT = (
    "molecule_id string, source_table string, is_read boolean, "
    "results array<struct<assay:string,kind:string,unit:string,tolerance:double,value:double,relation:string>>"
)


@pytest.fixture
def merged(spark):
    """value, relation, num_measurements, min, max, is_conflicting of the measurements of a molecule in one assay."""

    def merge(*measurements, kind="regression", tolerance=0.0):
        rows = [("M", "a", True, [("A", kind, "nM", tolerance, value, relation)]) for value, relation in measurements]
        rows.append(("M", "a", False, [("A", kind, "nM", tolerance, 1e9, "=")]))
        (row,) = assay_results(spark.createDataFrame(rows, RESULT)).collect()
        assert (row.molecule_id, row.assay, row.kind, row.unit, row.source_table) == ("M", "A", kind, "nM", "a")
        return row.value, row.relation, row.num_measurements, row.min_value, row.max_value, row.is_conflicting

    return merge


def test_the_median_is_kept_and_disagreement_is_told(merged):
    assert merged((5.0, "=")) == (5.0, "=", 1, 5.0, 5.0, False)
    assert merged((5.0, "="), (5.0, "=")) == (5.0, "=", 2, 5.0, 5.0, False)
    assert merged((5.0, "="), (5.5, "="), (9.0, "=")) == (5.5, "=", 3, 5.0, 9.0, True)
    assert merged((5.0, "="), (6.0, "="), tolerance=1.0) == (5.5, "=", 2, 5.0, 6.0, False)
    assert merged((5.0, "="), (6.25, "="), tolerance=1.0) == (5.625, "=", 2, 5.0, 6.25, True)


def test_bounds_to_one_side_agree_and_the_tightest_is_kept(merged):
    assert merged((5.0, ">"), (10.0, ">")) == (10.0, ">", 2, 5.0, 10.0, False)
    assert merged((5.0, "<="), (10.0, "<=")) == (5.0, "<=", 2, 5.0, 10.0, False)


def test_an_exact_value_beside_a_bound_is_kept_and_told(merged):
    assert merged((5.0, "="), (10.0, ">")) == (5.0, "=", 2, 5.0, 10.0, True)
    assert merged((5.0, "<"), (10.0, ">")) == (None, None, 2, 5.0, 10.0, True)
    assert merged((5.0, "~"), (7.0, "~")) == (6.0, "~", 2, 5.0, 7.0, True)


def test_a_class_is_what_most_say(merged):
    assert merged((1.0, "="), (1.0, "="), kind="class") == (1.0, "=", 2, 1.0, 1.0, False)
    assert merged((1.0, "="), (1.0, "="), (0.0, "="), kind="class") == (1.0, "=", 3, 0.0, 1.0, True)
    assert merged((1.0, "="), (0.0, "="), kind="class") == (None, "=", 2, 0.0, 1.0, True)
