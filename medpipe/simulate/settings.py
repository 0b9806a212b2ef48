"""What hospital to simulate."""

from dataclasses import dataclass
from datetime import date, timedelta

from medpipe.errors import UsageError

MAX_PATIENTS = 2_000_000


@dataclass(frozen=True)
class HospitalSettings:
    """The same settings write the same bytes; patient i is the same in a hospital of any size.

    Attributes:
        num_patients: patients known after the last night.
        seed: of all chance.
        num_nights: deliveries, one per night; the first holds all history.
        first_night: day of the first delivery; its as_of, an exclusive upper bound, is the day after.
        time_at_risk_days: length of the window after an index date in which the outcome counts.
        observation_days: days a patient must have been observed before the index date.
        timezone: IANA name of the zone of all local times.
    """

    num_patients: int
    seed: int = 1
    num_nights: int = 2
    first_night: date = date(2026, 1, 30)
    time_at_risk_days: int = 90
    observation_days: int = 365
    timezone: str = "Europe/Vienna"

    def __post_init__(self) -> None:
        """Raises UsageError BAD_HOSPITAL."""
        limits = {"num_patients": (1, MAX_PATIENTS), "num_nights": (1, 366), "time_at_risk_days": (2, 365)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise UsageError("BAD_HOSPITAL", f"{name} is {getattr(self, name)}; expected {low} to {high}")

    @property
    def nights(self) -> tuple[date, ...]:
        return tuple(self.first_night + timedelta(days=night) for night in range(self.num_nights))

    @property
    def last_as_of(self) -> date:
        """Exclusive upper bound of all that was delivered."""
        return self.nights[-1] + timedelta(days=1)

    @property
    def index_dates(self) -> dict[str, date]:
        """fit: the outcome is known at last_as_of. apply: it is still to come."""
        return {"fit": self.last_as_of - timedelta(days=self.time_at_risk_days), "apply": self.last_as_of}
