"""What the hospital says must not be given to whom: its tables of interactions, contraindications and allergies.

CSV files in one folder, UTF-8, first line the column names, in any order:

    interactions.csv        a, b, severity, source: each blocks the other
    contraindications.csv   condition, treatment, severity, source
    allergies.csv           allergy, treatment, severity, source
    classes.csv             treatment, class: what the files above call by its class
    formulary.csv           treatment: may be listed by its classes while hardly anybody has had it (see `content`)

a, b and treatment are concepts of treatments, as in gold.rating, or classes; condition and allergy are concepts of
silver.event (kind condition, kind observation). Every line blocks, whatever its severity.
"""

import csv
import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from medpipe.errors import DataError, UsageError

# In rising order.
SEVERITIES = ("minor", "moderate", "major", "contraindicated")
CLASSES = "classes.csv"
FORMULARY = "formulary.csv"
# File -> why its lines block, and its columns beside severity and source: cause, treatment.
FILES = {
    "allergies.csv": ("allergy", ("allergy", "treatment")),
    "contraindications.csv": ("contraindication", ("condition", "treatment")),
    "interactions.csv": ("interaction", ("a", "b")),
}


@dataclass(frozen=True)
class SafetySettings:
    """Where the tables are, and how they are read.

    Attributes:
        folder: "" for none: then nothing but what a patient has already is kept out of a list.
        current_days: a medication counts as current for so many days after its end; one without an end is current.
        max_unknown_share: of the names a file uses, so many may be unknown to the lake before it is refused.
    """

    folder: str = ""
    current_days: int = 90
    max_unknown_share: float = 0.5


@dataclass(frozen=True)
class Line:
    """One line: a cause (treatment or class, condition, allergy) blocks a treatment (or class)."""

    cause: str
    treatment: str
    severity: str
    source: str


@dataclass(frozen=True)
class Table:
    """One file. names: every name it uses, sorted."""

    file: str
    reason: str
    sha256: str
    lines: tuple[Line, ...]

    @property
    def names(self) -> list[str]:
        return sorted({name for line in self.lines for name in (line.cause, line.treatment)})


@dataclass(frozen=True)
class Formulary:
    """What the hospital has to give: treatments, sorted, each once."""

    sha256: str = ""
    num_lines: int = 0
    treatments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tables:
    """What a folder holds. classes: class -> its treatments, sorted."""

    tables: tuple[Table, ...] = ()
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    formulary: Formulary = Formulary()


def read(folder: str) -> Tables:
    """The tables of a folder; none of "".

    Raises:
        UsageError: NO_SAFETY_TABLES.
        DataError: BAD_SAFETY_TABLE: unknown file, missing column, no lines, empty field, unknown severity, a pair twice
            (either way round for interactions), twice with unlike severities, a treatment that interacts with itself;
            the message names the lines, not what they say.
    """
    if not folder:
        return Tables()
    files = contents(folder)
    names = (*FILES, CLASSES, FORMULARY)
    if strange := sorted(set(files).difference(names)):
        raise _bad(", ".join(strange), f"is none of {', '.join(names)}; rename it or take it away")
    classes = _classes(files[CLASSES]) if CLASSES in files else {}
    found = tuple(_table(file, files[file], set(classes)) for file in FILES if file in files)
    members = {name: tuple(sorted(members)) for name, members in sorted(classes.items())}
    return Tables(found, members, _formulary(files[FORMULARY]) if FORMULARY in files else Formulary())


def contents(folder: str) -> dict[str, bytes]:
    """The CSV files of a folder by name.

    Raises:
        UsageError: NO_SAFETY_TABLES.
    """
    files = {path.name: path.read_bytes() for path in sorted(Path(folder).glob("*.csv"))}
    if not set(files) & {*FILES, FORMULARY}:
        names = ", ".join([*FILES, FORMULARY])
        raise UsageError("NO_SAFETY_TABLES", f"safety.folder {folder} holds none of {names}; name another or none")
    return files


def digest(folder: str) -> dict[str, str]:
    """File -> sha256, for the identity of the step that reads them."""
    return {name: hashlib.sha256(data).hexdigest() for name, data in contents(folder).items()} if folder else {}


