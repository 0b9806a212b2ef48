"""bronze.record of any mapped format -> typed rows for the silver tables, each with what is wrong with it.

One pass reads every table: the mapping, a literal, says for each delivered table where its rows have their dates, ids
and concept. Ids are still as delivered: medpipe.privacy replaces them after the judgement.
"""

import json
from dataclasses import fields
from datetime import datetime

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from medpipe import contracts
from medpipe.mappings.mapping import DELETION, Mapping, Meaning
from medpipe.standardise import columns, concepts, moments, places, units, values
from medpipe.standardise.beside import beside

NAME = ("source_table", "record_hash", "occurrence")
_TYPES = {str: "string", bool: "boolean", tuple[str, ...]: "array<string>"}
_CONDITION = "struct<column: string, other: string, sign: string, text: string>"
_MEANING = ", ".join(
    f"{f.name}: {_CONDITION if f.name in columns.CONDITIONS else _TYPES[f.type]}" for f in fields(Meaning)
)
# What is read as it stands, under the meaning's own name for it.
_TEXTS = ("kind_of", "sex", "state", "postcode", "birth", "age", "unit", "unit_id", "name", "domain")
_TEXTS += ("concept_vocabulary", "concept_code")


def silver_rows(
    records: DataFrame, mapping: Mapping, zone: str, table: units.MeasurementTable, standard: DataFrame | None = None
) -> DataFrame:
    """Every record as the rows of silver it gives.

    Args:
        standard: as in medpipe.standardise.concepts, for every code of `codes_of`; None: codes stay as delivered.
    Returns:
        NAME, the source_table that of the meaning; delivered_table, that of the record; silver, the table it is for, or
        DELETION: event_id is then what the row names;
        person_id: the patient's canonical id as delivered; null where it is none.
        record_id: what names the record among its person's of that table; null where nothing does.
        happened_at: the moment that recorded_at and the patient's birth are held against.
        faults: array<string>, codes the contract cannot see, e.g. a date that was given and could not be read.
        The columns of all silver tables but lineage; only those of the row's own table mean anything.
    """
    rows = _typed(_read(beside(records, mapping), mapping), mapping, zone)
    coded = rows.withColumn("source_concept", F.lit(None).cast("string"))
    # Before units and ranges, which are a concept's.
    rows = _measured(coded if standard is None else concepts.in_standard(rows, standard), table)
    is_about_patient = F.col("silver") != "silver.concept"
    happened_at = _case(
        {"silver.patient": F.to_timestamp("birth_date"), "silver.observation_period": F.to_timestamp("start_date")}
    ).when(is_about_patient, F.col("started_at"))
    is_of_patient = F.col("person_id").isNotNull() & (F.col("silver") != DELETION)
    record_id = F.when(~is_about_patient, F.col("concept")).when(is_of_patient, F.col("id"))
    # What has no name of its own is named by its content.
    own = F.when(F.col("is_named"), F.col("id")).otherwise(F.col("record_hash"))
    ids = {"encounter_id": _case({"silver.event": F.col("visit")}).otherwise(own), "period_id": own, "event_id": own}
    named = rows.withColumns(ids | {"record_id": record_id, "happened_at": happened_at})
    named = named.withColumns({"patient_id": F.col("person_id"), "event_at": F.col("started_at")})
    return named.drop("id", "is_named", "is_once", "visit", "start_text", "end_text")


def person_ids(records: DataFrame, mapping: Mapping) -> DataFrame:
    """person_id, unique and not null: every patient that any record names."""
    return persons_of(records, mapping).select("person_id").distinct()


def codes_of(records: DataFrame, mapping: Mapping) -> DataFrame:
    """source_concept, unique: every concept and every answer that an event of the records names."""
    events = _read(beside(records, mapping), mapping).where("silver = 'silver.event'")
    named = events.select(F.explode(F.array("concept", "answer")).alias("source_concept"))
    return named.where("source_concept is not null").distinct()


