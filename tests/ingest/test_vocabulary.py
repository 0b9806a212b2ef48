import pytest

from medpipe.errors import UsageError
from medpipe.ingest import vocabulary

CONCEPT = "concept_id\tconcept_name\tvocabulary_id\tstandard_concept\tconcept_code\tinvalid_reason\n"
RELATION = "concept_id_1\tconcept_id_2\trelationship_id\tinvalid_reason\n"
CONCEPTS = [
    '3004501\t"Glucose in serum\tLOINC\tS\t2345-7\t',
    "201826\tType 2 diabetes mellitus\tSNOMED\tS\t44054006\t",
    "35207668\tDiabetes with neuropathy\tICD10CM\t\tE11.40\t",
    "376065\tNeuropathy due to diabetes\tSNOMED\tS\t230572002\t",
    "1\tOld code\tICD10CM\t\tE11.9\t",
    "2\tNever mapped\tICD10CM\t\tZ99\t",
]
RELATIONS = [
    "3004501\t3004501\tMaps to\t",
    "35207668\t376065\tMaps to\t",
    "35207668\t201826\tMaps to\t",
    "1\t201826\tMaps to\t",
    "1\t376065\tMaps to\tD",
    "2\t201826\tIs a\t",
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "CONCEPT.csv").write_text(CONCEPT + "\n".join(CONCEPTS) + "\n")
    (tmp_path / "CONCEPT_RELATIONSHIP.csv").write_text(RELATION + "\n".join(RELATIONS) + "\n")
    return tmp_path


def test_a_delivered_code_is_what_it_maps_to_or_itself_if_standard_and_of_several_targets_the_lowest(spark, folder):
    delivered = ["LOINC:2345-7", "SNOMED:44054006", "ICD10CM:E11.40", "ICD10CM:E11.9", "ICD10CM:Z99", "LOCAL:1"]
    codes = spark.createDataFrame([(code,) for code in delivered], "source_concept string")
    found = vocabulary.standard_concepts(spark, str(folder), codes).collect()
    assert {row.source_concept: (row.standard_concept, row.num_targets) for row in found} == {
        "LOINC:2345-7": ("OMOP:3004501", 1),
        "SNOMED:44054006": ("OMOP:201826", 1),
        "ICD10CM:E11.40": ("OMOP:201826", 2),
        "ICD10CM:E11.9": ("OMOP:201826", 1),
    }


def test_a_vocabulary_without_its_files_or_columns_is_refused(spark, folder):
    (folder / "CONCEPT.csv").write_text("concept_id,concept_name\n1,a\n")
    with pytest.raises(UsageError, match="BAD_VOCABULARY: .*CONCEPT.csv lacks the columns concept_code, standard_con"):
        vocabulary.standard_concepts(spark, str(folder), spark.createDataFrame([], "source_concept string"))
    (folder / "CONCEPT.csv").unlink()
    with pytest.raises(UsageError, match="NO_VOCABULARY: .* holds 0 files named CONCEPT.csv or .csv.gz, expected one"):
        vocabulary.digest(str(folder))


def test_another_content_is_another_digest(folder):
    assert vocabulary.digest(None) == ""
    first = vocabulary.digest(str(folder))
    assert first == vocabulary.digest(str(folder))
    with (folder / "CONCEPT.csv").open("a") as file:
        file.write("3\tNew\tLOINC\tS\t1-1\t\n")
    assert vocabulary.digest(str(folder)) != first
