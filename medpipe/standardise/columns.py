"""What a record says in the columns that its meaning names, as text in one spelling.

Reads `fields` of bronze.record; but for `field`, `coded` and `canonical` also `m`, the meaning, its conditions parted.
"""

import re
from dataclasses import asdict

from pyspark.sql import Column
from pyspark.sql import functions as F

from medpipe.mappings.mapping import Mapping, Meaning
from medpipe.standardise import values

CONDITIONS = ("when", "value_when", "withdrawn_when")


def vocabulary(mapping: Mapping, system: str, otherwise: str) -> Column:
    """The vocabulary that a record names itself, else its meaning's; null where neither is known."""
    told = values.lookup(mapping.systems, given(mapping, system)) if mapping.systems else F.lit(None)
    return F.coalesce(told, F.nullif(f"m.{otherwise}", F.lit("")))


def given(mapping: Mapping, attribute: str) -> Column:
    """The text of the first of the meaning's columns that has a value; null where it names none."""
    names = F.col(f"m.{attribute}")
    return F.coalesce(*[field(mapping, F.get(names, F.lit(place))) for place in (0, 1)])


def parted(meaning: Meaning) -> dict:
    """The meaning with its conditions taken apart, here once and not by a pattern on every row."""
    parts = r"(?P<column>[^=!|]*)(?:\|(?P<other>[^=!]*))?(?P<sign>!?=)?(?P<text>.*)"
    return asdict(meaning) | {n: re.fullmatch(parts, getattr(meaning, n)).groupdict() for n in CONDITIONS}


def holds(mapping: Mapping, attribute: str) -> Column:
    """Whether a condition of the meaning is true; one that is not made is."""
    column, other, sign, wanted = (F.col(f"m.{attribute}.{part}") for part in ("column", "other", "sign", "text"))
    text = F.coalesce(field(mapping, column), field(mapping, other))
    is_equal = F.coalesce(text == wanted, F.lit(False))
    of_text = F.when(sign.isNull(), text.isNotNull()).when(sign == "=", is_equal).otherwise(~is_equal)
    return (column == "") | of_text


def field(mapping: Mapping, name: Column) -> Column:
    """A column of the record as text; null where it holds what the format writes for no value."""
    text = F.col("fields")[name]
    if "*" in mapping.none:
        text = F.nullif(text, F.lit(mapping.none["*"]))
    return F.nullif(text, values.lookup(mapping.none, name)) if mapping.none else text


def canonical(mapping: Mapping, text: Column) -> Column:
    """An identifier in its one spelling; null where it is none."""
    if mapping.ids == "reference":
        # FHIR R4: Patient/123, urn:uuid:..., or an id alone; a conditional reference names nobody.
        text = F.regexp_extract(text, r"^\s*(?:urn:uuid:|(?:[^?]*/)?)([A-Za-z0-9.\-]{1,64})\s*$", 1)
    return coded(mapping, text)


def coded(mapping: Mapping, text: Column) -> Column:
    """A code in its one spelling: a whole number where identifiers are; null where it is none."""
    if mapping.ids == "integer":
        return values.integer_id(text)
    return F.nullif(F.when(~text.rlike(r"[\x00-\x1f]"), F.trim(text)), F.lit(""))
