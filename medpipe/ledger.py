"""What ran, on what, with what outcome: step identity and the rows of ops.run."""

import hashlib
import json
from dataclasses import dataclass, field
from datetime import date, datetime

from medpipe import __version__, contracts
from medpipe.tables import Lake, Written


@dataclass(frozen=True)
class Entry:
    """One row of ops.run; see its contract."""

    run_id: str
    job: str
    as_of: date | None
    known_at: datetime | None
    target: str
    status: str
    error_code: str | None
    inputs: list[tuple[str, int]]
    outputs: list[Written]
    rows_in: int | None
    rows_out: int | None
    rows_quarantined: int | None
    rows_duplicate: int | None
    key_fingerprint: str | None
    settings_sha256: str
    code_version: str
    seconds: float
    finished_at: datetime


def target_of(partition: dict) -> str:
    """as_of=2026-01-31/role=fit: how ops.run spells the partition a step replaces."""
    return "/".join(f"{column}={value}" for column, value in sorted(partition.items()))


def partition_of(target: str) -> dict[str, str]:
    """The inverse of target_of, values as text."""
    return dict(part.split("=", 1) for part in target.split("/")) if target else {}


def digest(content: object) -> str:
    """SHA-256 of a JSON value, hex."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def identity(job: str, target: str, inputs: dict, settings: dict, extra: dict) -> str:
    """run_id: what the step's result is a function of, and nothing else.

    Inputs are the run_ids of the runs whose rows are read, not Delta versions: a rerun after a crash may give the same
    content another version, never another run_id.
    """
    parts = {"job": job, "target": target, "inputs": inputs, "settings": settings, "extra": extra, "code": __version__}
    return digest(parts)[:16]


@dataclass
class Ledger:
    """ops.run, read once and kept as it grows. Small: a dozen rows a night."""

    lake: Lake
    entries: list[Entry] = field(default_factory=list)

    @classmethod
    def open(cls, lake: Lake) -> "Ledger":
        rows = lake.read("ops.run").collect() if lake.exists("ops.run") else []
        entries = [Entry(**{name: row[name] for name in Entry.__dataclass_fields__}) for row in rows]
        return cls(lake, sorted(entries, key=lambda entry: entry.finished_at.timestamp()))

    def last(self, job: str, target: str) -> Entry | None:
        """The newest word on a step, or None. Only after `done` do its tables hold what that run wrote."""
        told = [entry for entry in self.entries if entry.job == job and entry.target == target]
        return told[-1] if told else None

    def runs_behind(
        self, table: str, as_of: date | None, before: tuple[float, str] | None, partition: dict
    ) -> list[str]:
        """run_ids of the runs whose rows make up what a step reads from a table, sorted.

        Args:
            as_of: rows of this logical date.
            before: rows of deliveries that came before this one: seconds since 1970 and delivery_id.
            partition: rows that do not contradict these columns.
        """
        newest: dict[tuple, Entry] = {}
        for entry in self.entries:
            if entry.status == "done" and any(out[0] == table for out in entry.outputs):
                newest[(entry.job, entry.target)] = entry
        wanted = {column: str(value) for column, value in partition.items()} | ({"as_of": str(as_of)} if as_of else {})
        seen = []
        for entry in newest.values():
            told = partition_of(entry.target)
            came = entry.known_at and (entry.known_at.timestamp(), told["delivery_id"])
            in_time = before is None or came is None or came < before
            if in_time and all(told.get(column, value) == value for column, value in wanted.items()):
                seen.append(entry.run_id)
        return sorted(seen)

    def append(self, entry: Entry) -> None:
        """Writes the row that says a run ended; for a finished run this is the last commit."""
        columns = contracts.load("ops.run").struct.names
        self.lake.log([tuple(getattr(entry, column) for column in columns)], "ops.run")
        self.entries.append(entry)
