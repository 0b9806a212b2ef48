from datetime import date, datetime

import pytest
from pyspark.sql import functions as F

from medpipe.mappings import mapping
from medpipe.standardise import units
from medpipe.standardise.records import codes_of, person_ids, silver_rows

BRONZE = "source_table string, record_hash string, occurrence int, fields map<string,string>, "
BRONZE += "corrupt string, fault string"
HEAD = 'ids = "text"\n[required]\nvisits = []\n'
VISIT = '[[rows]]\ntable = "visits"\nsilver = "encounter"\nperson = "who"\nid = "id"\n'


def bronze(spark, table, *rows):
    """Rows as bronze.record has them, hashes by place: a dict of fields, or the text of a line that was not read."""
    told = [
        (table, f"h{n}", 1, row, None, None) if isinstance(row, dict) else (table, f"h{n}", 1, {}, row, "FIELD_COUNT")
        for n, row in enumerate(rows)
    ]
    return spark.createDataFrame(told, BRONZE)


def silver(spark, meant, table, *rows):
    """Rows of silver by source_table and hash, under a mapping's name or its text."""
    known = mapping.load(meant) if meant.isidentifier() else mapping.parsed("mine", meant)
    found = silver_rows(bronze(spark, table, *rows), known, "UTC", units.shipped())
    return {(row.source_table, row.record_hash): row for row in found.collect()}


def test_a_row_that_gives_two_rows_gives_the_second_where_its_column_has_a_value(spark):
    ann = {"id": "a", "birthdate": "1950-02-03", "gender": "F", "deathdate": "2020-01-01T10:00:00Z"}
    ann |= {"state": "Massachusetts", "zip": "02139"}
    bob = {"id": "b", "birthdate": "1950-02-03", "gender": "M"}
    found = silver(spark, "synthea", "patients", ann, bob, "broken")
    assert set(found) == {("patients", "h0"), ("patients.death", "h0"), ("patients", "h1"), ("patients", "h2")}
    patient, death = found["patients", "h0"], found["patients.death", "h0"]
    assert (patient.silver, patient.person_id, patient.sex) == ("silver.patient", "a", "female")
    assert (patient.birth_date, patient.state, patient.postcode) == (date(1950, 2, 3), "MA", "02139")
    assert (death.silver, death.kind, death.concept) == ("silver.event", "death", "OMOP:4306655")
    assert death.event_at == datetime(2020, 1, 1, 10) and death.person_id == "a"
    assert found["patients", "h2"].fault == "FIELD_COUNT"


def test_a_record_without_an_id_column_is_named_by_its_content_and_one_with_an_empty_id_by_nothing(spark):
    drug = {"patient": "a", "start": "2020-01-01T10:00:00Z", "code": "314076"}
    found = silver(spark, "synthea", "medications", drug)["medications", "h0"]
    assert (found.event_id, found.concept, found.record_id) == ("h0", "RxNorm:314076", None)
    visit = silver(spark, HEAD + VISIT, "visits", {"who": "a", "id": " "})["visits", "h0"]
    assert visit.encounter_id is None


def test_a_text_result_is_no_number_that_went_wrong(spark):
    result = {"patient": "a", "date": "2020-01-01T10:00:00Z", "code": "72166-2", "value": "never", "type": "text"}
    found = silver(spark, "synthea", "observations", result, result | {"type": "numeric"})
    assert [list(found["observations", h].faults) for h in ("h0", "h1")] == [[], ["BAD_NUMBER"]]


def test_minutes_are_counted_from_the_admission_that_stands_in_another_table(spark):
    stay = {"patientunitstayid": "7", "uniquepid": "u", "hospitaldischargeyear": "2014", "hospitaladmitoffset": "-60"}
    stay |= {"gender": "Female", "age": "> 89", "unitdischargeoffset": "120", "hospitaldischargestatus": "Alive"}
    order = {"medicationid": "1", "patientunitstayid": "7", "drugorderoffset": "-15", "drughiclseqno": "0"}
    known = mapping.load("eicu")
    rows = bronze(spark, "patient", stay).union(
        bronze(spark, "medication", order, order | {"drugorderoffset": "soon", "drugordercancelled": "Yes"})
    )
    found = {(r.source_table, r.record_hash): r for r in silver_rows(rows, known, "UTC", units.shipped()).collect()}
    assert found["patient", "h0"].started_at == datetime(2014, 1, 1, 1)
    assert found["patient", "h0"].ended_at == datetime(2014, 1, 1, 3)
    assert found["patient.person", "h0"].birth_date == date(1924, 1, 1)
    drug, withdrawn = found["medication", "h0"], found["medication", "h1"]
    assert (drug.person_id, drug.event_at, drug.concept) == ("u", datetime(2014, 1, 1, 0, 45), "HICL:0")
    assert (drug.is_deleted, withdrawn.is_deleted, withdrawn.event_at) == (False, True, None)
    assert [r.person_id for r in person_ids(rows, known).collect()] == ["u"]