def persons_of(records: DataFrame, mapping: Mapping) -> DataFrame:
    """The records that name a patient, all their columns, with person_id; one that names two stands twice."""
    names = {table: sorted({m.person for m in mapping.meanings if m.table == table}) for table in mapping.required}
    is_told_beside = {name for several in names.values() for each in several for name in each} & mapping.taken()
    known = beside(records, mapping) if is_told_beside else records
    named_by = F.from_json(F.lit(json.dumps(names, sort_keys=True)), "map<string, array<array<string>>>")
    rows = known.select("*", F.explode(named_by[F.col("source_table")]).alias("_columns"))
    given = F.coalesce(*[columns.field(mapping, F.get("_columns", F.lit(place))) for place in (0, 1)])
    persons = rows.withColumn("person_id", columns.canonical(mapping, given)).drop("_columns")
    return persons.where("person_id is not null")


def lineage(known_at: datetime, is_history: bool, source: str, delivery_id: str) -> dict[str, Column]:
    """The columns every silver table ends with, source_table and is_deleted apart; reads happened_at.

    recorded_at is the delivery's time; an initial load does not tell when a record was made, so there it is the time of
    the event, never later than the delivery.
    """
    known = F.lit(known_at)
    return {
        "recorded_at": F.coalesce(F.least("happened_at", known), known) if is_history else known,
        "known_at": known,
        "source": F.lit(source),
        "delivery_id": F.lit(delivery_id),
    }


def _read(records: DataFrame, mapping: Mapping) -> DataFrame:
    """What each meaning of each record says, as text: NAME, delivered_table, silver, person_id, id, visit and more."""
    parted = [columns.parted(meaning) for meaning in mapping.meanings]
    meanings = {table: [m for m in parted if m["table"] == table] for table in sorted(mapping.required)}
    known = F.from_json(F.lit(json.dumps(meanings)), f"map<string, array<struct<{_MEANING}>>>")
    rows = records.select("*", F.explode(known[F.col("source_table")]).alias("m"))
    is_own, is_readable = F.col("m.part") == "", F.col("corrupt").isNull()
    person = columns.canonical(mapping, columns.given(mapping, "person"))
    vocabulary = columns.vocabulary(mapping, "system", "vocabulary")
    coded = F.concat(vocabulary, F.lit(":"), columns.coded(mapping, columns.given(mapping, "code")))
    answer = columns.given(mapping, "answer")
    of_answer = columns.vocabulary(mapping, "answer_system", "answer_vocabulary")
    answered = F.concat(of_answer, F.lit(":"), columns.coded(mapping, answer))
    read = {
        "source_table": F.when(is_own, F.col("source_table")).otherwise(F.concat_ws(".", "source_table", "m.part")),
        "delivered_table": F.col("source_table"),
        "silver": F.col("m.silver"),
        "is_once": F.col("m.is_once"),
        # A concept is nobody's, whatever columns its file has.
        "person_id": F.when(F.col("m.silver") != "silver.concept", person),
        "id": columns.canonical(mapping, columns.given(mapping, "id")),
        "is_named": F.size("m.id") > 0,
        "visit": columns.canonical(mapping, columns.given(mapping, "encounter")),
        "concept": F.coalesce(coded, F.nullif("m.concept", F.lit(""))),
        "answer": F.coalesce(values.lookup(mapping.answers, answer), answered) if mapping.answers else answered,
        "told_kind": F.col("m.kind"),
        "start_text": moments.moment(mapping, "start"),
        "end_text": moments.moment(mapping, "end"),
        "has_foreign_text": F.array_join(F.map_values("fields"), " ").contains("\ufffd"),
    }
    read["is_deleted"] = (F.col("m.withdrawn_when.column") != "") & columns.holds(mapping, "withdrawn_when")
    read["value"] = F.when(columns.holds(mapping, "value_when"), columns.given(mapping, "value"))
    read |= {name: columns.given(mapping, name) for name in _TEXTS}
    read |= {
        part: columns.field(mapping, F.get("m.birth_parts", F.lit(place)))
        for place, part in enumerate(("year", "month", "day"))
    }
    told = rows.where((is_own & ~is_readable) | (is_readable & columns.holds(mapping, "when"))).select(
        "record_hash", "occurrence", "corrupt", "fault", *[column.alias(name) for name, column in read.items()]
    )
    return _once(told) if any(meaning.is_once for meaning in mapping.meanings) else told


