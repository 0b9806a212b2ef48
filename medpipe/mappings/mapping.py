"""What the tables of an outside format mean: one TOML per format, read by ingest and standardise alike.

A mapping says which delivered tables there are and, for each, what rows of silver one of its rows gives.
"""

import hashlib
import re
import tomllib
from collections.abc import Collection
from dataclasses import MISSING, dataclass, fields, replace
from functools import cache
from importlib import resources
from pathlib import Path

from medpipe.errors import UsageError

SILVER = ("silver.patient", "silver.encounter", "silver.observation_period", "silver.event", "silver.concept")
EVENT_KINDS = ("condition", "drug", "measurement", "procedure", "observation", "death")
IDS = ("integer", "text", "reference")
# Before a table's name: the table of its deletions, as in the folder `deleted` of a delivery.
DELETED = "deleted/"
# What such a row is for, in the place of a table of silver.
DELETION = "deletion"
# And a row that only tells others something; see Mapping.beside.
BESIDE = "beside"


@dataclass(frozen=True)
class Meaning:
    """One row of silver from one delivered row. Attributes name columns of the delivered table, lower case, unless said
    otherwise; of two names the first that has a value counts.

    Attributes:
        table: delivered table, lower case.
        silver: table of silver the row is for; DELETION: it takes a row back; BESIDE: it gives others columns.
        part: where one delivered row gives several rows, what tells the others from the first; else "".
        when: only rows with a value in this column (or, after `|`, that one), or where it is the text after `=` or is
            not that after `!=`; a part for which it does not hold was never delivered.
        is_once: of a part that repeats for a person, the first by start and content counts.
        person, id, encounter: whom it is about, its own name (none: its content), and the visit.
        code: code of the concept; system: where its vocabulary stands; vocabulary: else the vocabulary itself.
        concept: vocabulary and code themselves, for a row without a code.
        kind: what an event or an encounter is, itself; kind_of: where an encounter's kind stands.
        start, end: a date, a date-time, or, with `offset_from`, minutes (or H:MM) from a moment: that of the column it
            names or that it is itself, `offset_less` minutes before.
        birth: birth date; birth_parts: year, month and day; age: years at `start`, where there is no birth date.
        value, unit, unit_id: a number, the unit's text, and the OMOP concept of the unit.
        value_when: as `when`, for the value alone.
        answer: code of a result that is no number; answer_system, answer_vocabulary: as for `code`.
        withdrawn_when: as `when`: the hospital takes the record back.
        sex, state, postcode: of a patient; the last two of the United States alone.
        name, domain, concept_vocabulary, concept_code: of a concept.
    """

    table: str
    silver: str
    part: str = ""
    when: str = ""
    is_once: bool = False
    person: tuple[str, ...] = ()
    id: tuple[str, ...] = ()
    encounter: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    system: tuple[str, ...] = ()
    vocabulary: str = ""
    concept: str = ""
    kind: str = ""
    kind_of: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    end: tuple[str, ...] = ()
    offset_from: str = ""
    offset_less: str = ""
    birth: tuple[str, ...] = ()
    birth_parts: tuple[str, ...] = ()
    age: tuple[str, ...] = ()
    sex: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    postcode: tuple[str, ...] = ()
    withdrawn_when: str = ""
    value: tuple[str, ...] = ()
    value_when: str = ""
    unit: tuple[str, ...] = ()
    unit_id: tuple[str, ...] = ()
    answer: tuple[str, ...] = ()
    answer_system: tuple[str, ...] = ()
    answer_vocabulary: str = ""
    name: tuple[str, ...] = ()
    domain: tuple[str, ...] = ()
    concept_vocabulary: tuple[str, ...] = ()
    concept_code: tuple[str, ...] = ()

    @property
    def source_table(self) -> str:
        """How silver, fates and quarantine call it: the delivered table, and after a point the part."""
        return f"{self.table}.{self.part}" if self.part else self.table


