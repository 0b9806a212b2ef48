"""Planted dirt: every dirty row has exactly one fault.

Rows that must be refused are copies of good ones under a new id, so that what the hospital truly recorded is always
delivered, too.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa

from medpipe.simulate import concepts
from medpipe.simulate.tables import Rows

# Shares of a table's rows.
REFUSED = {
    "bad_date": 0.003,
    "orphan": 0.002,
    "before_birth": 0.001,
    "after_delivery": 0.001,
    "field_count": 0.001,
    "bad_id": 0.001,
    "out_of_range": 0.002,
}
EXACT_DUPLICATE, UNIT_MIX, CORRECTED, LATE = 0.003, 0.005, 0.002, 0.02
LATE_DAYS = (2, 60)
EVENT_TABLES = ("visit_occurrence", "condition_occurrence", "drug_exposure", "measurement", "procedure_occurrence")
BAD_DATES = ("2024-02-30", "01/02/2024", "")
UNKNOWN_PERSON = 1_900_000_000
NEW_ID = 1_000_000_000


@dataclass(frozen=True, eq=False)
class Dirty:
    """A table with its dirt.

    Attributes:
        rows: what is written as it stands, with exact duplicates, other units, late and corrected records in it.
        kinds: per row of `rows`, the dirt it is, "" for none.
        sources: rows to copy, give a new id and spoil; `faults`: per source the kind.
    """

    rows: Rows
    kinds: np.ndarray
    sources: Rows
    faults: np.ndarray


def plant(rows: Rows, num_nights: int, first_night: int, rng: np.random.Generator) -> Dirty:
    """At most one kind of dirt for each row; person, death and observation_period get exact duplicates only."""
    is_event = rows.name in EVENT_TABLES
    wanted = {"exact_duplicate": EXACT_DUPLICATE} | (REFUSED if is_event else {})
    if rows.name == "measurement":
        wanted["unit_mix"] = UNIT_MIX
    if is_event and rows.name != "visit_occurrence" and num_nights > 1:
        wanted |= {"corrected": CORRECTED, "late": LATE}
    if rows.name != "measurement":
        wanted.pop("out_of_range", None)
    kinds = list(wanted)
    steps = np.cumsum(list(wanted.values()))
    drawn = np.array([*kinds, ""])[np.searchsorted(steps, rng.random(len(rows.person)), side="right")]
    other_night = rng.integers(1, max(num_nights, 2), len(drawn))
    drawn[_unfit(rows, drawn, first_night)] = ""
    night = np.where(drawn == "late", other_night, rows.night)
    kept = _in_other_unit(Rows(rows.name, rows.columns, rows.person, rows.day, night), drawn == "unit_mix")
    copies = kept.take(np.flatnonzero(drawn == "exact_duplicate"))
    at = np.flatnonzero(drawn == "corrected")
    corrections = _corrected(kept.take(at), other_night[at])
    own_kinds = np.where(np.isin(drawn, ["late", "unit_mix"]), drawn, "")
    is_refused = np.isin(drawn, list(REFUSED))
    return Dirty(
        rows=_together([kept, copies, corrections]),
        kinds=np.concatenate([own_kinds, np.repeat(["exact_duplicate", "corrected"], [len(copies.person), len(at)])]),
        sources=kept.take(np.flatnonzero(is_refused)),
        faults=drawn[is_refused],
    )


def spoilt(row: dict, kind: str, table: str, night: date, birth: date) -> list:
    """The fields of a CSV line: the row under a new id, with one fault.

    Args:
        row: column -> value, in order; the first column is the record's id.
        night: day of the delivery.
    """
    record_id, *_ = row
    dates = [name for name in row if name.endswith("_date") and "_end_" not in name]
    ends = [name for name in row if "_end_" in name]
    number = row[record_id]
    row = row | {record_id: number + NEW_ID} | {name: None for name in row if name.endswith("_datetime")}
    if kind == "bad_date":
        row |= {name: BAD_DATES[number % len(BAD_DATES)] for name in dates}
    elif kind == "orphan":
        row |= {"person_id": UNKNOWN_PERSON + number % 10_000}
    elif kind == "before_birth":
        row |= {name: birth - timedelta(days=400 + number % 2000) for name in dates} | dict.fromkeys(ends)
    elif kind == "after_delivery":
        row |= {name: night + timedelta(days=5 + number % 40) for name in dates} | dict.fromkeys(ends)
    elif kind == "bad_id":
        row |= {record_id: f"X-{number}"}
    elif kind == "out_of_range":
        lab = next(lab for lab in concepts.LABS if lab.concept == row["measurement_concept_id"])
        row |= {"value_as_number": lab.impossible}
    values = ["" if value is None else str(value) for value in row.values()]
    if kind == "field_count":
        return values[:-1] if number % 2 else [*values, "0"]
    return values


def counts(kinds: np.ndarray) -> Counter:
    """How many rows of each kind, without the clean ones."""
    names, num = np.unique(kinds[kinds != ""], return_counts=True)
    return Counter(dict(zip(names.tolist(), num.tolist(), strict=True)))


def _unfit(rows: Rows, drawn: np.ndarray, first_night: int) -> np.ndarray:
    """Rows that cannot have the dirt they drew."""
    age_days = first_night - rows.day
    unfit = (drawn == "late") & ((age_days < LATE_DAYS[0]) | (age_days > LATE_DAYS[1]))
    unfit |= (drawn == "corrected") & (rows.night != 0)
    if rows.name == "measurement":
        mixed = [lab.concept for lab in concepts.LABS if lab.other_unit]
        unfit |= (drawn == "unit_mix") & ~np.isin(rows.columns["measurement_concept_id"].to_numpy(), mixed)
    return unfit


def _in_other_unit(rows: Rows, is_mixed: np.ndarray) -> Rows:
    if not is_mixed.any():
        return rows
    concept, value, unit = (
        rows.columns[name].to_numpy().copy()
        for name in ("measurement_concept_id", "value_as_number", "unit_concept_id")
    )
    text = rows.columns["unit_source_value"].to_numpy(zero_copy_only=False).copy()
    for lab in concepts.LABS:
        if lab.other_unit:
            at = is_mixed & (concept == lab.concept)
            unit_concept, name, factor, offset = lab.other_unit
            value[at] = np.round(value[at] * factor + offset, 4)
            unit[at], text[at] = unit_concept, name
    return _with(rows, {"value_as_number": value, "unit_concept_id": unit, "unit_source_value": pa.array(text)})


def _corrected(rows: Rows, night: np.ndarray) -> Rows:
    """The same ids with another value, or the day before."""
    moved = Rows(rows.name, rows.columns, rows.person, rows.day, night)
    if rows.name == "measurement":
        value = rows.columns["value_as_number"].to_numpy()
        return _with(moved, {"value_as_number": np.round(value * 0.98 - 0.01, 3)})
    dates = [name for name in rows.columns.column_names if name.endswith("_date")]
    day = {name: rows.columns[name].to_numpy() - np.timedelta64(1, "D") for name in dates}
    return _with(moved, {name: pa.array(values, pa.date32()) for name, values in day.items()})


def _with(rows: Rows, columns: dict) -> Rows:
    table = rows.columns
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    return Rows(rows.name, table, rows.person, rows.day, rows.night)


def _together(parts: list[Rows]) -> Rows:
    return Rows(
        parts[0].name,
        pa.concat_tables([part.columns for part in parts]),
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("person", "day", "night")),
    )
