"""bronze.record of OMOP CDM 5.3 or 5.4 -> typed rows for the silver tables, each with what is wrong with it.

One pass reads every table: a table of spellings says where each has its dates, ids and concept. Ids are still as
delivered: medpipe.privacy replaces them after the judgement.
"""

from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from medpipe.standardise import units, values

NAME = ("source_table", "record_hash", "occurrence")
SEX = {"8532": "female", "8507": "male"}
ENCOUNTER_KIND = {"9201": "inpatient", "262": "inpatient", "9203": "emergency", "9202": "outpatient"}
DEATH = "OMOP:4306655"


@dataclass(frozen=True)
class Spelling:
    """How an OMOP table spells what its records have; start and end are what its date columns begin with.

    Attributes:
        silver: the silver table its records are for. kind: of an event.
    """

    silver: str
    record_id: str
    concept: str = ""
    start: str = ""
    end: str = ""
    kind: str = ""


def _event(kind: str, table: str, stem: str, start: str, end: str = "") -> Spelling:
    return Spelling("silver.event", f"{table}_id", f"{stem}_concept_id", start, end, kind)


TABLES = {
    "person": Spelling("silver.patient", "person_id"),
    "visit_occurrence": Spelling(
        "silver.encounter", "visit_occurrence_id", "visit_concept_id", "visit_start", "visit_end"
    ),
    "observation_period": Spelling(
        "silver.observation_period",
        "observation_period_id",
        start="observation_period_start",
        end="observation_period_end",
    ),
    "condition_occurrence": _event(
        "condition", "condition_occurrence", "condition", "condition_start", "condition_end"
    ),
    "drug_exposure": _event("drug", "drug_exposure", "drug", "drug_exposure_start", "drug_exposure_end"),
    "measurement": _event("measurement", "measurement", "measurement", "measurement"),
    "procedure_occurrence": _event("procedure", "procedure_occurrence", "procedure", "procedure", "procedure_end"),
    "observation": _event("observation", "observation", "observation", "observation"),
    "death": _event("death", "person", "cause", "death"),
    "concept": Spelling("silver.concept", "concept_id", "concept_id"),
}


def silver_rows(records: DataFrame, zone: str, table: units.MeasurementTable) -> DataFrame:
    """Every record as a row of the silver table that `silver` names.

    Returns:
        NAME and silver;
        person_id: the patient's canonical id as delivered; null where it is none.
        record_id: what names the record among its person's of that table; null where nothing does.
        happened_at: the moment that recorded_at and the patient's birth are held against.
        faults: array<string>, codes the contract cannot see, e.g. a date that was given and could not be read.
        The columns of all silver tables but lineage; only those of the row's own table mean anything.
    """
    rows = _measured(_typed(_read(records), zone), table)
    is_about_patient = F.col("silver") != "silver.concept"
    happened_at = _case(
        {"silver.patient": F.to_timestamp("birth_date"), "silver.observation_period": F.to_timestamp("start_date")}
    ).when(is_about_patient, F.col("started_at"))
    record_id = F.when(~is_about_patient, F.col("concept")).when(F.col("person_id").isNotNull(), F.col("id"))
    ids = {name: F.col("id") for name in ("encounter_id", "period_id", "event_id")}
    visit = F.nullif(values.integer_id(_field("visit_occurrence_id")), F.lit("0"))
    ids["encounter_id"] = _case({"silver.event": visit}).otherwise(F.col("id"))
    named = rows.withColumns(ids | {"record_id": record_id, "happened_at": happened_at})
    named = named.withColumns({"patient_id": F.col("person_id"), "event_at": F.col("started_at")})
    return named.drop("fields", "corrupt", "id", "concept_id", "start_text", "end_text")


def lineage(known_at: datetime, is_history: bool, source: str, delivery_id: str) -> dict[str, Column]:
    """The columns every silver table ends with, source_table apart; reads happened_at.

    recorded_at is the delivery's time; an initial load does not tell when a record was made, so there it is the time of
    the event, never later than the delivery.
    """
    known = F.lit(known_at)
    return {
        "recorded_at": F.coalesce(F.least("happened_at", known), known) if is_history else known,
        "known_at": known,
        "source": F.lit(source),
        "delivery_id": F.lit(delivery_id),
        "is_deleted": F.lit(False),
    }


def person_ids(records: DataFrame) -> DataFrame:
    """person_id, unique and not null: every patient that any record names."""
    return records.select(_person().alias("person_id")).dropna().distinct()


def _read(records: DataFrame) -> DataFrame:
    """NAME, fields, corrupt; silver, person_id, id and concept_id (canonical), start_text and end_text as given."""
    spelt = {
        name: values.lookup({t: getattr(spelling, name) for t, spelling in TABLES.items()}, F.col("source_table"))
        for name in ("silver", "record_id", "concept", "start", "end")
    }
    return records.select(
        *NAME,
        "fields",
        "corrupt",
        spelt["silver"].alias("silver"),
        # A concept is nobody's, whatever columns its file has.
        F.when(spelt["silver"] != "silver.concept", _person()).alias("person_id"),
        values.integer_id(F.col("fields")[spelt["record_id"]]).alias("id"),
        values.integer_id(F.col("fields")[spelt["concept"]]).alias("concept_id"),
        _moment(spelt["start"]).alias("start_text"),
        _moment(spelt["end"]).alias("end_text"),
    )


