"""What may leave the hospital, and in which form: each column of a published table by the rule of its contract.

Source: HIPAA Privacy Rule, 45 CFR 164.514(b): Safe Harbor, (2), and expert determination, (1).
"""

import hmac
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib import resources

import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import DateType

from medpipe.contracts import Contract, Disclosed
from medpipe.errors import ContractError

MODES = ("safe_harbor", "limited")
NAMESPACE = "published"
MAX_AGE = 89


@dataclass(frozen=True)
class Release:
    """One publication.

    Attributes:
        as_of: logical date.
        timezone: the hospital's, for calendar days.
        hide: a pseudonym of the lake -> that of the mode.
        shift: the lake's patient_id -> days that the patient's dates are moved by.
    """

    as_of: date
    timezone: str
    hide: Callable[[Column], Column]
    shift: Callable[[Column], Column]


def released(rows: DataFrame, contract: Contract, release: Release) -> DataFrame:
    """The columns of a published table, each as its rule says, and none beside them.

    In the order of the table's key: that of the lake would tell in which order the rows came.

    Args:
        rows: of the table `contract.of`, as known at as_of; reads patient_id where a rule is `shifted`.
    Raises:
        ContractError: UNKNOWN_RULE.
    """
    dated = rows.withColumn("as_of", F.lit(release.as_of))
    found = dated.select([_ruled(dated, column, contract, release).alias(column.name) for column in contract.disclosed])
    return found.repartition(*contract.key).sortWithinPartitions(*contract.key)


def purpose(mode: str) -> str:
    """Of the subkey for a mode's pseudonyms: they join neither the lake's nor those of the other mode."""
    return f"publish/{mode}"


def shifter(subkey: bytes, max_days: int) -> Callable[[Column], Column]:
    """A function from patient_id to whole days, as `shift_days`; the subkey stands in no plan."""

    @F.pandas_udf("int")
    def shifts(patient_ids: pd.Series) -> pd.Series:
        return patient_ids.map(lambda patient_id: shift_days(subkey, patient_id, max_days))

    return shifts


def shift_days(subkey: bytes, patient_id: str, max_days: int) -> int:
    """From -max_days to max_days, never 0; one for each patient and key, so that intervals are kept."""
    place = int.from_bytes(hmac.digest(subkey, patient_id.encode(), "sha256")[:8]) % (2 * max_days)
    return place - max_days + (place >= max_days)


def zip3(postcode: Column) -> Column:
    """The first three digits of five; 000 where 20,000 people or fewer live (zip3.toml); null for other texts."""
    digits = F.left(F.when(postcode.rlike(r"^[0-9]{5}$"), postcode), F.lit(3))
    return F.when(digits.isin(*withheld_zip3()), "000").otherwise(digits)


@cache
def withheld_zip3() -> tuple[str, ...]:
    """Three digits that do not leave: of areas that are too small, and of those the census does not know."""
    raw = tomllib.loads(resources.files("medpipe.privacy").joinpath("zip3.toml").read_text("utf-8"))
    return tuple(sorted(raw["small"] + raw["uncounted"]))


def _ruled(rows: DataFrame, column: Disclosed, contract: Contract, release: Release) -> Column:
    if column.rule == "label":
        return F.lit(contract.label)
    given = F.col(column.source)
    match column.rule:
        case "same":
            return given
        case "pseudonym":
            return release.hide(given)
        case "zip3":
            return zip3(given)
    is_date = isinstance(rows.schema[column.source].dataType, DateType)
    day = given if is_date else F.to_date(F.from_utc_timestamp(given, release.timezone))
    # The birthday of the year counts as reached: rather a year too early for 90 than one too late.
    age = F.lit(release.as_of.year) - F.year(day)
    match column.rule:
        case "year":
            return F.year(day)
        case "shifted":
            return F.date_add(day, release.shift(F.col("patient_id")))
        case "birth_year":
            return F.when(age <= MAX_AGE, F.year(day))
        case "age":
            return F.when(age <= MAX_AGE, age.cast("string")).otherwise(f"{MAX_AGE + 1}+")
    raise ContractError("UNKNOWN_RULE", f"{contract.name}: {column.name} has the rule {column.rule!r}; nothing left")
