"""How many rows of silver each rule asks, and how many fail: all rules of a table in one pass."""

from collections.abc import Iterable, Sequence
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from medpipe.quality.rules import ABOUT, Rule, frame_of

# OMOP's own "no matching concept", and what silver.patient says of a sex it does not know.
UNMAPPED = ("OMOP:0", "unknown")
# Both graces are the DQD's: what is written down after a death, and around a visit.
DAYS_AFTER_DEATH = 60
DAYS_AROUND_VISIT = 7
# Asked of the few rows of a concept's counts, not of each event: a hospital's vocabulary may be larger than its night.
OF_CONCEPTS = {("isForeignKey", "concept"), ("fkDomain", "concept")}
END = {"started_at": "ended_at", "start_date": "end_date", "event_at": "ended_at"}


def counts(silver: dict[str, DataFrame], rules: Sequence[Rule], zone: str) -> DataFrame:
    """check_id, rules.ABOUT, num_rows, num_failed: one row per rule, none of a patient.

    Args:
        silver: silver.patient, .encounter, .observation_period, .event and .concept as known at a date, by name.
        zone: the hospital's; moments are compared as its calendar days.
    Cost: three passes over events (by patient, by concept, by event_id), each a shuffle of its groups; that by concept
        joins patients and visits. What is known of each patient is kept until the caller clears the cache.
    """
    silver = {name: _by_day(frame, zone) for name, frame in silver.items()}
    # Small, and every table is held against it.
    people = _people(silver, rules).persist()
    of_person = people.drop("has_rows")
    visits = silver["silver.encounter"].groupBy("encounter_id")
    visits = visits.agg(F.min("started_at").alias("visit_from"), F.max("ended_at").alias("visit_to"))
    visits = visits.withColumn("knows_encounter_id", F.lit(True))
    asked = {
        "silver.patient": silver["silver.patient"],
        "silver.concept": silver["silver.concept"],
        **{
            name: silver[name].join(of_person, on="patient_id", how="left")
            for name in ("silver.encounter", "silver.observation_period")
        },
    }
    parts = [_persons(people, rules)]
    parts += [_fields(frame, [rule for rule in rules if rule.table == name]) for name, frame in asked.items()]
    parts += [_events(silver, of_person, visits, [rule for rule in rules if rule.table == "silver.event"])]
    parts += [_repeated(silver[rule.table], rule) for rule in rules if rule.rule == "isPrimaryKey"]
    return _by_rule([(summed, questions) for summed, questions in parts if questions], rules)


def _by_day(frame: DataFrame, zone: str) -> DataFrame:
    moments = [name for name in ("started_at", "ended_at", "event_at") if name in frame.columns]
    return frame.withColumns({name: F.to_date(F.from_utc_timestamp(name, zone)) for name in moments})


def _people(silver: dict[str, DataFrame], rules: Sequence[Rule]) -> DataFrame:
    """patient_id (unique), born, patient_sex (null: unknown), died_on, knows_patient_id, has_rows (of each rule)."""
    none = F.lit(None)
    seen = silver["silver.event"].select(
        "patient_id",
        F.lit("silver.event").alias("table"),
        "kind",
        F.when(F.col("kind") == "death", F.col("event_at")).alias("day"),
    )
    for name in ("silver.encounter", "silver.observation_period"):
        rows = silver[name].select(
            "patient_id", F.lit(name).alias("table"), none.cast("string").alias("kind"), none.cast("date").alias("day")
        )
        seen = seen.unionByName(rows)
    has = [
        F.bool_or((F.col("table") == rule.table) & F.coalesce(F.col("kind") == rule.kind, F.lit(rule.kind is None)))
        for rule in rules
        if rule.rule == "measurePersonCompleteness"
    ]
    histories = seen.groupBy("patient_id").agg(F.min("day").alias("died_on"), F.array(*has).alias("has_rows"))
    # Two sources may speak of one patient; a sex they do not agree on is not known.
    sex = F.when(F.min("sex") == F.max("sex"), F.nullif(F.min("sex"), F.lit("unknown")))
    known = (
        silver["silver.patient"].groupBy("patient_id").agg(F.min("birth_date").alias("born"), sex.alias("patient_sex"))
    )
    return known.join(histories, on="patient_id", how="left").withColumn("knows_patient_id", F.lit(True))