def _typed(rows: DataFrame, zone: str) -> DataFrame:
    """Adds the columns of patients, encounters, periods and concepts, and what events share with them."""
    is_death = F.col("source_table") == "death"
    # A death without a cause has the concept of death itself.
    concept_id = F.when(is_death, F.nullif("concept_id", F.lit("0"))).otherwise(F.col("concept_id"))
    event_kind = values.lookup({t: spelling.kind for t, spelling in TABLES.items()}, F.col("source_table"))
    encounter_kind = F.coalesce(values.lookup(ENCOUNTER_KIND, F.col("concept_id")), F.lit("other"))
    sex = values.lookup(SEX, values.integer_id(_field("gender_concept_id")))
    return rows.withColumns(
        {
            "birth_date": _birth_date(),
            "sex": F.coalesce(sex, F.lit("unknown")),
            "kind": _case({"silver.encounter": encounter_kind}).otherwise(event_kind),
            "started_at": values.instant(F.col("start_text"), zone),
            "ended_at": values.end_instant(F.col("end_text"), zone),
            "start_date": values.day(F.col("start_text")),
            "end_date": values.day(F.col("end_text")),
            "concept": F.coalesce(F.concat(F.lit("OMOP:"), concept_id), F.when(is_death, F.lit(DEATH))),
            "name": _field("concept_name"),
            "domain": _field("domain_id"),
            "vocabulary": _field("vocabulary_id"),
            "code": _field("concept_code"),
            "end_is_bad": F.col("end_text").isNotNull() & _is_read_badly(F.col("end_text"), zone),
        }
    )


def _measured(rows: DataFrame, table: units.MeasurementTable) -> DataFrame:
    """Adds value, unit and faults. Units as in medpipe.standardise.units."""
    unit_id = values.integer_id(_field("unit_concept_id"))
    given = rows.withColumns(
        {
            "given": values.number(_field("value_as_number")),
            "given_unit": units.ucum(table, unit_id, _field("unit_source_value")),
            "names_a_unit": F.coalesce(unit_id != "0", F.lit(False))
            | (F.coalesce(F.trim(_field("unit_source_value")), F.lit("")) != ""),
        }
    )
    value, unit, fault = units.in_kept_unit(table, F.col("concept"), F.col("given"), F.col("given_unit"))
    # A unit that is named but not understood is not the same as none.
    is_foreign = (
        F.col("names_a_unit")
        & F.col("given").isNotNull()
        & F.col("given_unit").isNull()
        & F.col("concept").isin([measurement.concept for measurement in table.measurements])
    )
    not_finite = F.isnan("given") | (F.abs("given") == F.lit(float("inf")))
    is_event, has_moments = F.col("silver") == "silver.event", F.col("silver").isin("silver.event", "silver.encounter")
    faults = _faults(
        F.when(has_moments & F.col("end_is_bad"), "BAD_DATE"),
        F.when(is_event & _field("value_as_number").isNotNull() & F.col("given").isNull(), "BAD_NUMBER"),
        F.when(is_event, F.when(not_finite, "NOT_FINITE").when(is_foreign, "UNKNOWN_UNIT").otherwise(fault)),
    )
    unit = F.when(F.col("given").isNotNull(), unit)
    measured = given.withColumns({"value": value, "unit": unit, "faults": faults})
    return measured.drop("given", "given_unit", "names_a_unit", "end_is_bad")


def _birth_date() -> Column:
    """Month or day not given: the first."""
    parts = [
        F.lpad(F.coalesce(values.integer_id(_field(f"{part}_of_birth")), F.lit("1")), 2, "0")
        for part in ("month", "day")
    ]
    year = values.integer_id(_field("year_of_birth"))
    built = values.day(F.concat_ws("-", year, *parts))
    return F.coalesce(values.day(_field("birth_datetime")), F.when(year.isNotNull(), built))


def _case(by_silver: dict[str, Column]) -> Column:
    """The column that goes with the row's silver table; open for `when` and `otherwise`."""
    (first, column), *others = by_silver.items()
    found = F.when(F.col("silver") == first, column)
    for name, column in others:
        found = found.when(F.col("silver") == name, column)
    return found


def _field(name: str) -> Column:
    return F.col("fields")[name]


def _person() -> Column:
    return values.integer_id(_field("person_id"))


def _moment(prefix: Column) -> Column:
    fields = F.col("fields")
    return F.coalesce(fields[F.concat(prefix, F.lit("_datetime"))], fields[F.concat(prefix, F.lit("_date"))])


def _is_read_badly(text: Column, zone: str) -> Column:
    sentinel = text.rlike(values.LOCAL_TIME) & (F.left(text, F.lit(4)) >= F.lit(str(values.OPEN_END_YEAR)))
    return values.instant(text, zone).isNull() & ~sentinel


def _faults(*codes: Column) -> Column:
    encoding = F.when(F.exists(F.map_values("fields"), lambda text: text.contains("\ufffd")), "ENCODING")
    found = F.array_compact(F.array(encoding, *codes))
    return F.when(F.col("corrupt").isNotNull(), F.array(F.lit("FIELD_COUNT"))).otherwise(found)
