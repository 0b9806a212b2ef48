from medpipe.evaluate.generation import generation


def test_shares_of_valid_unique_and_novel_molecules():
    molecules = ["CCO", "CCO", None, "CN", "CCC", "c1ccccc1"]
    found = generation(molecules, trained_on=["OCC", "CCCC"])
    assert found == {"valid": 5 / 6, "unique": 4 / 5, "novel": 3 / 4}


def test_only_the_first_valid_ones_are_compared():
    assert generation(["C", None, "N", "C", "C"], ["O"], num_compared=2)["unique"] == 1.0
    assert generation(["C", None, "N", "C", "C"], ["O"], num_compared=3)["unique"] == 2 / 3


def test_of_nothing_valid_there_is_no_share():
    assert generation([None, None], ["C"]) == {"valid": 0.0, "unique": 0.0, "novel": 0.0}
