"""What is asked of silver, and how many percent may fail: rules.toml, with the hospital's own thresholds over it."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import reduce
from importlib import resources

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from medpipe.errors import UsageError

# What a check is about, in ops.quality_count and gold.data_quality.
ABOUT = ("rule", "table", "column", "kind", "concept", "unit")
TYPES = {name: pa.string() for name in (*ABOUT, "check_id", "category", "sex")}


@dataclass(frozen=True)
class Rule:
    """One check of a silver column.

    Attributes:
        rule: check type of the OHDSI Data Quality Dashboard, e.g. plausibleAfterBirth.
        category: of Kahn et al.: Completeness, Conformance or Plausibility.
        kind: only events of that kind; None: all rows.
        concept, unit: only events of that concept, values in that unit; None: all.
        low, high: what the column may not be below or above, a number or a day. sex: the one the concept belongs to.
        threshold: percent of the rows asked that may fail.
    """

    rule: str
    category: str
    table: str
    column: str
    threshold: float
    kind: str | None = None
    concept: str | None = None
    unit: str | None = None
    low: float | date | None = None
    high: float | None = None
    sex: str | None = None

    @property
    def check_id(self) -> str:
        """Names the check: rule, table.column, then kind, concept and unit where it has them."""
        return " ".join([self.rule, f"{self.table}.{self.column}", *filter(None, (self.kind, self.concept, self.unit))])


@dataclass(frozen=True)
class OwnThreshold:
    """A hospital's threshold, in percent, for every check that has all of the named properties."""

    percent: float
    rule: str
    table: str | None = None
    column: str | None = None
    kind: str | None = None
    concept: str | None = None
    unit: str | None = None


@dataclass(frozen=True)
class QualitySettings:
    """thresholds: over those of rules.toml; of several that fit a check the last counts."""

    thresholds: tuple[OwnThreshold, ...] = ()


def shipped() -> tuple[Rule, ...]:
    """The rules that come with medpipe, in the order of the file."""
    raw = tomllib.loads(resources.files("medpipe.quality").joinpath("rules.toml").read_text("utf-8"))
    asked = [{"rule": entry.pop("name")} | entry for entry in raw["rule"]]
    asked += [one for entry in raw["concept"] for one in _of_concept(entry)]
    return tuple(Rule(**(raw["check"][entry["rule"]] | entry)) for entry in asked)


def with_thresholds(rules: Sequence[Rule], settings: QualitySettings) -> tuple[Rule, ...]:
    """The rules under a hospital's own thresholds.

    Raises:
        UsageError: BAD_THRESHOLD (no percent), UNKNOWN_RULE (one that fits no check).
    """
    for own in settings.thresholds:
        if not 0 <= own.percent <= 100:
            raise UsageError("BAD_THRESHOLD", f"quality.thresholds: {own.percent} for {own.rule}; expected 0 to 100")
        if not any(_fits(own, rule) for rule in rules):
            named = ", ".join(f"{name} {getattr(own, name)}" for name in ABOUT if getattr(own, name) is not None)
            known = ", ".join(sorted({rule.rule for rule in rules}))
            raise UsageError(
                "UNKNOWN_RULE",
                f"quality.thresholds: no check has {named}; rules are {known}; see gold.data_quality for the rest",
            )
    return tuple(reduce(_under, settings.thresholds, rule) for rule in rules)


def judged(counts: DataFrame, rules: Sequence[Rule]) -> DataFrame:
    """Counts with category, share and threshold (percent) and status, one row per check.

    Args:
        counts: check_id, num_rows, num_failed and more; checks that are no longer among the rules are left out.
    Returns:
        status: fail where more than threshold percent of the rows asked failed, pass where not, not_applicable where
        no row was asked; share is null there.
    """
    told = frame_of(counts.sparkSession, rules, ("check_id", "category", "threshold"))
    joined = counts.join(F.broadcast(told), on="check_id", how="inner")
    is_over = F.col("num_failed") * 100 > F.col("threshold") * F.col("num_rows")
    status = F.when(F.col("num_rows") == 0, "not_applicable").when(is_over, "fail").otherwise("pass")
    share = F.when(F.col("num_rows") > 0, F.col("num_failed") * 100 / F.col("num_rows"))
    return joined.withColumns({"share": share, "status": status})


def frame_of(spark: SparkSession, rules: Sequence[Rule], columns: Sequence[str], **more: list[int]) -> DataFrame:
    """Attributes of the rules as a table, a row each; low, high and threshold are doubles.

    Args:
        more: further columns, an integer for each rule.
    """
    told = [(name, TYPES.get(name, pa.float64()), [getattr(rule, name) for rule in rules]) for name in columns]
    told += [(name, pa.int32(), numbers) for name, numbers in more.items()]
    # Arrow rows are planned as they are; Python objects would take a job of their own.
    return spark.createDataFrame(pa.table({name: pa.array(values, kind) for name, kind, values in told}))


def _of_concept(entry: dict) -> list[dict]:
    """The rules of one concept; see rules.toml."""
    asked = {"table": "silver.event", "concept": entry["concept"]}
    if "sex" in entry:
        return [asked | {"rule": "plausibleGender", "column": "concept", "sex": entry["sex"]}]
    asked["unit"] = entry["unit"]
    return [
        asked | rule | {"concept": concept}
        for concept in (entry["concept"], *([f"LOINC:{entry['loinc']}"] if "loinc" in entry else []))
        for rule in (
            {"rule": "plausibleValueLow", "column": "value", "low": entry["low"]},
            {"rule": "plausibleValueHigh", "column": "value", "high": entry["high"]},
            {"rule": "plausibleUnitConceptIds", "column": "unit"},
        )
    ]


def _fits(own: OwnThreshold, rule: Rule) -> bool:
    return all(getattr(own, name) in (None, getattr(rule, name)) for name in ABOUT)


def _under(rule: Rule, own: OwnThreshold) -> Rule:
    return replace(rule, threshold=own.percent) if _fits(own, rule) else rule
