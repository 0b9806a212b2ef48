import pytest

from medpipe.errors import UsageError
from medpipe.mappings import mapping

PLAIN = """
ids = "text"
[required]
visits = ["id"]
[[rows]]
table = "visits"
silver = "encounter"
person = "patient"
id = "id"
"""


def test_every_shipped_mapping_is_whole():
    names = mapping.shipped()
    assert names == ["eicu", "fhir", "mimic3", "omop", "physionet2012", "synthea", "uci_diabetes130"]
    for name in names:
        assert mapping.load(name).doc


def test_what_is_written_once_for_several_columns_stands_for_each():
    text = PLAIN + '[[rows]]\neach = ["a", "b"]\ntable = "visits"\npart = "{each}"\nsilver = "event"\nkind = "drug"\n'
    found = mapping.parsed("mine", text + 'when = "{each}"\nconcept = "X:{each}"\ncode = ["{each}", "c"]\n')
    assert [(m.source_table, m.when, m.concept, m.code) for m in found.meanings[1:3]] == [
        ("visits.a", "a", "X:a", ("a", "c")),
        ("visits.b", "b", "X:b", ("b", "c")),
    ]
    assert found.source_tables()["visits"] == ["visits", "visits.a", "visits.b"]


def test_deletions_name_a_row_by_its_id_a_patient_by_itself_and_a_row_without_an_id_by_all_of_it():
    needed = mapping.load("omop").required
    assert (needed["deleted/measurement"], needed["deleted/person"]) == (("measurement_id",), ("person_id",))
    assert "deleted/concept" not in needed
    synthea = mapping.load("synthea").required
    assert synthea["deleted/conditions"] == synthea["conditions"]


def test_with_a_deleted_row_go_its_parts_but_not_what_other_rows_tell_too():
    gone = [m.source_table for m in mapping.load("fhir").withdrawn_by("observation")]
    assert len(gone) == 31 and gone[0] == "observation" and "observation.component29" in gone
    assert [m.source_table for m in mapping.load("eicu").withdrawn_by("patient")] == ["patient"]


def test_a_table_without_rows_of_its_own_stands_beside_others_and_is_left_out_where_it_did_not_come():
    omop = mapping.load("omop")
    assert (omop.only_beside(), omop.takers(), "deleted/location" in omop.required) == ("location", ["person"], False)
    assert omop.columns("location") == {"location_id", "state", "zip"}
    assert not omop.columns("person") & {"state", "zip"}
    assert omop.for_tables(["person"]).takers() == [] and omop.for_tables(["person", "location"]) == omop
    physionet = mapping.load("physionet2012")
    assert (physionet.only_beside(), physionet.takers()) == ("", ["set-a"])
    assert "gender" not in physionet.columns("set-a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = ", "mine.toml is not TOML"),
        (PLAIN + "[extra]\n", "unknown key extra"),
        (PLAIN.replace("visits", "deleted"), "a table is called deleted"),
        (PLAIN.replace('person = "patient"', 'persn = "patient"'), "unknown key of a row persn"),
        (PLAIN.replace('silver = "encounter"', ""), "a row of visits lacks silver"),
        (PLAIN.replace('silver = "encounter"', 'silver = "visit"'), "visits is for silver.visit, expected one of"),
        (PLAIN.replace('silver = "encounter"', 'silver = "event"'), "visits has kind '', expected one of"),
        (PLAIN.replace('ids = "text"', 'ids = "number"'), "ids is 'number'"),
        (PLAIN.replace("visits = ", "stays = "), "stays needs both an entry in required and"),
        (PLAIN + '[[rows]]\ntable = "visits"\nsilver = "patient"\n', r"visits has parts \['', ''\]"),
        (PLAIN.replace('id = "id"', 'id = ["a", "b", "c"]'), "visits names more than two columns"),
    ],
)
def test_a_mapping_that_cannot_be_meant_is_refused_by_what_is_wrong(text, message):
    with pytest.raises(UsageError, match=f"BAD_MAPPING: .*{message}"):
        mapping.parsed("mine", text)


def test_a_source_that_leads_out_of_the_folder_is_unknown(tmp_path):
    (tmp_path / "secret.toml").write_text(PLAIN)
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="UNKNOWN_SOURCE: no mapping '../secret'"):
        mapping.load("../secret", str(tmp_path / "mine"))


def test_a_hospitals_own_mapping_is_found_in_its_folder_and_changes_the_digest(tmp_path):
    with pytest.raises(UsageError, match="UNKNOWN_SOURCE: no mapping 'mine'; expected one of eicu"):
        mapping.load("mine")
    assert mapping.digest(None) == mapping.digest(str(tmp_path)) == ""
    (tmp_path / "mine.toml").write_text(PLAIN)
    assert mapping.load("mine", str(tmp_path)).required["visits"] == ("id",)
    first = mapping.digest(str(tmp_path))
    (tmp_path / "mine.toml").write_text(PLAIN + "\n")
    assert first and mapping.digest(str(tmp_path)) != first
