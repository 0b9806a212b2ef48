"""One unit per measured concept: conversion and plausible range by table (measurements.toml)."""

import tomllib
from dataclasses import dataclass
from importlib import resources

from pyspark.sql import Column
from pyspark.sql import functions as F

from medpipe.standardise import values


@dataclass(frozen=True)
class Measurement:
    """A concept with the unit that is kept, its plausible range, and unit -> (factor, offset) of others."""

    concept: str
    unit: str
    low: float
    high: float
    conversions: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class MeasurementTable:
    """units: OMOP unit_concept_id -> UCUM; measurements: one per concept."""

    units: dict[str, str]
    measurements: tuple[Measurement, ...]


def shipped() -> MeasurementTable:
    """The table that comes with medpipe."""
    raw = tomllib.loads(resources.files("medpipe.standardise").joinpath("measurements.toml").read_text("utf-8"))
    measurements = tuple(
        Measurement(
            concept=concept,
            unit=entry["unit"],
            low=float(entry["low"]),
            high=float(entry["high"]),
            conversions={
                u: (float(c["factor"]), float(c.get("offset", 0))) for u, c in entry.get("conversions", {}).items()
            },
        )
        for entry in raw["measurement"]
        # The same quantity in the vocabulary of FHIR and of Synthea.
        for concept in (entry["concept"], *([f"LOINC:{entry['loinc']}"] if "loinc" in entry else []))
    )
    return MeasurementTable(raw["units"], measurements)


def ucum(table: MeasurementTable, unit_concept_id: Column, unit_text: Column) -> Column:
    """The UCUM unit of an OMOP unit concept, else of a unit text that is one; null for any other."""
    by_id = values.lookup(table.units, unit_concept_id)
    known = sorted(set(table.units.values()))
    return F.coalesce(by_id, F.when(F.trim(unit_text).isin(known), F.trim(unit_text)))


def in_kept_unit(
    table: MeasurementTable, concept: Column, value: Column, unit: Column
) -> tuple[Column, Column, Column]:
    """Value and unit after conversion, and what is wrong: UNKNOWN_UNIT, OUT_OF_RANGE or null.

    A concept the table lacks, and a value without a unit, keep value and unit; the range holds for the latter too.
    """
    measured = values.lookup(
        {m.concept: {"unit": m.unit, "low": m.low, "high": m.high} for m in table.measurements}, concept
    )
    kept, low, high = (measured[name] for name in ("unit", "low", "high"))
    others = {
        f"{m.concept} {u}": {"factor": f, "offset": o}
        for m in table.measurements
        for u, (f, o) in m.conversions.items()
    }
    is_kept = unit.isNull() | (unit == kept)
    other = values.lookup(others, F.when(~is_kept, F.concat_ws(" ", concept, unit)))
    factor, offset = (F.when(is_kept, same).otherwise(other[name]) for name, same in (("factor", 1.0), ("offset", 0.0)))
    converted = F.when(kept.isNull(), value).otherwise(value * factor + offset)
    fault = F.when(
        kept.isNotNull() & value.isNotNull(),
        F.when(factor.isNull(), "UNKNOWN_UNIT").when(~converted.between(low, high), "OUT_OF_RANGE"),
    )
    return converted, F.when(unit.isNotNull() & kept.isNotNull(), kept).otherwise(unit), fault
