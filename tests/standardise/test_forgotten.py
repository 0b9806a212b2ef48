from pyspark.sql import functions as F

from medpipe.mappings import mapping
from medpipe.standardise.forgotten import of_patients

ROWS = [
    ("person", "ann", {"person_id": "1", "location_id": "7"}),
    ("person", "bob", {"person_id": "2", "location_id": "7"}),
    ("person", "cat", {"person_id": "3", "location_id": "8"}),
    ("location", "shared", {"location_id": "7", "zip": "02139"}),
    ("location", "cat's", {"location_id": "8"}),
    ("location", "nobody's", {"location_id": "9"}),
    ("measurement", "cat's", {"measurement_id": "5", "person_id": "3"}),
    ("measurement", "cat's of two", {"measurement_id": "6", "person_id": "3"}),
    ("measurement", "ann's of two", {"measurement_id": "6", "person_id": "1"}),
    ("drug_exposure", "ann's", {"drug_exposure_id": "5", "person_id": "1"}),
    ("deleted/measurement", "cat's", {"measurement_id": "05"}),
    ("deleted/measurement", "of two", {"measurement_id": "6"}),
    ("deleted/measurement", "unknown", {"measurement_id": "99"}),
    ("deleted/drug_exposure", "ann's", {"drug_exposure_id": "5"}),
    ("deleted/drug_exposure", "of cat, who is named", {"drug_exposure_id": "5", "person_id": "3"}),
]


def test_with_a_patients_records_go_deletions_and_addresses_that_no_other_patient_shares(spark):
    told = [(table, name, 1, fields, None) for table, name, fields in ROWS]
    columns = "source_table string, record_hash string, occurrence int, fields map<string,string>, corrupt string"
    patients = spark.createDataFrame([("p3",)], "patient_id string")
    gone = of_patients(
        spark.createDataFrame(told, columns),
        mapping.load("omop"),
        lambda person: F.concat(F.lit("p"), person),
        patients,
    )
    assert sorted((row.source_table, row.record_hash) for row in gone.collect()) == [
        ("deleted/drug_exposure", "of cat, who is named"),
        ("deleted/measurement", "cat's"),
        ("location", "cat's"),
        ("measurement", "cat's"),
        ("measurement", "cat's of two"),
        ("person", "cat"),
    ]
