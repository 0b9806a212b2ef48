"""Text as delivered -> typed values. What cannot be read is null; the caller says why. No cast that fails aloud."""

import json

from pyspark.sql import Column
from pyspark.sql import functions as F

LOCAL_TIME = r"^\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?)?$"
ZONED_TIME = r"^\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:\d{2})$"
FIRST_YEAR = 1900
# OMOP and many exports write "still going on" as 2099-12-31 or 9999-12-31; de-identified dates go beyond 2200.
OPEN_END = "2099-12-31"
OPEN_END_YEAR = 2900
# Asked before each cast: Spark makes an exception, with its text, of every text that a cast cannot read.
WHOLE = r"^\s*[+-]?\d{1,18}\s*$"
NUMBER = r"^\s*[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|(?i:nan|inf|infinity))\s*$"


def integer_id(text: Column) -> Column:
    """A whole number as its canonical text: no sign, blanks, leading zeros or `.0`; else null."""
    return F.nullif(F.regexp_extract(text, r"^\s*0*(\d+?)(\.0*)?\s*$", 1), F.lit(""))


def any_id(text: Column) -> Column:
    """A whole number as in `integer_id`, any other text without the blanks around it; null for none."""
    return F.coalesce(integer_id(text), F.nullif(F.trim(text), F.lit("")))


def whole(text: Column) -> Column:
    """bigint; null where the text is no whole number, or one of more than 18 digits."""
    return F.when(text.rlike(WHOLE), text.try_cast("bigint"))


def number(text: Column) -> Column:
    """double; null where the text is no number. NaN and infinities stay for the caller to judge."""
    return F.when(text.rlike(NUMBER), text.try_cast("double"))


def day(text: Column) -> Column:
    """The date of `YYYY-MM-DD` or of a date-time; null for other forms, days that are none and years before 1900."""
    is_date = text.rlike(LOCAL_TIME) | text.rlike(ZONED_TIME)
    found = F.when(is_date, F.left(text, F.lit(10)).try_cast("date"))
    return F.when(F.year(found) >= FIRST_YEAR, found)


def instant(text: Column, zone: str) -> Column:
    """UTC timestamp of a date or date-time; null as in `day`.

    One that ends with Z or an offset is that moment; any other is the hospital's zone's, a date its midnight.
    """
    is_zoned = text.rlike(ZONED_TIME)
    found = F.when(is_zoned | text.rlike(LOCAL_TIME), text.try_cast("timestamp"))
    return F.when(F.year(found) >= FIRST_YEAR, F.when(is_zoned, found).otherwise(F.to_utc_timestamp(found, zone)))


def end_instant(text: Column, zone: str) -> Column:
    """As `instant`; null also for an open end."""
    return F.when(~is_open_end(text), instant(text, zone))


def is_open_end(text: Column) -> Column:
    """Whether a date says that there is no end yet: 2099-12-31, or a year from 2900 on."""
    is_date = text.rlike(LOCAL_TIME) | text.rlike(ZONED_TIME)
    return is_date & (text.startswith(OPEN_END) | (F.left(text, F.lit(4)) >= F.lit(str(OPEN_END_YEAR))))


def lookup(entries: dict[str, str] | dict[str, float] | dict[str, dict], key: Column) -> Column:
    """The entry of a small table, null for a key it lacks; string, double or a struct of both like the entries."""
    kind = _type_of(next(iter(entries.values()), ""))
    # One literal that Spark reads once: a map of a column for each entry takes longer to build than to use.
    return F.from_json(F.lit(json.dumps(entries, sort_keys=True)), f"map<string,{kind}>")[key]


def _type_of(entry: str | float | dict) -> str:
    if isinstance(entry, dict):
        return f"struct<{', '.join(f'{name}: {_type_of(part)}' for name, part in entry.items())}>"
    return "string" if isinstance(entry, str) else "double"