def test_of_a_patient_told_by_several_rows_the_first_counts(spark):
    row = {"patient_nbr": "7", "gender": "Male", "diag_1": "250.01", "diag_2": "?", "insulin": "Up", "metformin": "No"}
    rows = [row | {"encounter_id": number, "age": age} for number, age in (("1", "[70-80)"), ("2", "[80-90)"))]
    found = silver(spark, "uci_diabetes130", "diabetic_data", *rows)
    persons = [r for r in found.values() if r.silver == "silver.patient"]
    assert [(r.person_id, r.birth_date, r.sex) for r in persons] == [("7", date(1929, 1, 1), "male")]
    events = {r.concept for r in found.values() if r.silver == "silver.event" and r.record_hash == "h0"}
    assert events == {"ICD9CM:250.01", "UCI:insulin"}


def test_references_lead_to_ids_and_a_search_leads_to_nobody(spark):
    texts = ["Patient/p1", "urn:uuid:p1", "p1", "https://a.b/Patient/p1", "Patient?identifier=x|1", "Patient/", "#p1"]
    rows = [{"id": str(n), "subject.reference": text} for n, text in enumerate(texts)]
    found = silver(spark, "fhir", "condition", *rows)
    assert [found["condition", f"h{n}"].person_id for n in range(7)] == ["p1"] * 4 + [None] * 3


def test_a_deletion_names_a_record_by_its_reference_and_one_by_a_search_names_none(spark):
    texts = ["Observation/o1", "https://a.b/Observation/o1", "Observation?code=x"]
    found = silver(spark, "fhir", "deleted/observation", *[{"id": text} for text in texts], "broken")
    rows = [found["deleted/observation", f"h{n}"] for n in range(4)]
    assert [row.event_id for row in rows[:3]] == ["o1", "o1", None]
    assert [(row.silver, list(row.faults)) for row in rows[:3]] == [("deletion", [])] * 2 + [("deletion", ["BAD_ID"])]
    assert rows[3].fault == "FIELD_COUNT"


def test_a_key_in_another_case_leaves_a_record_without_its_name(spark):
    row = {"Id": "c1", "subject.reference": "Patient/p1", "onsetDateTime": "2020-01-01"}
    assert silver(spark, "fhir", "condition", row)["condition", "h0"].event_id is None


def test_a_code_with_a_slash_is_no_reference(spark):
    code = {"code.coding.0.system": "http://loinc.org", "code.coding.0.code": "C34/1"}
    assert silver(spark, "fhir", "condition", {"id": "1"} | code)["condition", "h0"].concept == "LOINC:C34/1"


def test_parts_of_dates_and_offsets_of_hours_are_read_where_the_format_has_them(spark):
    texts = ["2015", "2015-02", "2015-02-19", "2015-02-19T10:10:38+10:00", "2015-13"]
    rows = [{"id": str(n), "onsetDateTime": text} for n, text in enumerate(texts)]
    found = silver(spark, "fhir", "condition", *rows)
    expected = [(2015, 1, 1), (2015, 2, 1), (2015, 2, 19), (2015, 2, 19, 0, 10, 38)]
    assert [found["condition", f"h{n}"].event_at for n in range(5)] == [datetime(*e) for e in expected] + [None]


def test_components_with_numbers_or_codes_are_measurements_of_their_own(spark):
    told = {"id": "o", "code.coding.0.system": "http://loinc.org", "code.coding.0.code": "85354-9"}
    for number, code in enumerate(("8462-4", "63586-2", "1-1")):
        place = f"component.{number}.code.coding.0."
        told |= {place + "system": "http://loinc.org", place + "code": code}
    told |= {"component.0.valueQuantity.value": "80", "component.0.valueQuantity.code": "mm[Hg]"}
    answer = "component.1.valueCodeableConcept.coding.0."
    told |= {answer + "system": "http://loinc.org", answer + "code": "LA30122-8", "component.2.valueString": "none"}
    found = silver(spark, "fhir", "observation", told)
    assert {(table, row.concept, row.value, row.unit, row.answer) for (table, _), row in found.items()} == {
        ("observation", "LOINC:85354-9", None, None, None),
        ("observation.component0", "LOINC:8462-4", 80.0, "mm[Hg]", None),
        ("observation.component1", "LOINC:63586-2", None, None, "LOINC:LA30122-8"),
    }


def test_a_birth_moved_back_to_hide_an_age_is_moved_to_ninety_years(spark):
    rows = [{"subject_id": "1", "gender": "F", "dob": text} for text in ("1892-02-29 00:00:00", "2075-01-02 00:00:00")]
    found = silver(spark, "mimic3", "patients", *rows)
    assert [found["patients", h].birth_date for h in ("h0", "h1")] == [date(2102, 2, 28), date(2075, 1, 2)]


