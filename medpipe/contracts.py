"""Tables as `schemas/` describes them: the one source of every column, type, check and meaning."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StructField, StructType

from medpipe.errors import ContractError

RUN_ID = {"name": "run_id", "type": "string", "doc": "The run that wrote the row; joins ops.run"}


@dataclass(frozen=True)
class Check:
    """A rule every row keeps: `sql` is true (or null, as in SQL's CHECK); `code` names its failure."""

    code: str
    sql: str


@dataclass(frozen=True)
class Disclosed:
    """A column of a published table: `rule` (see privacy/disclosure.py) makes it of the column `source`."""

    name: str
    rule: str
    source: str


@dataclass(frozen=True)
class Contract:
    """One table.

    Attributes:
        name: zone and table, e.g. gold.score; zones phi and bronze live under the PHI root,
            safe_harbor and limited under the published one.
        key: columns that name a row.
        partition_by: columns a write replaces by.
        is_bitemporal: append-only versions of records; a read keeps the last known of each key.
        struct: the columns with types, nullability and `comment` metadata; ends with run_id but in the ledger.
        checks: NOT NULL and value rules, in the order of the TOML.
        view: SQL of a view; such a contract has no columns of its own.
        of: of a published table, the table of the lake whose rows it has.
        label: of a published table, how far it is without identity, and what its use asks for.
        disclosed: of a published table, every column but run_id; of others none.
    """

    name: str
    doc: str
    key: tuple[str, ...]
    partition_by: tuple[str, ...]
    is_bitemporal: bool
    struct: StructType
    checks: tuple[Check, ...]
    view: str | None
    of: str | None
    label: str | None
    disclosed: tuple[Disclosed, ...]


def names() -> list[str]:
    """Every contract, as zone.table, sorted."""
    root = resources.files("medpipe.schemas")
    zones = [entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("_")]
    return sorted(
        f"{zone.name}.{file.name.removesuffix('.toml')}"
        for zone in zones
        for file in zone.iterdir()
        if file.name.endswith(".toml")
    )


@cache
def load(name: str) -> Contract:
    """The contract of a table.

    Raises:
        ContractError: UNKNOWN_TABLE.
    """
    if name not in names():
        raise ContractError("UNKNOWN_TABLE", f"no contract {name!r}; expected one of {', '.join(names())}")
    zone, table = name.split(".")
    raw = tomllib.loads(resources.files("medpipe.schemas").joinpath(zone, f"{table}.toml").read_text("utf-8"))
    has_run_id = "view" not in raw and not raw.get("is_ledger", False)
    columns = raw["columns"] + ([RUN_ID] if has_run_id else [])
    return Contract(
        name=name,
        doc=raw["doc"],
        key=tuple(raw.get("key", ())),
        partition_by=tuple(raw.get("partition_by", ())),
        is_bitemporal=raw.get("is_bitemporal", False),
        struct=StructType([_field(column) for column in columns]),
        checks=tuple(_checks(columns, raw.get("checks", []))),
        view=raw.get("view"),
        of=raw.get("of"),
        label=raw.get("label"),
        disclosed=tuple(_disclosed(column) for column in raw["columns"] if "of" in raw),
    )


def _field(column: dict) -> StructField:
    return StructField.fromJson(
        {
            "name": column["name"],
            "type": column["type"],
            "nullable": column.get("nullable", False),
            "metadata": {"comment": column["doc"]},
        }
    )


def _disclosed(column: dict) -> Disclosed:
    """No default for the rule: a column whose way out nobody has thought about stops every publication."""
    return Disclosed(column["name"], column["rule"], column.get("from", column["name"]))


def _checks(columns: list[dict], table_checks: list[dict]) -> list[Check]:
    found = []
    for column in columns:
        name = column["name"]
        if not column.get("nullable", False):
            found.append(Check(column.get("code", f"MISSING_{name.upper()}"), f"{name} is not null"))
        if "check" in column:
            found.append(Check(column.get("code", f"BAD_{name.upper()}"), column["check"]))
    return found + [Check(check["code"], check["sql"]) for check in table_checks]


def violations(name: str) -> Column:
    """array<string>: codes of the checks a row breaks, sorted, each once; empty for a good row.

    A check that is null (its column is null) holds, as in SQL: NOT NULL is a check of its own. run_id, which
    the write stamps, is not asked for.
    """
    is_broken: dict[str, Column] = {}
    for check in load(name).checks:
        if not check.sql.startswith("run_id "):
            fails = ~F.coalesce(F.expr(check.sql), F.lit(True))
            is_broken[check.code] = is_broken[check.code] | fails if check.code in is_broken else fails
    return codes(*[F.when(is_broken[code], code) for code in sorted(is_broken)])


def codes(*found: Column) -> Column:
    """array<string> of the codes that are not null, in the order given.

    Not by array_compact: that is a lambda, and what stands under one Spark reads out row by row and does not compile.
    """
    return F.array_remove(F.array(*[F.coalesce(code, F.lit("")) for code in found]), "")


def conform(frame: DataFrame, name: str) -> DataFrame:
    """The frame with exactly the contract's columns, in its order and with its comments. Repairs nothing.

    Raises:
        ContractError: SCHEMA_MISMATCH, naming every missing, unknown and wrongly typed column at once.
    """
    want = {field.name: field for field in load(name).struct}
    have = {field.name: field for field in frame.schema}
    wrong = [f"missing {column}" for column in want if column not in have]
    wrong += [f"unknown {column}" for column in have if column not in want]
    wrong += [
        f"{column} is {have[column].dataType.simpleString()}, expected {want[column].dataType.simpleString()}"
        for column in want
        if column in have and have[column].dataType.simpleString() != want[column].dataType.simpleString()
    ]
    if wrong:
        raise ContractError("SCHEMA_MISMATCH", f"{name}: {'; '.join(wrong)}; change the transform or schemas/")
    return frame.select([F.col(field.name).alias(field.name, metadata=field.metadata) for field in want.values()])


def gained(name: str, have: StructType) -> list[StructField]:
    """Columns of the contract that a table made by an older medpipe lacks, in the contract's order; all may be null.

    Raises:
        ContractError: OLD_TABLE where it lacks one that may not be null, or has one of another type.
    """
    found = {field.name: field.dataType.simpleString() for field in have}
    missing = [field for field in load(name).struct if field.name not in found]
    wrong = [f"it lacks {field.name}, which may not be null" for field in missing if not field.nullable]
    wrong += [
        f"{field.name} is {found[field.name]}, expected {field.dataType.simpleString()}"
        for field in load(name).struct
        if found.get(field.name, field.dataType.simpleString()) != field.dataType.simpleString()
    ]
    if wrong:
        told = f"{name} was made by another version of medpipe: {'; '.join(wrong)}"
        raise ContractError("OLD_TABLE", f"{told}; load the deliveries into a new lake, or go on with that version")
    return missing


def latest(records: DataFrame, key: tuple[str, ...]) -> DataFrame:
    """The last known version of each record: largest known_at, ties by delivery_id.

    One delivery must not hold a key twice (standardise sees to it). A night adds little to what is there, so the
    superseded versions are taken out by an anti-join with the later deliveries' keys, not by sorting everything.
    """
    version = F.struct(F.unix_micros("known_at").alias("at"), F.col("delivery_id").alias("delivery"))
    first = records.agg(F.min(version)).first()[0]
    if first is None:
        return records
    start = F.struct(F.lit(first.at).alias("at"), F.lit(first.delivery).alias("delivery"))
    later = records.where(version > start).select(
        *[F.col(column).alias(f"_later_{column}") for column in key], version.alias("_later_version")
    )
    same = F.lit(True)
    for column in key:
        same = same & (F.col(column) == F.col(f"_later_{column}"))
    return records.join(later, on=same & (F.col("_later_version") > version), how="left_anti")
