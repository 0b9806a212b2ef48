"""When: moments, minutes from a moment, and births, as the mapping of a format tells them."""

from pyspark.sql import Column
from pyspark.sql import functions as F

from medpipe.mappings.mapping import Mapping
from medpipe.standardise import columns, values


def moment(mapping: Mapping, name: str) -> Column:
    """`start` or `end` as the text of a date or date-time; what cannot be read stays as it is."""
    text = _whole(mapping, columns.given(mapping, name))
    if not any(meaning.offset_from for meaning in mapping.meanings):
        return text
    origin = F.when(F.col("m.offset_from").rlike(r"^\d{4}"), F.col("m.offset_from"))
    origin = F.coalesce(origin, columns.field(mapping, F.col("m.offset_from")))
    origin = F.when(origin.rlike(r"^\d{4}$"), F.concat(origin, F.lit("-01-01"))).otherwise(origin)
    clock = [values.whole(F.regexp_extract(text, r"^(\d{1,4}):(\d{2})$", part)) for part in (1, 2)]
    minutes = F.coalesce(values.whole(text), clock[0] * 60 + clock[1])
    if name == "start":
        # Without a column of its own the moment itself.
        minutes = F.when(F.size("m.start") == 0, F.lit(0)).otherwise(minutes)
    less = F.coalesce(values.whole(columns.field(mapping, F.col("m.offset_less"))), F.lit(0))
    # Bounded, for an overflow would print the number.
    in_bounds = F.when(minutes.between(-(10**8), 10**8) & less.between(-(10**8), 10**8), (minutes - less).cast("int"))
    told = F.date_format(origin.try_cast("timestamp") + F.make_dt_interval(mins=in_bounds), "yyyy-MM-dd HH:mm:ss")
    # Of nothing there is no moment, but for a start without a column; asked first, for the sums are long.
    is_none = text.isNull() if name == "end" else text.isNull() & (F.size("m.start") > 0)
    return F.when((F.col("m.offset_from") == "") | is_none, text).otherwise(F.coalesce(told, text))


def birth_date(mapping: Mapping) -> Column:
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


def _whole(mapping: Mapping, text: Column) -> Column:
    """The date text, a year or month alone as its first day where the format has such."""
    if not mapping.has_partial_dates:
        return text
    year, month = text.rlike(r"^\d{4}$"), text.rlike(r"^\d{4}-\d{2}$")
    return F.when(year, F.concat(text, F.lit("-01-01"))).when(month, F.concat(text, F.lit("-01"))).otherwise(text)