def _persons(people: DataFrame, rules: Sequence[Rule]) -> tuple[DataFrame, list[Rule]]:
    """Patients without a row in a table: each asked once, whatever the number of rows."""
    asked = [rule for rule in rules if rule.rule == "measurePersonCompleteness"]
    lacks = [~F.coalesce(F.get("has_rows", F.lit(place)), F.lit(False)) for place in range(len(asked))]
    return people.agg(_answers([(F.lit(True), fails) for fails in lacks])), asked


def _fields(frame: DataFrame, rules: Sequence[Rule]) -> tuple[DataFrame, list[Rule]]:
    asked = _distinct(rules)
    return frame.agg(_answers([_asks(rule) for rule in asked])), asked


def _events(
    silver: dict[str, DataFrame], people: DataFrame, visits: DataFrame, rules: Sequence[Rule]
) -> tuple[DataFrame, list[Rule]]:
    """Events are counted by kind and concept: few rows, of which each rule takes its own."""
    asked = _distinct(rules)
    of_rows = [rule for rule in asked if (rule.rule, rule.column) not in OF_CONCEPTS]
    of_concepts = [rule for rule in asked if (rule.rule, rule.column) in OF_CONCEPTS]
    events = silver["silver.event"]
    rows = events.join(people, on="patient_id", how="left").join(visits, on="encounter_id", how="left")
    rows = rows.join(F.broadcast(_wanted(events, rules)), on="concept", how="left")
    grouped = rows.groupBy("kind", "concept").agg(F.count("*").alias("n"), _answers([_asks(rule) for rule in of_rows]))
    names = silver["silver.concept"].groupBy("concept").agg(F.min("domain").alias("domain"))
    grouped = grouped.join(names.withColumn("knows_concept", F.lit(True)), on="concept", how="left")
    alike = [
        F.struct(*[F.coalesce(F.when(test, F.col("n")), F.lit(0)).alias(name) for name, test in told.items()])
        for told in ({"num_rows": counted, "num_failed": counted & fails} for counted, fails in map(_asks, of_concepts))
    ]
    answers = F.concat("answers", F.array(*alike)) if alike else F.col("answers")
    return grouped.select("kind", "concept", answers.alias("answers")), of_rows + of_concepts


def _wanted(events: DataFrame, rules: Sequence[Rule]) -> DataFrame:
    """concept (unique), wanted_unit, wanted_sex, low, high: what the rules say of concepts, small however many."""
    named = frame_of(events.sparkSession, [r for r in rules if r.concept], ("concept", "unit", "sex", "low", "high"))
    return named.groupBy("concept").agg(
        F.max("unit").alias("wanted_unit"),
        F.max("sex").alias("wanted_sex"),
        F.max("low").alias("low"),
        F.max("high").alias("high"),
    )


def _repeated(frame: DataFrame, rule: Rule) -> tuple[DataFrame, list[Rule]]:
    """Rows whose id stands in another row, too."""
    by_id = frame.groupBy(rule.column).agg(F.count("*").alias("n"))
    sums = {"num_rows": F.sum("n"), "num_failed": F.sum(F.when(F.col("n") > 1, F.col("n")))}
    answer = F.struct(*[F.coalesce(number, F.lit(0)).alias(name) for name, number in sums.items()])
    return by_id.agg(F.array(answer).alias("answers")), [rule]


def _asks(rule: Rule) -> tuple[Column, Column]:
    """Whether a row is asked, and whether it fails; null is no."""
    column, day_of_death = F.col(rule.column), F.date_add("died_on", DAYS_AFTER_DEATH)
    is_given, is_named = column.isNotNull(), F.col("concept") != UNMAPPED[0]
    match rule.rule:
        case "isRequired" | "measureValueCompleteness":
            return F.lit(True), column.isNull()
        case "standardConceptRecordCompleteness":
            return F.lit(True), column.isin(*UNMAPPED)
        case "isForeignKey":
            # The vocabulary need not name what stands for no concept.
            is_asked = is_given & is_named if rule.column == "concept" else is_given
            return is_asked, F.col(f"knows_{rule.column}").isNull()
        case "fkDomain":
            return F.col("domain").isNotNull() & is_named, F.lower("domain") != F.col("kind")
        case "plausibleAfterBirth":
            return is_given & F.col("born").isNotNull(), column < F.col("born")
        case "plausibleBeforeDeath":
            return is_given & day_of_death.isNotNull(), column > day_of_death
        case "plausibleStartBeforeEnd":
            end = F.col(END[rule.column])
            return is_given & end.isNotNull(), column > end
        case "withinVisitDates":
            early = column < F.date_sub("visit_from", DAYS_AROUND_VISIT)
            late = F.coalesce(column > F.date_add("visit_to", DAYS_AROUND_VISIT), F.lit(False))
            return is_given & F.col("visit_from").isNotNull(), early | late
        case "plausibleValueLow" if rule.concept is None:
            return is_given, column < F.lit(rule.low)
        case "plausibleValueLow":
            return is_given & (F.col("unit") == F.col("wanted_unit")), column < F.col("low")
        case "plausibleValueHigh":
            return is_given & (F.col("unit") == F.col("wanted_unit")), column > F.col("high")
        case "plausibleUnitConceptIds":
            has_value = F.col("value").isNotNull() & F.col("wanted_unit").isNotNull()
            return has_value, ~column.eqNullSafe(F.col("wanted_unit"))
        case "plausibleGender":
            return F.col("wanted_sex").isNotNull() & F.col("patient_sex").isNotNull(), F.col("patient_sex") != F.col(
                "wanted_sex"
            )
    raise ValueError(f"no check {rule.rule!r} of {rule.column}")


