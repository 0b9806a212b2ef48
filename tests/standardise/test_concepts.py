import pytest

from medpipe.standardise import concepts


@pytest.fixture(scope="module")
def standard(table):
    return table("""
        source_concept string | standard_concept string | num_targets long
        LOINC:2345-7          | OMOP:3004501            | 1
        SNOMED:373066001      | OMOP:4188539            | 1
        ICD10CM:E11.40        | OMOP:201826             | 2
    """)


def test_events_get_the_standard_concept_and_keep_the_code_they_came_with(table, standard):
    rows = table("""
        silver string | concept string | answer string
        silver.event  | LOINC:2345-7   |
        silver.event  | LOINC:1-1      | SNOMED:373066001
        silver.event  | OMOP:3004501   | LA:2
        silver.event  |                |
        silver.concept| LOINC:2345-7   |
    """)
    found = concepts.in_standard(rows, standard).select("concept", "source_concept", "answer").collect()
    assert sorted((tuple(row) for row in found), key=str) == sorted(
        [
            ("OMOP:3004501", "LOINC:2345-7", None),
            ("LOINC:1-1", None, "OMOP:4188539"),
            ("OMOP:3004501", None, "LA:2"),
            (None, None, None),
            ("LOINC:2345-7", None, None),
        ],
        key=str,
    )


def test_codes_without_a_standard_concept_are_counted_by_vocabulary_and_those_with_several_too(table, standard):
    events = table("""
        source_table string | concept string | source_concept string
        observation         | OMOP:3004501   | LOINC:2345-7
        observation         | LOINC:1-1      |
        observation         | LOINC:2-2      |
        condition           | OMOP:201826    | ICD10CM:E11.40
        condition           | FHIR:0         |
        condition           | OMOP:201826    |
    """)
    assert sorted(tuple(row) for row in concepts.gaps(events, standard).collect()) == [
        ("condition", "SEVERAL_CONCEPTS", 1),
        ("condition", "UNKNOWN_CODE FHIR", 1),
        ("observation", "UNKNOWN_CODE LOINC", 2),
    ]
