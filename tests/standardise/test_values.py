import pytest
from pyspark.sql import functions as F

from medpipe.standardise import units, values


def read(spark, function, texts):
    rows = spark.createDataFrame(list(enumerate(texts)), "n int, text string")
    found = rows.select("n", function(F.col("text")).cast("string").alias("found")).orderBy("n").collect()
    return [row.found for row in found]


def test_ids_have_one_canonical_form(spark):
    texts = ["17", " 017 ", "17.0", "17.000", "0", "00", "17.5", "-17", "x17", "", None, "12345678901234567890"]
    expected = ["17", "17", "17", "17", "0", "0", None, None, None, None, None, "12345678901234567890"]
    assert read(spark, values.integer_id, texts) == expected


def test_only_dates_that_exist_and_are_written_the_one_way_are_read(spark):
    texts = [
        "2024-02-29",
        "2024-02-30",
        "01/02/2024",
        "2024-2-3",
        "0001-01-01",
        "1899-12-31",
        "2024-02-29T10:11",
        "",
        None,
    ]
    assert read(spark, values.day, texts) == ["2024-02-29", None, None, None, None, None, "2024-02-29", None, None]


def test_local_times_become_utc_also_on_the_nights_the_clock_changes(spark):
    def vienna(text):
        return values.instant(text, "Europe/Vienna")

    texts = [
        "2025-01-01",
        "2025-07-01 09:30:00",
        "2025-03-30 03:30:00",
        "2025-10-26 04:00",
        "1955-05-05",
        "2025-01-01Z",
    ]
    assert read(spark, vienna, texts) == [
        "2024-12-31 23:00:00",
        "2025-07-01 07:30:00",
        "2025-03-30 01:30:00",
        "2025-10-26 03:00:00",
        "1955-05-04 23:00:00",
        None,
    ]


def test_an_end_in_2099_or_later_is_an_open_end(spark):
    assert read(spark, lambda text: values.end_instant(text, "UTC"), ["2099-12-31", "9999-12-31", "2025-01-01"]) == [
        None,
        None,
        "2025-01-01 00:00:00",
    ]


@pytest.fixture(scope="module")
def table():
    glucose = units.Measurement("OMOP:1", "mg/dL", 10, 2000, {"mmol/L": (18.0, 0.0)})
    heat = units.Measurement("OMOP:2", "Cel", 25, 45, {"[degF]": (5 / 9, -160 / 9)})
    return units.MeasurementTable({"8840": "mg/dL", "8753": "mmol/L"}, (glucose, heat))


@pytest.mark.parametrize(
    ("concept", "value", "unit", "expected"),
    [
        ("OMOP:1", 5.0, "mmol/L", (90.0, "mg/dL", None)),
        ("OMOP:1", 90.0, "mg/dL", (90.0, "mg/dL", None)),
        ("OMOP:1", 90.0, None, (90.0, None, None)),
        ("OMOP:1", 5.0, "mg/dL", (5.0, "mg/dL", "OUT_OF_RANGE")),
        ("OMOP:1", 500.0, "mmol/L", (9000.0, "mg/dL", "OUT_OF_RANGE")),
        ("OMOP:1", 5.0, "%", (None, "mg/dL", "UNKNOWN_UNIT")),
        ("OMOP:2", 98.6, "[degF]", (pytest.approx(37.0), "Cel", None)),
        ("OMOP:3", 5.0, "%", (5.0, "%", None)),
        ("OMOP:1", None, "mg/dL", (None, "mg/dL", None)),
    ],
)
def test_a_value_is_converted_judged_or_left_alone(spark, table, concept, value, unit, expected):
    rows = spark.createDataFrame([(concept, value, unit)], "concept string, value double, unit string")
    found = rows.select(*units.in_kept_unit(table, F.col("concept"), F.col("value"), F.col("unit"))).first()
    assert tuple(found) == expected


def test_a_unit_is_known_by_its_concept_or_its_name_and_other_text_is_dropped(spark, table):
    rows = spark.createDataFrame(
        [("8840", "x"), ("0", " mmol/L "), (None, "see note of Mr X")], "id string, text string"
    )
    found = rows.select(units.ucum(table, F.col("id"), F.col("text")).alias("unit")).collect()
    assert [row.unit for row in found] == ["mg/dL", "mmol/L", None]


def test_the_shipped_table_is_whole():
    table = units.shipped()
    assert len({m.concept for m in table.measurements}) == len(table.measurements) > 10
    for measurement in table.measurements:
        assert measurement.low < measurement.high
        known = set(table.units.values())
        assert measurement.unit in known and set(measurement.conversions) <= known


def test_a_number_is_read_and_what_only_java_takes_for_one_is_not(spark):
    texts = ["1", " -2.5 ", ".5", "1e3", "nan", "-Infinity", "1e400", "5f", "0x1p3", "1,5", "", None]
    frame = spark.createDataFrame([(text,) for text in texts], "text string")
    found = [row[0] for row in frame.select(values.number(F.col("text")).cast("string")).collect()]
    assert found == ["1.0", "-2.5", "0.5", "1000.0", "NaN", "-Infinity", "Infinity", *[None] * 5]
    whole = [row[0] for row in frame.select(values.whole(F.col("text"))).collect()]
    assert whole == [1, *[None] * 11]
