"""Safety tables as arrays over a catalogue of treatments: what in a record blocks what, and what blocks each other.

C causes, M treatments of the catalogue.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from medpipe.recommend.safety import SEVERITIES, Line, Tables

# Reason -> kind of the events of silver that hold its causes.
KINDS = {"allergy": "observation", "contraindication": "condition", "interaction": "drug"}
# Of a treatment that a better one of the same list blocks.
IN_LIST = "interaction_in_list"


@dataclass(frozen=True)
class Rules:
    """What blocks what.

    Attributes:
        causes: (reason, concept), sorted; only those that block a treatment of the catalogue.
        blocks: bool (C, M), whether the cause blocks the treatment.
        together: bool (M + 1, M + 1), symmetric: may not stand in one list; nothing clashes with place M.
    """

    causes: list[tuple[str, str]]
    blocks: np.ndarray
    together: np.ndarray


def pairs_of(tables: Tables, treatments: list[str]) -> dict[tuple[str, str, str], tuple[str, str]]:
    """(reason, cause, treatment) -> (severity, source) for every treatment of a catalogue that something blocks.

    Classes are put out into their treatments, and interactions hold in both directions. A pair that several lines
    speak of has the gravest severity, then the first source by name.
    """
    catalogue, members = set(treatments), tables.classes
    found: dict[tuple[str, str, str], tuple[str, str]] = {}
    for table in tables.tables:
        for line in table.lines:
            for cause, treatment in _pairs(table.reason, line, members):
                if treatment in catalogue:
                    key, told = (table.reason, cause, treatment), (line.severity, line.source)
                    found[key] = min(told, found.get(key, told), key=_gravity)
    return found


def rules_of(pairs: Collection[tuple[str, str, str]], treatments: list[str]) -> Rules:
    """Pairs, as `pairs_of` gives them, as arrays over the catalogue."""
    column = {name: place for place, name in enumerate(treatments)}
    causes = sorted({(reason, cause) for reason, cause, _ in pairs})
    number = {cause: place for place, cause in enumerate(causes)}
    blocks = np.zeros((len(causes), len(treatments)), bool)
    together = np.zeros((len(treatments) + 1,) * 2, bool)
    for reason, cause, treatment in pairs:
        blocks[number[reason, cause], column[treatment]] = True
        if reason == "interaction" and cause in column:
            together[column[cause], column[treatment]] = True
    return Rules(causes, blocks, together)


def with_causes(rows: DataFrame, events: DataFrame, rules: Rules, as_of: datetime, current_days: int) -> DataFrame:
    """What blocks something for each patient.

    Args:
        rows: patient_id, unique.
        events: silver.event as known at as_of; reads patient_id, kind, concept and ended_at. Allergies and conditions
            count for good; a medication counts until current_days after its end, for good where that is unknown.
    Returns:
        The columns of rows and causes (array<int>, places in rules.causes, rising; empty for none).
    """
    reasons, concepts = zip(*rules.causes, strict=True) if rules.causes else ((), ())
    columns = [[KINDS[reason] for reason in reasons], list(concepts), np.arange(len(concepts), dtype="i4")]
    schema = pa.schema([("kind", pa.string()), ("concept", pa.string()), ("cause", pa.int32())])
    causes = rows.sparkSession.createDataFrame(pa.table(columns, schema=schema))
    is_over = (F.col("kind") == "drug") & (F.col("ended_at") < F.lit(as_of - timedelta(days=current_days)))
    standing = events.where(~F.coalesce(is_over, F.lit(False))).select("patient_id", "kind", "concept")
    found = standing.join(F.broadcast(causes), on=["kind", "concept"], how="inner").groupBy("patient_id")
    held = found.agg(F.array_sort(F.collect_set("cause")).alias("causes"))
    joined = rows.join(held, on="patient_id", how="left")
    return joined.withColumn("causes", F.coalesce("causes", F.array().cast("array<int>")))


def _pairs(reason: str, line: Line, members: dict[str, tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    """(cause, treatment) of a line, classes put out into their treatments; interactions in both directions."""
    causes = members.get(line.cause, (line.cause,)) if reason == "interaction" else (line.cause,)
    for cause in causes:
        for treatment in members.get(line.treatment, (line.treatment,)):
            if reason != "interaction":
                yield cause, treatment
            elif cause != treatment:
                yield cause, treatment
                yield treatment, cause


def _gravity(told: tuple[str, str]) -> tuple[int, str]:
    severity, source = told
    return -SEVERITIES.index(severity), source
