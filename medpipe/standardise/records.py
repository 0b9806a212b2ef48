"""bronze.record of any mapped format -> typed rows for the silver tables, each with what is wrong with it.

One pass reads every table: the mapping, a literal, says for each delivered table where its rows have their dates, ids
and concept. Ids are still as delivered: medpipe.privacy replaces them after the judgement.
"""

import json
import re
from dataclasses import asdict, fields
from datetime import datetime

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from medpipe import contracts
from medpipe.mappings.mapping import DELETION, Mapping, Meaning
from medpipe.standardise import concepts, places, units, values

NAME = ("source_table", "record_hash", "occurrence")
_TYPES = {str: "string", bool: "boolean", tuple[str, ...]: "array<string>"}
_CONDITIONS = {
    name: "struct<column: string, other: string, sign: string, text: string>"
    for name in ("when", "value_when", "withdrawn_when")
}
_MEANING = ", ".join(f"{f.name}: {_CONDITIONS.get(f.name, _TYPES[f.type])}" for f in fields(Meaning))
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
    known = beside(records, mapping)
    names = {table: sorted({m.person for m in mapping.meanings if m.table == table}) for table in mapping.required}
    columns = F.from_json(F.lit(json.dumps(names, sort_keys=True)), "map<string, array<array<string>>>")
    rows = known.select("*", F.explode(columns[F.col("source_table")]).alias("_columns"))
    given = F.coalesce(*[_field(mapping, F.get("_columns", F.lit(place))) for place in (0, 1)])
    return rows.withColumn("person_id", _canonical(mapping, given)).drop("_columns").where("person_id is not null")


