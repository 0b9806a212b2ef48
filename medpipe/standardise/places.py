"""Where a patient lives, as far as silver keeps it: state (places.toml) and ZIP code, of the United States alone."""

import tomllib
from functools import cache
from importlib import resources

from pyspark.sql import Column
from pyspark.sql import functions as F

from medpipe.standardise import values


def state(text: Column) -> Column:
    """The USPS code of a state given by code or name, in either case; null for any other text."""
    return values.lookup(_states(), F.upper(F.trim(text)))


def postcode(text: Column, of_state: Column) -> Column:
    """The first five digits of a ZIP or ZIP+4 code; null for other forms.

    Args:
        of_state: text as for `state`. Without one five digits may be another country's postcode: null.
    """
    digits = F.regexp_extract(text, r"^\s*(\d{5})(-?\d{4})?\s*$", 1)
    return F.when(state(of_state).isNotNull(), F.nullif(digits, F.lit("")))


@cache
def _states() -> dict[str, str]:
    """Names and codes, upper case -> code."""
    raw = tomllib.loads(resources.files("medpipe.standardise").joinpath("places.toml").read_text("utf-8"))
    return raw["states"] | {code: code for code in raw["states"].values()}