@pytest.mark.parametrize("text", ["99999999999999999999", "-2147483648", "9223372036854775807", "1.5"])
def test_minutes_beyond_all_bounds_are_a_bad_date_not_a_failure(spark, text):
    meant = HEAD + VISIT + 'start = "at"\nend = "at"\noffset_from = "2012-01-01"\n'
    found = silver(spark, meant, "visits", {"who": "a", "id": "1", "at": text})["visits", "h0"]
    assert (found.started_at, list(found.faults)) == (None, ["BAD_DATE"])


def test_hours_and_minutes_are_an_offset_too(spark):
    meant = HEAD + VISIT + 'start = "at"\noffset_from = "2012-01-01"\n'
    found = silver(spark, meant, "visits", {"who": "a", "id": "1", "at": "47:37"})["visits", "h0"]
    assert found.started_at == datetime(2012, 1, 2, 23, 37)


def test_a_tables_row_that_no_mapping_knows_gives_nothing(spark):
    rows = bronze(spark, "claim", {"id": "1"})
    assert silver_rows(rows, mapping.load("fhir"), "UTC", units.shipped()).select(F.count("*")).first()[0] == 0


def test_a_result_that_is_a_code_or_yes_or_no_is_the_answer_and_one_of_an_unknown_system_is_none(spark):
    code = "valueCodeableConcept.coding.0."
    told = {"code.coding.0.system": "http://loinc.org", "code.coding.0.code": "72166-2"}
    answers = [{code + "system": "http://snomed.info/sct", code + "code": "266919005"}, {"valueBoolean": "true"}]
    answers += [{code + "system": "urn:ours", code + "code": "x"}, {"valueString": "never smoked"}]
    found = silver(spark, "fhir", "observation", *[told | answer for answer in answers])
    expected = ["SNOMED:266919005", "SNOMED:373066001", None, None]
    assert [found["observation", f"h{n}"].answer for n in range(4)] == expected
    rows = [{"observation_concept_id": "1", "value_as_concept_id": text} for text in ("4188539", "0")]
    found = silver(spark, "omop", "observation", *rows)
    assert [found["observation", f"h{n}"].answer for n in (0, 1)] == ["OMOP:4188539", None]


def test_every_code_that_an_event_names_is_looked_for_once(spark):
    told = {"observation_concept_id": "1", "value_as_concept_id": "2"}
    rows = bronze(spark, "observation", told, told | {"observation_id": "5"}).union(
        bronze(spark, "concept", {"concept_id": "3", "concept_name": "a"})
    )
    assert sorted(row[0] for row in codes_of(rows, mapping.load("omop")).collect()) == ["OMOP:1", "OMOP:2"]


def test_a_row_with_bytes_that_were_no_text_says_so(spark):
    row = {"person_id": "1", "gender_concept_id": "8507", "year_of_birth": "1960", "person_source_value": "M\ufffdller"}
    assert list(silver(spark, "omop", "person", row)["person", "h0"].faults) == ["ENCODING"]


def test_a_person_has_the_state_and_zip_code_of_the_location_it_names(spark):
    ann = {"person_id": "1", "gender_concept_id": "8532", "year_of_birth": "1950", "location_id": "7"}
    rows = bronze(spark, "person", ann, ann | {"person_id": "2", "location_id": "9"}).union(
        bronze(spark, "location", {"location_id": "7", "state": "Kansas", "zip": "67216-1830", "city": "Wichita"})
    )
    found = {
        (row.source_table, row.record_hash): row
        for row in silver_rows(rows, mapping.load("omop"), "UTC", units.shipped()).collect()
    }
    told = [(found["person", hash_].state, found["person", hash_].postcode) for hash_ in ("h0", "h1")]
    assert told == [("KS", "67216"), (None, None)]
    location = found["location", "h0"]
    assert (location.silver, location.person_id, list(location.faults)) == ("beside", None, [])


def test_the_sex_of_a_stay_stands_in_a_row_of_its_own(spark):
    told = [("1.txt", "Age", "54"), ("1.txt", "Gender", "0"), ("2.txt", "Age", "60"), ("2.txt", "Gender", "-1")]
    told += [("3.txt", "Age", "70"), ("4.txt", "Gender", "1"), ("4.txt", "Age", "71")]
    rows = [{"_file": file, "time": "00:00", "parameter": name, "value": value} for file, name, value in told]
    found = silver(spark, "physionet2012", "set-a", *rows)
    sexes = {row.person_id: row.sex for row in found.values() if row.silver == "silver.patient"}
    assert sexes == {"1.txt": "female", "2.txt": "unknown", "3.txt": "unknown", "4.txt": "male"}
