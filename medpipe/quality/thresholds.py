"""How much of a delivery may be bad before nothing of it is published."""

from collections.abc import Callable
from dataclasses import dataclass

from medpipe.errors import DataError
from medpipe.quality.balance import Counts


@dataclass(frozen=True)
class Threshold:
    """Limits for one source; the first one passed stops the delivery.

    Attributes:
        max_bad_ratio: quarantined rows / (delivered rows - exact duplicates).
        max_bad_rows: quarantined rows; None: no limit.
        max_unknown_columns: columns that the mapping does not name; None: no limit.
        max_withdrawn_ratio: of any table, known records that a snapshot no longer holds / known records.
    """

    max_bad_ratio: float = 0.05
    max_bad_rows: int | None = None
    max_unknown_columns: int | None = None
    max_withdrawn_ratio: float = 0.2


def require(thresholds: dict[str, Threshold], source: str, counts: Counts) -> None:
    """Raises DataError TOO_MANY_BAD_ROWS, with the counts by reason, where a limit of the source is passed."""
    threshold = thresholds.get(source, Threshold())
    num_bad = counts.rows["quarantined"]
    num_judged = num_bad + counts.rows["accepted"]
    over_ratio = num_judged > 0 and num_bad / num_judged > threshold.max_bad_ratio
    over_rows = threshold.max_bad_rows is not None and num_bad > threshold.max_bad_rows
    if over_ratio or over_rows:
        ordered = sorted(counts.reasons.items(), key=lambda item: -item[1])
        told = ", ".join(f"{code} {count}" for code, count in ordered)
        allowed = f"{threshold.max_bad_ratio:.1%}" + (f" and {threshold.max_bad_rows} rows" if over_rows else "")
        raise DataError(
            "TOO_MANY_BAD_ROWS",
            f"{source}: {num_bad} of {num_judged} rows quarantined ({told}); thresholds.{source} allows {allowed}; "
            "nothing was published. See phi.quarantine, and for records whose columns changed phi.schema_drift; "
            "ask for a new delivery or raise the threshold",
        )


def require_columns(thresholds: dict[str, Threshold], source: str, count: Callable[[], int]) -> None:
    """Raises DataError SCHEMA_DRIFT where a delivery has more columns unknown to the mapping than the source may.

    Args:
        count: counts the unknown columns; not asked where the source has no limit.
    """
    limit = thresholds.get(source, Threshold()).max_unknown_columns
    if limit is not None and (num_unknown := count()) > limit:
        raise DataError(
            "SCHEMA_DRIFT",
            f"{source}: {num_unknown} columns are not named by the mapping; thresholds.{source} allows "
            f"max_unknown_columns {limit}; nothing was published. phi.schema_drift lists them: name them in the "
            "mapping, or raise the threshold",
        )


def require_snapshot(thresholds: dict[str, Threshold], source: str, counts: dict[str, tuple[int, int]]) -> None:
    """Raises DataError TOO_MANY_WITHDRAWN where a snapshot lacks more of a table's records than the source may lose.

    Args:
        counts: delivered table -> records known before, and those of them that it does not hold.
    """
    limit = thresholds.get(source, Threshold()).max_withdrawn_ratio
    over = {table: numbers for table, numbers in counts.items() if numbers[1] > limit * numbers[0]}
    if over:
        told = ", ".join(f"{table} {absent} of {known}" for table, (known, absent) in sorted(over.items()))
        raise DataError(
            "TOO_MANY_WITHDRAWN",
            f"{source}: the snapshot lacks known records of {told}; thresholds.{source} allows "
            f"max_withdrawn_ratio {limit:.1%}; nothing was published. Ask for a whole snapshot; raise the threshold if "
            "the hospital did withdraw them, or deliver without is_snapshot",
        )