def require_known(
    tables: Tables, known: Iterable[str], max_unknown_share: float
) -> list[tuple[str, str, int, int, int]]:
    """(file, sha256, lines, names, unknown names) of each table, and of the formulary.

    Args:
        known: names the lake has; others the tables use are unknown. A class is known by any of its treatments, and
            what the formulary names by any of its classes: nobody may have had it.
    Raises:
        DataError: UNKNOWN_SAFETY_CODES.
    """
    known, members = set(known), tables.classes
    told = []
    for table in tables.tables:
        unknown = [name for name in table.names if not known.intersection(members.get(name, (name,)))]
        told.append((table.file, table.sha256, len(table.lines), len(table.names), len(unknown)))
    if (formulary := tables.formulary).treatments:
        unknown = set(formulary.treatments).difference(known, *members.values())
        told.append((FORMULARY, formulary.sha256, formulary.num_lines, len(formulary.treatments), len(unknown)))
    too_many = [(file, unknown, names) for file, _, _, names, unknown in told if unknown > max_unknown_share * names]
    if too_many:
        found = "; ".join(f"{file}: {unknown} of {names} names" for file, unknown, names in too_many)
        raise DataError(
            "UNKNOWN_SAFETY_CODES",
            f"{found} stand neither in silver.concept nor in silver.event; expected at most {max_unknown_share:.0%}: "
            f"spell them as silver.concept does, add {CLASSES}, or raise safety.max_unknown_share",
        )
    return told


def _table(file: str, data: bytes, classes: set[str]) -> Table:
    reason, (cause, treatment) = FILES[file]
    rows = _rows(file, data, (cause, treatment, "severity", "source"))
    lines = [Line(row[cause], row[treatment], row["severity"], row["source"]) for row in rows]
    _refuse(file, lines, [line.severity not in SEVERITIES for line in lines], f"a severity not of {SEVERITIES}")
    if reason == "interaction":
        # Two treatments of one class may well interact, a treatment with itself cannot.
        is_self = [line.cause == line.treatment and line.cause not in classes for line in lines]
        _refuse(file, lines, is_self, "a treatment beside itself")
    pairs = [_pair(reason, line) for line in lines]
    severities = defaultdict(set)
    for pair, line in zip(pairs, lines, strict=True):
        severities[pair].add(line.severity)
    _refuse(file, lines, [len(severities[pair]) > 1 for pair in pairs], "a pair that has two severities")
    counts = Counter(pairs)
    _refuse(file, lines, [counts[pair] > 1 for pair in pairs], "a pair that stands there twice")
    return Table(file, reason, hashlib.sha256(data).hexdigest(), tuple(lines))


def _pair(reason: str, line: Line) -> tuple[str, str]:
    pair = (line.cause, line.treatment)
    return tuple(sorted(pair)) if reason == "interaction" else pair


def _classes(data: bytes) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for row in _rows(CLASSES, data, ("treatment", "class")):
        found[row["class"]].add(row["treatment"])
    return found


def _formulary(data: bytes) -> Formulary:
    names = [row["treatment"] for row in _rows(FORMULARY, data, ("treatment",))]
    return Formulary(hashlib.sha256(data).hexdigest(), len(names), tuple(sorted(set(names))))


def _rows(file: str, data: bytes, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The lines of a file, their fields without the blanks around them."""
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
            raise _bad(file, f"has no column {', '.join(missing)}; expected {', '.join(columns)}")
        rows = [{name: (row[name] or "").strip() for name in columns} for row in reader]
    except (UnicodeDecodeError, csv.Error) as failure:
        raise _bad(file, f"is not CSV in UTF-8 ({type(failure).__name__})") from None
    if not rows:
        raise _bad(file, "has no lines; take the file away if there is nothing of its kind")
    _refuse(file, rows, [not all(row.values()) for row in rows], "an empty field")
    return rows


def _refuse(file: str, lines: list, is_wrong: list[bool], what: str) -> None:
    """Raises where any line is wrong; the first line of a file has the names."""
    wrong = [number for number, (_, bad) in enumerate(zip(lines, is_wrong, strict=True), 2) if bad]
    if wrong:
        first = ", ".join(str(number) for number in wrong[:5])
        raise _bad(file, f"has {what} in {len(wrong)} lines (first: line {first}); correct the file")


def _bad(file: str, what: str) -> DataError:
    return DataError("BAD_SAFETY_TABLE", f"{file} {what}")
