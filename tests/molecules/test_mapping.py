import pytest

from medpipe.errors import UsageError
from medpipe.molecules import mapping
from medpipe.molecules.mapping import FileMapping, Measured, mapping_of, parse


def test_a_mapping_is_read_with_its_defaults():
    text = """
    ["a/*.csv"]
    id = "Name"
    measured."IC50" = { assay = "EGFR IC50", unit = "nM", relation_column = "Rel" }
    measured."Active" = { assay = "EGFR active", kind = "class" }
    """
    assert parse(text) == (
        FileMapping(
            "a/*.csv",
            None,
            "name",
            (
                Measured("ic50", "EGFR IC50", "regression", "nM", "=", "rel", 0.0),
                Measured("active", "EGFR active", "class"),
            ),
        ),
    )
    assert parse("") == ()
    assert parse(text)[0].columns == {"name", "ic50", "rel", "active"}


@pytest.mark.parametrize("name", mapping.SHIPPED)
def test_the_shipped_mappings_can_be_read(name):
    assert all(file.measured for file in parse(mapping.text_of(name, None)))


ASSAY = '["a.csv"]\nmeasured.x = '


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("smiles = ", "not TOML"),
        ('smiles = "x"', "'smiles' stands outside the table of a file"),
        ('["a.csv"]\nsmile = "x"', "smile not understood; expected smiles"),
        (ASSAY + "1", "expected a table with an assay"),
        (ASSAY + '{ kind = "class" }', "expected a table with an assay"),
        (ASSAY + '{ assay = "A", units = "nM" }', "units not understood"),
        (ASSAY + '{ assay = "A", tolerance = "1" }', "tolerance not understood"),
        (ASSAY + '{ assay = "A", tolerance = -1 }', "tolerance is a number from 0 on"),
        (ASSAY + '{ assay = "A", kind = "number" }', "kind is one of"),
        (ASSAY + '{ assay = "A", relation = "about" }', "relation one of"),
        (ASSAY + '{ assay = "A", kind = "class", relation_column = "r" }', "a class has no relation"),
        (ASSAY + '{ assay = "A" }\nmeasured.y = { assay = "A" }', "an assay has one column in a file"),
        (ASSAY + '{ assay = "A" }\n["b.csv"]\nmeasured.x = { assay = "A", unit = "nM" }', "'A' is given twice"),
    ],
)
def test_a_wrong_mapping_is_refused_with_what_is_wrong(text, told):
    with pytest.raises(UsageError, match="BAD_MAPPING") as failure:
        parse(text)
    assert told in str(failure.value)


def test_a_file_has_one_mapping():
    mappings = parse('["a*.csv"]\n["b.csv"]\n["*b.csv"]\n')
    assert mapping_of("a1.csv", mappings) == mappings[0] and mapping_of("A1.csv", mappings) is None
    with pytest.raises(UsageError, match=r"BAD_MAPPING: b.csv matches 'b.csv' and '\*b.csv'"):
        mapping_of("b.csv", mappings)


def test_a_mapping_that_is_no_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match="NO_MAPPING: --mapping elsewhere.toml is no file"):
        mapping.text_of("elsewhere.toml", None)
    assert mapping.text_of("delivery", None) == ""