@dataclass(frozen=True)
class Mapping:
    """One outside format.

    Attributes:
        ids: how identifiers are spelt: integer (007 is 7), text, or reference (FHIR: Patient/x, urn:uuid:x).
        required: delivered table -> columns without which no row of it can be understood; every table that is read, and
            `deleted/TABLE` beside each but concepts', whose rows name rows of it that are taken back.
        meanings: the first of each table is the row itself, the others its parts.
        none: column -> the text that says there is no value; "*" for every column.
        sexes, kinds, systems, ages: delivered text -> sex, kind of encounter, vocabulary, years of age.
        answers: delivered text -> vocabulary and code, of answers that are no codes.
        has_partial_dates: 2024 and 2024-02 are dates, their first day.
        old_births: before (a year), add_years: birth dates that hide an age above 89 (MIMIC: 300 years back).
        beside: table, key, columns: other rows that share the key get these columns of that table's row, under the name
            before the `=` where the columns are a table; `when`, a column and after `=` its text, chooses the row. A
            table without [[rows]] is there for others alone.
    """

    name: str
    doc: str
    ids: str
    required: dict[str, tuple[str, ...]]
    meanings: tuple[Meaning, ...]
    none: dict[str, str]
    sexes: dict[str, str]
    kinds: dict[str, str]
    systems: dict[str, str]
    answers: dict[str, str]
    ages: dict[str, float]
    has_partial_dates: bool
    old_births: dict[str, int]
    beside: dict

    def source_tables(self) -> dict[str, list[str]]:
        """Of each delivered table what its rows and their parts are called."""
        return {table: [m.source_table for m in self.meanings if m.table == table] for table in self.required}

    def columns(self, table: str) -> set[str]:
        """Every column of a delivered table that is read, those that the row beside it gives left out."""
        is_beside = table == self.beside.get("table")
        told = self.beside["columns"] if is_beside else {}
        given = {name for name in self.taken() if told.get(name) != name}
        return self._read(table) - given | {*told.values(), *([self.beside["key"]] if is_beside else [])}

    def taken(self) -> set[str]:
        """The columns that rows get from the row beside them."""
        return set(self.beside.get("columns", ()))

    def takers(self) -> list[str]:
        """Tables of which a column is read that the row beside gives, sorted."""
        return sorted(table for table in self.required if self._read(table) & self.taken())

    def _read(self, table: str) -> set[str]:
        own = [m for m in self.meanings if m.table == table]
        several = [
            name for m in own for f in fields(Meaning) if f.type == tuple[str, ...] for name in getattr(m, f.name)
        ]
        conditions = [re.split("!?=", told)[0] for m in own for told in (m.when, m.value_when, m.withdrawn_when)]
        # An offset may be from a moment itself.
        offsets = [name for m in own for name in (m.offset_from, m.offset_less) if not name[:1].isdigit()]
        return {*self.required[table], *several, *conditions, *offsets} - {""}

    def only_beside(self) -> str:
        """The table whose rows are there for others alone; "" for none."""
        return next((meaning.table for meaning in self.meanings if meaning.silver == BESIDE), "")

    def for_tables(self, tables: Collection[str]) -> "Mapping":
        """What a delivery of these tables needs of the mapping: nothing beside where that table is not one of them."""
        return self if self.beside.get("table") in tables else replace(self, beside={})

    def withdrawn_by(self, table: str) -> list[Meaning]:
        """What goes with a deleted row of the table: the row itself, and its parts that have its id.

        A part that several rows tell, a patient's birth in each visit, stays: the others still tell it.
        """
        row, *parts = sorted((m for m in self.meanings if m.table == table), key=lambda meaning: meaning.part)
        return [row, *(m for m in parts if m.id == _deletion(row).id and not m.is_once)]


def shipped() -> list[str]:
    """Names of the formats that come with medpipe, sorted."""
    files = resources.files("medpipe.mappings").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def digest(folder: str | None) -> str:
    """SHA-256 of the hospital's own mappings, hex; "" without any."""
    files = sorted(Path(folder).glob("*.toml")) if folder else []
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest() if files else ""


@cache
def load(name: str, folder: str | None = None) -> Mapping:
    """The mapping of a format, from the hospital's own folder where it has one of that name, else as shipped.

    Raises:
        UsageError: UNKNOWN_SOURCE, BAD_MAPPING.
    """
    # It may come from a delivery, and must not lead out of the folder.
    own = Path(folder) / f"{name}.toml" if folder and name.isidentifier() else None
    if own is not None and own.is_file():
        return parsed(name, own.read_text("utf-8"))
    if name not in shipped():
        place = f" or {own}" if own else "; for another format write a mapping, and name its folder in mappings"
        raise UsageError("UNKNOWN_SOURCE", f"no mapping {name!r}; expected one of {', '.join(shipped())}{place}")
    return parsed(name, resources.files("medpipe.mappings").joinpath(f"{name}.toml").read_text("utf-8"))