def beside(records: DataFrame, mapping: Mapping) -> DataFrame:
    """The records, those that share the key of `mapping.beside` with its table given its columns too.

    Of several rows of that table with one key the first by content counts.
    """
    if not mapping.beside:
        return records
    table, key, columns = mapping.beside["table"], mapping.beside["key"], mapping.beside["columns"]
    taken = F.map_filter("fields", lambda name, _: name.isin(columns))
    others = records.where((F.col("source_table") == table) & F.col("corrupt").isNull())
    others = others.groupBy(F.col("fields")[key].alias("_key")).agg(F.min_by(taken, "record_hash").alias("_taken"))
    joined = records.join(others, on=F.col("fields")[key] == F.col("_key"), how="left")
    absent = F.map_filter("_taken", lambda name, _: ~F.array_contains(F.map_keys("fields"), name))
    return joined.withColumn("fields", F.coalesce(F.map_concat("fields", absent), "fields")).drop("_key", "_taken")


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
    meanings = {table: [_parted(m) for m in mapping.meanings if m.table == table] for table in sorted(mapping.required)}
    known = F.from_json(F.lit(json.dumps(meanings)), f"map<string, array<struct<{_MEANING}>>>")
    rows = records.select("*", F.explode(known[F.col("source_table")]).alias("m"))
    is_own, is_readable = F.col("m.part") == "", F.col("corrupt").isNull()
    vocabulary = _vocabulary(mapping, "system", "vocabulary")
    coded = F.concat(vocabulary, F.lit(":"), _coded(mapping, _given(mapping, "code")))
    answer = _given(mapping, "answer")
    of_answer = _vocabulary(mapping, "answer_system", "answer_vocabulary")
    answered = F.concat(of_answer, F.lit(":"), _coded(mapping, answer))
    read = {
        "source_table": F.when(is_own, F.col("source_table")).otherwise(F.concat_ws(".", "source_table", "m.part")),
        "delivered_table": F.col("source_table"),
        "silver": F.col("m.silver"),
        "is_once": F.col("m.is_once"),
        # A concept is nobody's, whatever columns its file has.
        "person_id": F.when(F.col("m.silver") != "silver.concept", _canonical(mapping, _given(mapping, "person"))),
        "id": _canonical(mapping, _given(mapping, "id")),
        "is_named": F.size("m.id") > 0,
        "visit": _canonical(mapping, _given(mapping, "encounter")),
        "concept": F.coalesce(coded, F.nullif("m.concept", F.lit(""))),
        "answer": F.coalesce(values.lookup(mapping.answers, answer), answered) if mapping.answers else answered,
        "told_kind": F.col("m.kind"),
        "start_text": _moment(mapping, "start"),
        "end_text": _moment(mapping, "end"),
        "has_foreign_text": F.array_join(F.map_values("fields"), " ").contains("\ufffd"),
    }
    read["is_deleted"] = (F.col("m.withdrawn_when.column") != "") & _holds(mapping, "withdrawn_when")
    read["value"] = F.when(_holds(mapping, "value_when"), _given(mapping, "value"))
    read |= {name: _given(mapping, name) for name in _TEXTS}
    read |= {
        part: _field(mapping, F.get("m.birth_parts", F.lit(place)))
        for place, part in enumerate(("year", "month", "day"))
    }
    told = rows.where((is_own & ~is_readable) | (is_readable & _holds(mapping, "when"))).select(
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
    kind = values.lookup(mapping.kinds, _coded(mapping, F.col("kind_of"))) if mapping.kinds else F.lit(None)
    sex = values.lookup(mapping.sexes, _coded(mapping, F.col("sex"))) if mapping.sexes else F.lit("unknown")
    start, end = F.col("start_text"), F.col("end_text")
    is_period = F.col("silver") == "silver.observation_period"
    return rows.withColumns(
        {
            "birth_date": F.when(F.col("silver") == "silver.patient", _birth_date(mapping)),
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


def _birth_date(mapping: Mapping) -> Column:
    """Month or day not given: the first. Of an age the first of January."""
    text = _whole(mapping, F.col("birth"))
    if mapping.old_births:
        told = F.when(text.rlike(values.LOCAL_TIME), F.left(text, F.lit(10)).try_cast("date"))
        moved = F.date_format(F.add_months(told, 12 * mapping.old_births["add_years"]), "yyyy-MM-dd")
        text = F.when(F.year(told) < mapping.old_births["before"], moved).otherwise(text)
    parts = [F.lpad(F.coalesce(values.integer_id(F.col(part)), F.lit("1")), 2, "0") for part in ("month", "day")]
    year = values.integer_id(F.col("year"))
    built = values.day(F.concat_ws("-", year, *parts))
    age = values.number(F.col("age"))
    age = F.coalesce(values.lookup(mapping.ages, F.trim("age")), age) if mapping.ages else age
    age = F.when(age.between(0, 150), F.floor(age).cast("int"))
    born = F.make_date(F.year(values.day(F.col("start_text"))) - age, F.lit(1), F.lit(1))
    return F.coalesce(values.day(text), F.when(year.isNotNull(), built), born)


def _moment(mapping: Mapping, name: str) -> Column:
    """`start` or `end` as the text of a date or date-time; what cannot be read stays as it is."""
    text = _whole(mapping, _given(mapping, name))
    if not any(meaning.offset_from for meaning in mapping.meanings):
        return text
    origin = F.when(F.col("m.offset_from").rlike(r"^\d{4}"), F.col("m.offset_from"))
    origin = F.coalesce(origin, _field(mapping, F.col("m.offset_from")))
    origin = F.when(origin.rlike(r"^\d{4}$"), F.concat(origin, F.lit("-01-01"))).otherwise(origin)
    clock = [values.whole(F.regexp_extract(text, r"^(\d{1,4}):(\d{2})$", part)) for part in (1, 2)]
    minutes = F.coalesce(values.whole(text), clock[0] * 60 + clock[1])
    if name == "start":
        # Without a column of its own the moment itself.
        minutes = F.when(F.size("m.start") == 0, F.lit(0)).otherwise(minutes)
    less = F.coalesce(values.whole(_field(mapping, F.col("m.offset_less"))), F.lit(0))
    # Bounded, for an overflow would print the number.
    in_bounds = F.when(minutes.between(-(10**8), 10**8) & less.between(-(10**8), 10**8), (minutes - less).cast("int"))
    moment = F.date_format(origin.try_cast("timestamp") + F.make_dt_interval(mins=in_bounds), "yyyy-MM-dd HH:mm:ss")
    # Of nothing there is no moment, but for a start without a column; asked first, for the sums are long.
    is_none = text.isNull() if name == "end" else text.isNull() & (F.size("m.start") > 0)
    return F.when((F.col("m.offset_from") == "") | is_none, text).otherwise(F.coalesce(moment, text))


def _whole(mapping: Mapping, text: Column) -> Column:
    """The date text, a year or month alone as its first day where the format has such."""
    if not mapping.has_partial_dates:
        return text
    year, month = text.rlike(r"^\d{4}$"), text.rlike(r"^\d{4}-\d{2}$")
    return F.when(year, F.concat(text, F.lit("-01-01"))).when(month, F.concat(text, F.lit("-01"))).otherwise(text)


def _vocabulary(mapping: Mapping, system: str, otherwise: str) -> Column:
    """The vocabulary that a record names itself, else its meaning's; null where neither is known."""
    told = values.lookup(mapping.systems, _given(mapping, system)) if mapping.systems else F.lit(None)
    return F.coalesce(told, F.nullif(f"m.{otherwise}", F.lit("")))


def _given(mapping: Mapping, attribute: str) -> Column:
    """The text of the first of the meaning's columns that has a value; null where it names none."""
    names = F.col(f"m.{attribute}")
    return F.coalesce(*[_field(mapping, F.get(names, F.lit(place))) for place in (0, 1)])


def _parted(meaning: Meaning) -> dict:
    """The meaning with its conditions taken apart, here once and not by a pattern on every row."""
    parts = r"(?P<column>[^=!|]*)(?:\|(?P<other>[^=!]*))?(?P<sign>!?=)?(?P<text>.*)"
    return asdict(meaning) | {n: re.fullmatch(parts, getattr(meaning, n)).groupdict() for n in _CONDITIONS}


def _holds(mapping: Mapping, attribute: str) -> Column:
    """Whether a condition of the meaning is true; one that is not made is."""
    column, other, sign, wanted = (F.col(f"m.{attribute}.{part}") for part in ("column", "other", "sign", "text"))
    text = F.coalesce(_field(mapping, column), _field(mapping, other))
    is_equal = F.coalesce(text == wanted, F.lit(False))
    of_text = F.when(sign.isNull(), text.isNotNull()).when(sign == "=", is_equal).otherwise(~is_equal)
    return (column == "") | of_text


def _field(mapping: Mapping, name: Column) -> Column:
    """A column of the record as text; null where it holds what the format writes for no value."""
    text = F.col("fields")[name]
    if "*" in mapping.none:
        text = F.nullif(text, F.lit(mapping.none["*"]))
    return F.nullif(text, values.lookup(mapping.none, name)) if mapping.none else text


def _canonical(mapping: Mapping, text: Column) -> Column:
    """An identifier in its one spelling; null where it is none."""
    if mapping.ids == "reference":
        # FHIR R4: Patient/123, urn:uuid:..., or an id alone; a conditional reference names nobody.
        text = F.regexp_extract(text, r"^\s*(?:urn:uuid:|(?:[^?]*/)?)([A-Za-z0-9.\-]{1,64})\s*$", 1)
    return _coded(mapping, text)


def _coded(mapping: Mapping, text: Column) -> Column:
    """A code in its one spelling: a whole number where identifiers are; null where it is none."""
    if mapping.ids == "integer":
        return values.integer_id(text)
    return F.nullif(F.when(~text.rlike(r"[\x00-\x1f]"), F.trim(text)), F.lit(""))


def _case(by_silver: dict[str, Column]) -> Column:
    """The column that goes with the row's silver table; open for `when` and `otherwise`."""
    (first, column), *others = by_silver.items()
    found = F.when(F.col("silver") == first, column)
    for name, column in others:
        found = found.when(F.col("silver") == name, column)
    return found


def _faults(*codes: Column) -> Column:
    return contracts.codes(F.when(F.col("has_foreign_text"), "ENCODING"), *codes)