def _question(rule: Rule) -> tuple:
    """What is asked of rows, whatever the kinds and concepts it is asked of; of patients each rule is its own."""
    return rule.rule, rule.table, rule.column, rule.concept is None, _is_of_persons(rule) and rule.kind


def _is_of_persons(rule: Rule) -> bool:
    return rule.rule == "measurePersonCompleteness"


def _distinct(rules: Iterable[Rule]) -> list[Rule]:
    """One rule for each question of the rows of a table, those apart that count other things than rows."""
    apart = ("measurePersonCompleteness", "isPrimaryKey")
    return list({_question(rule): rule for rule in rules if rule.rule not in apart}.values())


def _answers(asked: Sequence[tuple[Column, Column]]) -> Column:
    """answers: array of (num_rows, num_failed), one for each question."""
    told = [
        F.struct(F.count_if(counted).alias("num_rows"), F.count_if(counted & fails).alias("num_failed"))
        for counted, fails in asked
    ]
    return F.array(*told).alias("answers")


def _by_rule(parts: Sequence[tuple[DataFrame, list[Rule]]], rules: Sequence[Rule]) -> DataFrame:
    """Each rule's own sum; a rule that nothing was found for has zeros.

    Args:
        parts: answers, with kind and concept where they are grouped by them; and the question of each answer.
    """
    places = {}
    found = []
    for summed, asked in parts:
        found.append(_numbered(summed, asked, len(places)))
        places |= {_question(rule): len(places) + place for place, rule in enumerate(asked)}
    together = reduce(DataFrame.unionByName, found).alias("found")
    told = frame_of(
        together.sparkSession, rules, ("check_id", *ABOUT), question=[places[_question(rule)] for rule in rules]
    )
    wanted = F.broadcast(told.alias("wanted"))
    same = (F.col("found.question") == F.col("wanted.question")) & F.col("found.concept").eqNullSafe(
        F.col("wanted.concept")
    )
    is_of_kind = F.col("wanted.kind").isNull() | F.coalesce(F.col("found.kind") == F.col("wanted.kind"), F.lit(True))
    own = together.join(wanted, on=same & is_of_kind, how="inner")
    own = own.select(*[f"wanted.{name}" for name in ("check_id", *ABOUT)], "num_rows", "num_failed")
    nothing = told.drop("question").withColumns({name: F.lit(0).cast("long") for name in ("num_rows", "num_failed")})
    sums = [F.sum(name).alias(name) for name in ("num_rows", "num_failed")]
    return own.unionByName(nothing).groupBy("check_id", *ABOUT).agg(*sums)


def _numbered(summed: DataFrame, asked: Sequence[Rule], first: int) -> DataFrame:
    """question (its place among all), kind, concept (where the question is of one), num_rows, num_failed."""
    is_grouped = "kind" in summed.columns
    kind, concept = (F.col(n) if is_grouped else F.lit(None).cast("string") for n in ("kind", "concept"))
    of_concept = [place for place, rule in enumerate(asked) if rule.concept]
    rows = summed.select(kind.alias("kind"), concept.alias("concept"), F.posexplode("answers").alias("place", "answer"))
    return rows.select(
        (F.col("place") + first).alias("question"),
        "kind",
        F.when(F.col("place").isin(of_concept), F.col("concept")).alias("concept"),
        "answer.num_rows",
        "answer.num_failed",
    )
