"""Text as delivered -> typed values. What cannot be read is null; the caller says why. No cast that fails aloud."""

import json

from pyspark.sql import Column
from pyspark.sql import functions as F

LOCAL_TIME = r"^\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?)?$"
FIRST_YEAR = 1900
# OMOP and many exports write "still going on" as 2099-12-31 or 9999-12-31.
OPEN_END_YEAR = 2099


def integer_id(text: Column) -> Column:
    """A whole number as its canonical text: no sign, blanks, leading zeros or `.0`; else null."""
    return F.nullif(F.regexp_extract(text, r"^\s*0*(\d+?)(\.0*)?\s*$", 1), F.lit(""))


def number(text: Column) -> Column:
    """double; null where the text is no number. NaN and infinities stay for the caller to judge."""
    return F.trim(text).try_cast("double")


def day(text: Column) -> Column:
    """The date of `YYYY-MM-DD` or of a date-time; null for other forms, days that are none and years before 1900."""
    found = F.when(text.rlike(LOCAL_TIME), F.left(text, F.lit(10)).try_cast("date"))
    return F.when(F.year(found) >= FIRST_YEAR, found)


def instant(text: Column, zone: str) -> Column:
    """UTC timestamp of a local date or date-time in the hospital's zone; a date is its midnight. Null as in `day`."""
    local = F.when(text.rlike(LOCAL_TIME), text.try_cast("timestamp"))
    return F.when(F.year(local) >= FIRST_YEAR, F.to_utc_timestamp(local, zone))


def end_instant(text: Column, zone: str) -> Column:
    """As `instant`; null also for the sentinel years 2099 and later, which mean an open end."""
    return F.when(F.left(text, F.lit(4)) < F.lit(str(OPEN_END_YEAR)), instant(text, zone))


def lookup(entries: dict[str, str] | dict[str, float], key: Column) -> Column:
    """The entry of a small table, null for a key it lacks; string or double like the entries."""
    kind = "string" if any(isinstance(entry, str) for entry in entries.values()) else "double"
    # One literal that Spark reads once: a map of a column for each entry takes longer to build than to use.
    return F.from_json(F.lit(json.dumps(entries, sort_keys=True)), f"map<string,{kind}>")[key]
