import pytest

from medpipe.errors import DataError, UsageError
from medpipe.recommend.safety import digest, read, require_known

INTERACTIONS = "a,b,severity,source\nwarfarin,NSAID,major,house list\nwarfarin,aspirin,contraindicated,house list\n"
CLASSES = "treatment,class\nibuprofen,NSAID\nnaproxen,NSAID\n"


def folder(tmp_path, **files):
    for name, text in files.items():
        (tmp_path / f"{name}.csv").write_text(text)
    return str(tmp_path)


def test_tables_are_read_whatever_the_order_of_columns_and_the_blanks_around_fields(tmp_path):
    allergies = "\ufefftreatment,source,severity,allergy\namoxicillin , house list,major, penicillin\n"
    found = read(folder(tmp_path, interactions=INTERACTIONS, classes=CLASSES, allergies=allergies))
    assert [(table.file, table.reason, len(table.lines)) for table in found.tables] == [
        ("allergies.csv", "allergy", 1),
        ("interactions.csv", "interaction", 2),
    ]
    (line,) = found.tables[0].lines
    assert (line.cause, line.treatment, line.severity, line.source) == (
        "penicillin", "amoxicillin", "major", "house list"
    )  # fmt: skip
    assert found.classes == {"NSAID": ("ibuprofen", "naproxen")}
    assert sorted(digest(str(tmp_path))) == ["allergies.csv", "classes.csv", "interactions.csv"]
    assert read("").tables == () and digest("") == {}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("", "interactions.csv has no lines; take the file away"),
        ("x,y,major,\n", "an empty field in 1 lines \\(first: line 2\\)"),
        ("x,y,bad,s\n", "a severity not of .*contraindicated.* in 1 lines"),
        ("x,x,minor,s\n", "a treatment beside itself in 1 lines"),
        ("x,y,minor,s\nz,y,minor,s\ny,x,minor,s\n", "a pair that stands there twice in 2 lines \\(first: line 2, 4\\)"),
        ("x,y,minor,s\ny,x,major,s\n", "a pair that has two severities in 2 lines"),
    ],
)
def test_a_table_that_cannot_be_trusted_is_refused_by_its_line_numbers(tmp_path, lines, said):
    with pytest.raises(DataError, match=f"BAD_SAFETY_TABLE: .*{said}"):
        read(folder(tmp_path, interactions="a,b,severity,source\n" + lines))


def test_two_treatments_of_a_class_may_interact(tmp_path):
    text = "a,b,severity,source\nNSAID,NSAID,moderate,s\n"
    assert len(read(folder(tmp_path, interactions=text, classes=CLASSES)).tables[0].lines) == 1


def test_files_that_would_be_overlooked_are_refused(tmp_path):
    with pytest.raises(UsageError, match="NO_SAFETY_TABLES: safety.folder .* holds none of allergies.csv"):
        read(str(tmp_path))
    folder(tmp_path, interactions=INTERACTIONS, alergies="allergy,treatment,severity,source\nx,y,minor,s\n")
    with pytest.raises(DataError, match="BAD_SAFETY_TABLE: alergies.csv is none of"):
        read(str(tmp_path))
    (tmp_path / "alergies.csv").write_bytes(b"\xff\xfe")
    (tmp_path / "alergies.csv").rename(tmp_path / "allergies.csv")
    with pytest.raises(DataError, match="allergies.csv is not CSV in UTF-8"):
        read(str(tmp_path))
    (tmp_path / "allergies.csv").write_text("allergy,drug,severity,source\nx,y,minor,s\n")
    with pytest.raises(DataError, match="allergies.csv has no column treatment; expected allergy, treatment, sev"):
        read(str(tmp_path))


def test_unknown_codes_are_counted_and_refused_above_the_threshold(tmp_path):
    found = read(folder(tmp_path, interactions=INTERACTIONS, classes=CLASSES))
    # The class is known by one of its treatments.
    told = require_known(found, ["naproxen", "warfarin"], 0.34)
    assert [row[0:1] + row[2:] for row in told] == [("interactions.csv", 2, 3, 1)]
    with pytest.raises(DataError, match="UNKNOWN_SAFETY_CODES: interactions.csv: 1 of 3 names .*expected at most 33%"):
        require_known(found, ["naproxen", "warfarin"], 0.33)


def test_of_the_formulary_is_known_what_the_lake_has_or_what_has_a_class(tmp_path):
    text = "name,treatment\nNaprosyn,naproxen\nWarfarin,warfarin\nWarfarin,warfarin\nOdd,mystery\n"
    found = read(folder(tmp_path, formulary=text, classes=CLASSES))
    assert found.tables == () and found.formulary.treatments == ("mystery", "naproxen", "warfarin")
    told = require_known(found, ["warfarin"], 0.34)
    assert [row[0:1] + row[2:] for row in told] == [("formulary.csv", 4, 3, 1)]
    with pytest.raises(DataError, match="UNKNOWN_SAFETY_CODES: formulary.csv: 1 of 3 names"):
        require_known(found, ["warfarin"], 0.33)