def parsed(name: str, text: str) -> Mapping:
    """A mapping from TOML. `each = [...]` writes a meaning once for several columns: {each} stands for one of them.

    Raises:
        UsageError: BAD_MAPPING, naming what is wrong.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as failure:
        raise UsageError("BAD_MAPPING", f"{name}.toml is not TOML: {failure}") from None
    tables = ("none", "sexes", "kinds", "systems", "answers", "ages", "old_births", "beside")
    _known(name, "key", raw, {"doc", "ids", "required", "rows", "has_partial_dates", *tables})
    required = {table: tuple(columns) for table, columns in raw.get("required", {}).items()}
    meanings = tuple(
        _meaning(name, {key: _filled(value, each) for key, value in row.items() if key != "each"})
        for row in raw.get("rows", [])
        for each in row.get("each", [""])
    )
    beside = _beside(raw["beside"]) if "beside" in raw else {}
    if beside and all(meaning.table != beside["table"] for meaning in meanings):
        meanings += (Meaning(beside["table"], BESIDE),)
    found = Mapping(
        name=name,
        doc=raw.get("doc", ""),
        ids=raw.get("ids", "text"),
        required=required,
        meanings=meanings,
        has_partial_dates=raw.get("has_partial_dates", False),
        **{table: raw.get(table, {}) for table in tables} | {"beside": beside},
    )
    _require_whole(found)
    # Concepts are nobody's records, and old events still carry them.
    rows = (m for m in meanings if not m.part and m.silver not in ("silver.concept", BESIDE))
    deletions = tuple(_deletion(row) for row in rows)
    needed = {d.table: _needed(d, required[d.table.removeprefix(DELETED)]) for d in deletions}
    return replace(found, required=required | needed, meanings=meanings + deletions)


def _beside(told: dict) -> dict:
    """As Mapping.beside, `columns` as new name -> column."""
    columns = told.get("columns", {})
    return told | {"columns": columns if isinstance(columns, dict) else {name: name for name in columns}}


def _deletion(row: Meaning) -> Meaning:
    """How a row is told that takes `row` back: by its id, a patient's by the patient."""
    named_by = row.person if row.silver == "silver.patient" else row.id
    return Meaning(table=DELETED + row.table, silver=DELETION, person=row.person, id=named_by)


def _needed(deletion: Meaning, whole: tuple[str, ...]) -> tuple[str, ...]:
    """The columns that a deletion cannot do without: its id's; of two none, as either will do.

    A row that has no id is named by its content, so there those of the whole row.
    """
    return (deletion.id or whole) if len(deletion.id) < 2 else ()


def _filled(value: object, each: str) -> object:
    """The value of a key, every {each} in it replaced; names of columns always as a tuple."""
    if isinstance(value, list):
        return tuple(_filled(item, each) for item in value)
    return value.replace("{each}", each) if isinstance(value, str) else value


def _meaning(name: str, row: dict) -> Meaning:
    _known(name, "key of a row", row, {field.name for field in fields(Meaning)})
    missing = sorted(field.name for field in fields(Meaning) if field.default is MISSING and field.name not in row)
    if missing:
        raise UsageError("BAD_MAPPING", f"{name}.toml: a row of {row.get('table', '?')} lacks {', '.join(missing)}")
    several = {field.name for field in fields(Meaning) if field.type == tuple[str, ...]}
    listed = {key: (value,) if key in several and isinstance(value, str) else value for key, value in row.items()}
    return Meaning(**listed | {"silver": f"silver.{row['silver']}"})


def _known(name: str, what: str, found: dict, expected: set[str]) -> None:
    if unknown := sorted(set(found) - expected):
        raise UsageError(
            "BAD_MAPPING", f"{name}.toml: unknown {what} {', '.join(unknown)}; expected {', '.join(sorted(expected))}"
        )


def _require_whole(mapping: Mapping) -> None:
    """Each delivered table has one row of its own, and all that is named is there."""
    wrong = [] if mapping.ids in IDS else [f"ids is {mapping.ids!r}, expected one of {', '.join(IDS)}"]
    if "deleted" in mapping.required:
        wrong.append("a table is called deleted, as the folder of deletions is")
    for table in sorted({meaning.table for meaning in mapping.meanings} ^ set(mapping.required)):
        wrong.append(f"{table} needs both an entry in required and [[rows]]")
    for table in mapping.required:
        parts = [meaning.part for meaning in mapping.meanings if meaning.table == table]
        if parts.count("") != 1 or len(set(parts)) != len(parts):
            wrong.append(f"{table} has parts {parts}, expected one without and the others all different")
    for meaning in mapping.meanings:
        if meaning.silver not in (*SILVER, BESIDE):
            wrong.append(f"{meaning.source_table} is for {meaning.silver}, expected one of {', '.join(SILVER)}")
        if meaning.silver == "silver.event" and meaning.kind not in EVENT_KINDS:
            wrong.append(f"{meaning.source_table} has kind {meaning.kind!r}, expected one of {', '.join(EVENT_KINDS)}")
        longest = max(len(getattr(meaning, f.name)) for f in fields(Meaning) if f.type == tuple[str, ...])
        if longest > 2 + (len(meaning.birth_parts) == 3):
            wrong.append(f"{meaning.source_table} names more than two columns for one thing")
    if wrong:
        raise UsageError("BAD_MAPPING", f"{mapping.name}.toml: {'; '.join(wrong)}")
