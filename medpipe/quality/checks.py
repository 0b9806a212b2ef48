"""Rows that keep their contract and rows that do not, with every reason."""

from pyspark.sql import Column
from pyspark.sql import functions as F

from medpipe import contracts


def with_violations(name: str) -> Column:
    """array<string>: `faults`, and the codes of the checks of a silver table that the row breaks."""
    return F.array_union("faults", contracts.violations(name))


def reasons(*more: Column) -> Column:
    """array<string>: codes of all that is wrong with a row, sorted; empty for a good one. Reads `faults`.

    A line that could not be split has FIELD_COUNT and no other reason, since nothing in it stands where it should.

    Args:
        more: further codes, null where they do not apply.
    """
    every = F.array_sort(F.array_union("faults", F.array_compact(F.array(*more))))
    return F.when(F.array_contains("faults", "FIELD_COUNT"), F.array(F.lit("FIELD_COUNT"))).otherwise(every)
