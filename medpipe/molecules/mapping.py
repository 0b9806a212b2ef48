"""What the columns of delivered files of molecules mean: a small TOML, in the delivery or shipped for a known data set.

A table for each file, named by its path in the delivery (or a pattern: `*` and `?`); columns in either case:

    ["results.csv.gz"]
    smiles = "structure"        # without it: a column named smiles, canonical_smiles or mol
    id = "compound"             # the source's own name of a molecule, where it has one
    measured."IC50" = { assay = "EGFR IC50", unit = "nM", relation_column = "standard_relation" }
    measured."active" = { assay = "EGFR active", kind = "class" }

Columns that are not named are kept in bronze and go no further.
"""

import math
import tomllib
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path

from medpipe.errors import UsageError

NAME = "molecules.toml"
SHIPPED = ("mol_activity", "mol_moleculenet")
KINDS = ("regression", "class")
RELATIONS = ("=", "<", ">", "<=", ">=", "~")


@dataclass(frozen=True)
class Measured:
    """A column of measurements.

    Attributes:
        column: its name, lower case.
        assay: what was measured; one kind, unit and tolerance for an assay, in however many files it stands.
        kind: regression: a number; class: 0 or 1.
        unit: of the number, where it has one.
        relation: between what was measured and the number given, e.g. > for one beyond the range of the assay.
        relation_column: where a row's own relation stands, lower case; "": `relation` holds for all.
        tolerance: values of one molecule that lie further apart contradict each other.
    """

    column: str
    assay: str
    kind: str = "regression"
    unit: str | None = None
    relation: str = "="
    relation_column: str = ""
    tolerance: float = 0.0


@dataclass(frozen=True)
class FileMapping:
    """Columns of the files whose names match `pattern`, lower case; None: not told."""

    pattern: str
    smiles: str | None = None
    id: str | None = None
    measured: tuple[Measured, ...] = ()

    @property
    def columns(self) -> set[str]:
        """Every column it names."""
        relations = {m.relation_column for m in self.measured}
        return ({self.smiles, self.id} | relations | {m.column for m in self.measured}) - {None, ""}


def shipped(name: str) -> str:
    """The TOML that comes with medpipe for a public data set of SHIPPED."""
    return resources.files("medpipe.molecules").joinpath(f"{name}.toml").read_text("utf-8")


def text_of(given: str, delivered: Path | None) -> str:
    """Text of the mapping that is asked for: shipped, a file, or "delivery": the delivery's own, "" where it has none.

    Raises:
        UsageError: NO_MAPPING.
    """
    if given in SHIPPED:
        return shipped(given)
    path = delivered if given == "delivery" else Path(given)
    if path is None:
        return ""
    if not path.is_file():
        raise UsageError("NO_MAPPING", f"--mapping {given} is no file; expected one, or one of {', '.join(SHIPPED)}")
    return path.read_text("utf-8")


def parse(text: str) -> tuple[FileMapping, ...]:
    """The mappings of a TOML.

    Raises:
        UsageError: BAD_MAPPING, with what is wrong.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as failure:
        raise UsageError("BAD_MAPPING", f"the mapping is not TOML: {failure}") from None
    mappings = tuple(_file(pattern, table) for pattern, table in raw.items())
    of_assay: dict[str, tuple] = {}
    for measured in (m for mapping in mappings for m in mapping.measured):
        told = (measured.kind, measured.unit, measured.tolerance)
        if of_assay.setdefault(measured.assay, told) != told:
            raise UsageError(
                "BAD_MAPPING", f"assay {measured.assay!r} is given twice with different kind, unit or tolerance"
            )
    return mappings


def mapping_of(file: str, mappings: tuple[FileMapping, ...]) -> FileMapping | None:
    """The one mapping whose pattern a file's name matches.

    Raises:
        UsageError: BAD_MAPPING where several do.
    """
    found = [mapping for mapping in mappings if fnmatchcase(file, mapping.pattern)]
    if len(found) > 1:
        raise UsageError(
            "BAD_MAPPING", f"{file} matches {' and '.join(repr(mapping.pattern) for mapping in found)}; expected one"
        )
    return found[0] if found else None


def _file(pattern: str, raw: object) -> FileMapping:
    if not isinstance(raw, dict):
        raise UsageError("BAD_MAPPING", f'{pattern!r} stands outside the table of a file, e.g. ["results.csv"]')
    _require(f"[{pattern!r}]", raw, {"smiles": str, "id": str, "measured": dict})
    measured = tuple(_measured(pattern, column, told) for column, told in raw.get("measured", {}).items())
    assays = [m.assay for m in measured]
    if len(set(assays)) < len(assays):
        raise UsageError("BAD_MAPPING", f"[{pattern!r}]: an assay has one column in a file")
    smiles, identity = (raw[name].lower() if name in raw else None for name in ("smiles", "id"))
    return FileMapping(pattern, smiles, identity, measured)


def _measured(pattern: str, column: str, raw: object) -> Measured:
    place = f"[{pattern!r}] measured.{column!r}"
    kinds = {field.name: float if field.name == "tolerance" else str for field in fields(Measured)[1:]}
    if not isinstance(raw, dict) or "assay" not in raw:
        raise UsageError("BAD_MAPPING", f"{place}: expected a table with an assay")
    told = {name: float(value) if name == "tolerance" and type(value) is int else value for name, value in raw.items()}
    _require(place, told, kinds)
    measured = Measured(column.lower(), **told | {"relation_column": told.get("relation_column", "").lower()})
    if measured.kind not in KINDS or measured.relation not in RELATIONS:
        raise UsageError("BAD_MAPPING", f"{place}: kind is one of {KINDS}, relation one of {RELATIONS}")
    if not 0 <= measured.tolerance < math.inf:
        raise UsageError("BAD_MAPPING", f"{place}: tolerance is a number from 0 on")
    if measured.kind == "class" and (measured.relation != "=" or measured.relation_column or measured.tolerance):
        raise UsageError("BAD_MAPPING", f"{place}: a class has no relation and no tolerance")
    return measured


def _require(place: str, raw: dict, kinds: dict[str, type]) -> None:
    wrong = [name for name, value in raw.items() if not isinstance(value, kinds.get(name, ()))]
    if wrong:
        expected = ", ".join(f"{name} ({kind.__name__})" for name, kind in kinds.items())
        raise UsageError("BAD_MAPPING", f"{place}: {', '.join(sorted(wrong))} not understood; expected {expected}")
