"""bronze.record of OMOP CDM 5.3 or 5.4 -> typed rows of the silver tables, each with what is wrong with it.

Every function keeps every row, and these columns beside the silver ones:
    source_table, record_hash, occurrence: the row's name in bronze
    person_id: the patient's canonical id as delivered; null where it is none
    record_id: what names the record among its person's of that table; null where nothing does
    happened_at: the moment that recorded_at and the patient's birth are held against
    faults: array<string>, codes the contract cannot see, e.g. a date that was given and could not be read
Ids are still as delivered: medpipe.privacy replaces them after the judgement.
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
class EventTable:
    """How an OMOP table spells an event: `prefix` of its date columns, `stem` of its id and concept columns."""

    kind: str
    record_id: str
    concept: str
    start: str
    end: str


EVENTS = {
    "condition_occurrence": EventTable(
        "condition", "condition_occurrence_id", "condition_concept_id", "condition_start", "condition_end"
    ),
    "drug_exposure": EventTable(
        "drug", "drug_exposure_id", "drug_concept_id", "drug_exposure_start", "drug_exposure_end"
    ),
    "measurement": EventTable("measurement", "measurement_id", "measurement_concept_id", "measurement", ""),
    "procedure_occurrence": EventTable(
        "procedure", "procedure_occurrence_id", "procedure_concept_id", "procedure", "procedure_end"
    ),
    "observation": EventTable("observation", "observation_id", "observation_concept_id", "observation", ""),
    "death": EventTable("death", "person_id", "cause_concept_id", "death", ""),
}


def silver_rows(records: DataFrame, zone: str, table: units.MeasurementTable) -> dict[str, DataFrame]:
    """silver table -> every record that is for it."""
    return {
        "silver.patient": patients(records),
        "silver.encounter": encounters(records, zone),
        "silver.observation_period": observation_periods(records),
        "silver.event": events(records, zone, table),
        "silver.concept": concepts(records),
    }


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


def patients(records: DataFrame) -> DataFrame:
    """person -> patient_id, birth_date, sex. Month or day not given: the first."""
    parts = [
        F.lpad(F.coalesce(values.integer_id(_field(f"{part}_of_birth")), F.lit("1")), 2, "0")
        for part in ("month", "day")
    ]
    year = values.integer_id(_field("year_of_birth"))
    given = values.day(_field("birth_datetime"))
    built = values.day(F.concat_ws("-", year, *parts))
    born = F.coalesce(given, F.when(year.isNotNull(), built))
    return records.where("source_table = 'person'").select(
        *_names(_person(), F.to_timestamp(born)),
        born.alias("birth_date"),
        _of(SEX, "gender_concept_id", "unknown").alias("sex"),
        _faults().alias("faults"),
    )


def encounters(records: DataFrame, zone: str) -> DataFrame:
    """visit_occurrence -> encounter_id, patient_id, kind, started_at, ended_at."""
    visit, started = values.integer_id(_field("visit_occurrence_id")), values.instant(_moment("visit_start"), zone)
    return records.where("source_table = 'visit_occurrence'").select(
        *_names(visit, started),
        visit.alias("encounter_id"),
        _of(ENCOUNTER_KIND, "visit_concept_id", "other").alias("kind"),
        started.alias("started_at"),
        values.end_instant(_moment("visit_end"), zone).alias("ended_at"),
        _faults(_unreadable_end("visit_end", zone)).alias("faults"),
    )


def observation_periods(records: DataFrame) -> DataFrame:
    """observation_period -> period_id, patient_id, start_date, end_date."""
    period = values.integer_id(_field("observation_period_id"))
    start = values.day(_field("observation_period_start_date"))
    return records.where("source_table = 'observation_period'").select(
        *_names(period, F.to_timestamp(start)),
        period.alias("period_id"),
        start.alias("start_date"),
        values.day(_field("observation_period_end_date")).alias("end_date"),
        _faults().alias("faults"),
    )


def events(records: DataFrame, zone: str, table: units.MeasurementTable) -> DataFrame:
    """Clinical tables -> event_id, patient_id, encounter_id, kind, concept, event_at, ended_at, value, unit.

    A death without a cause has the concept of death itself. Units as in medpipe.standardise.units.
    """
    concept_id = values.integer_id(_named("concept"))
    is_death = F.col("source_table") == "death"
    concept_id = F.when(is_death, F.nullif(concept_id, F.lit("0"))).otherwise(concept_id)
    concept = F.coalesce(F.concat(F.lit("OMOP:"), concept_id), F.when(is_death, F.lit(DEATH)))
    event, event_at = values.integer_id(_named("record_id")), values.instant(_dynamic_moment("start"), zone)
    read = records.where(F.col("source_table").isin(*EVENTS)).select(
        *_names(event, event_at),
        "fields",
        "corrupt",
        event.alias("event_id"),
        F.nullif(values.integer_id(_field("visit_occurrence_id")), F.lit("0")).alias("encounter_id"),
        _spelt("kind").alias("kind"),
        concept.alias("concept"),
        event_at.alias("event_at"),
        values.end_instant(_dynamic_moment("end"), zone).alias("ended_at"),
        values.number(_field("value_as_number")).alias("given"),
        units.ucum(table, values.integer_id(_field("unit_concept_id")), _field("unit_source_value")).alias(
            "given_unit"
        ),
        _names_a_unit().alias("names_a_unit"),
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
    faults = _faults(
        F.when(_given(_dynamic_moment("end")) & _is_read_badly(_dynamic_moment("end"), zone), "BAD_DATE"),
        F.when(_given(_field("value_as_number")) & F.col("given").isNull(), "BAD_NUMBER"),
        F.when(not_finite, "NOT_FINITE").when(is_foreign, "UNKNOWN_UNIT").otherwise(fault),
    )
    unit = F.when(F.col("given").isNotNull(), unit)
    judged_by = ("fields", "corrupt", "given", "given_unit", "names_a_unit")
    return read.withColumns({"value": value, "unit": unit, "faults": faults}).drop(*judged_by)


def concepts(records: DataFrame) -> DataFrame:
    """concept -> concept, name, domain, vocabulary, code. No patient: person_id is null."""
    concept = F.concat(F.lit("OMOP:"), values.integer_id(_field("concept_id")))
    nobody = F.lit(None).cast("string")
    return records.where("source_table = 'concept'").select(
        *NAME,
        nobody.alias("person_id"),
        concept.alias("record_id"),
        F.lit(None).cast("timestamp").alias("happened_at"),
        concept.alias("concept"),
        _field("concept_name").alias("name"),
        _field("domain_id").alias("domain"),
        _field("vocabulary_id").alias("vocabulary"),
        _field("concept_code").alias("code"),
        _faults().alias("faults"),
    )


def _names(record_id: Column, happened_at: Column) -> list[Column | str]:
    """What the rows of every table about patients begin with."""
    person = _person()
    own = [person.alias("person_id"), F.when(person.isNotNull(), record_id).alias("record_id")]
    return [*NAME, *own, happened_at.alias("happened_at"), person.alias("patient_id")]


def _person() -> Column:
    return values.integer_id(_field("person_id"))


def _field(name: str) -> Column:
    return F.col("fields")[name]


def _moment(prefix: str) -> Column:
    return F.coalesce(_field(f"{prefix}_datetime"), _field(f"{prefix}_date"))


def _named(attribute: str) -> Column:
    """The field whose name differs by table, in one pass over all of them."""
    return F.col("fields")[_spelt(attribute)]


def _dynamic_moment(attribute: str) -> Column:
    prefix, fields = _spelt(attribute), F.col("fields")
    return F.coalesce(fields[F.concat(prefix, F.lit("_datetime"))], fields[F.concat(prefix, F.lit("_date"))])


def _names_a_unit() -> Column:
    by_id = F.coalesce(values.integer_id(_field("unit_concept_id")) != "0", F.lit(False))
    return by_id | (F.coalesce(F.trim(_field("unit_source_value")), F.lit("")) != "")


def _given(text: Column) -> Column:
    return text.isNotNull()


def _is_read_badly(text: Column, zone: str) -> Column:
    sentinel = text.rlike(values.LOCAL_TIME) & (F.left(text, F.lit(4)) >= F.lit(str(values.OPEN_END_YEAR)))
    return values.instant(text, zone).isNull() & ~sentinel


def _unreadable_end(prefix: str, zone: str) -> Column:
    return F.when(_given(_moment(prefix)) & _is_read_badly(_moment(prefix), zone), "BAD_DATE")


def _faults(*codes: Column) -> Column:
    encoding = F.when(F.exists(F.map_values("fields"), lambda text: text.contains("\ufffd")), "ENCODING")
    found = F.array_compact(F.array(encoding, *codes))
    return F.when(F.col("corrupt").isNotNull(), F.array(F.lit("FIELD_COUNT"))).otherwise(found)


def _spelt(attribute: str) -> Column:
    """How the row's own table spells it."""
    return values.lookup({name: getattr(spelt, attribute) for name, spelt in EVENTS.items()}, F.col("source_table"))


def _of(names: dict[str, str], concept: str, default: str) -> Column:
    return F.coalesce(values.lookup(names, values.integer_id(_field(concept))), F.lit(default))