def _once(rows: DataFrame) -> DataFrame:
    """The rows, of those that are to be once for a person the first by start and content."""
    alone = F.concat_ws(" ", "source_table", "record_hash", "occurrence")
    same = F.when(F.col("is_once"), F.concat_ws(" ", "source_table", "person_id")).otherwise(alone)
    place = F.row_number().over(Window.partitionBy(same).orderBy("start_text", "record_hash", "occurrence"))
    return rows.withColumn("place", place).where("place = 1").drop("place")


def _typed(rows: DataFrame, mapping: Mapping, zone: str) -> DataFrame:
    """Adds the columns of patients, encounters, periods and concepts, and what events share with them."""
    kind = values.lookup(mapping.kinds, columns.coded(mapping, F.col("kind_of"))) if mapping.kinds else F.lit(None)
    sex = values.lookup(mapping.sexes, columns.coded(mapping, F.col("sex"))) if mapping.sexes else F.lit("unknown")
    start, end = F.col("start_text"), F.col("end_text")
    is_period = F.col("silver") == "silver.observation_period"
    return rows.withColumns(
        {
            "birth_date": F.when(F.col("silver") == "silver.patient", moments.birth_date(mapping)),
            "sex": F.coalesce(sex, F.lit("unknown")),
            "state": places.state(F.col("state")),
            "postcode": places.postcode(F.col("postcode"), F.col("state")),
            "kind": F.coalesce(kind, F.nullif("told_kind", F.lit("")), F.lit("other")),
            "started_at": values.instant(start, zone),
            "ended_at": values.end_instant(end, zone),
            "start_date": F.when(is_period, values.day(start)),
            "end_date": F.when(is_period, values.day(end)),
            "vocabulary": F.col("concept_vocabulary"),
            "code": F.col("concept_code"),
            "end_is_bad": end.isNotNull() & values.instant(end, zone).isNull() & ~values.is_open_end(end),
        }
    ).drop("kind_of", "told_kind", "birth", "age", "year", "month", "day", "concept_vocabulary", "concept_code")


def _measured(rows: DataFrame, table: units.MeasurementTable) -> DataFrame:
    """Adds value, unit and faults. Units as in medpipe.standardise.units."""
    unit_id = values.integer_id(F.col("unit_id"))
    given = rows.withColumns(
        {
            "given": values.number(F.col("value")),
            "given_unit": units.ucum(table, unit_id, F.col("unit")),
            "names_a_unit": F.coalesce(unit_id != "0", F.lit(False)) | (F.coalesce(F.trim("unit"), F.lit("")) != ""),
            "given_text": F.col("value"),
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
        F.when((F.col("silver") == DELETION) & F.col("is_named") & F.col("id").isNull(), "BAD_ID"),
        F.when(is_event & F.col("given_text").isNotNull() & F.col("given").isNull(), "BAD_NUMBER"),
        F.when(is_event, F.when(not_finite, "NOT_FINITE").when(is_foreign, "UNKNOWN_UNIT").otherwise(fault)),
    )
    unit = F.when(F.col("given").isNotNull(), unit)
    measured = given.withColumns({"faults": faults, "value": value, "unit": unit})
    return measured.drop(
        "given", "given_unit", "given_text", "names_a_unit", "end_is_bad", "unit_id", "has_foreign_text"
    )


def _case(by_silver: dict[str, Column]) -> Column:
    """The column that goes with the row's silver table; open for `when` and `otherwise`."""
    (first, column), *others = by_silver.items()
    found = F.when(F.col("silver") == first, column)
    for name, column in others:
        found = found.when(F.col("silver") == name, column)
    return found


def _faults(*codes: Column) -> Column:
    return contracts.codes(F.when(F.col("has_foreign_text"), "ENCODING"), *codes)
