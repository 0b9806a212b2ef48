"""What every job shares: its steps, their identity, the session, and the ledger.

A step is a function of a Run, declared with what it reads and writes; `Workplace.run` skips it if the same identity
has run, else runs it and writes its row of ops.run last.
"""

import argparse
import os
import pwd
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from pyspark.sql import functions as F

from medpipe import __version__, command, keys, ledger, log, settings
from medpipe.errors import MedpipeError, UsageError, raised_by_worker
from medpipe.ingest.manifest import IMAGES, MOLECULES, Delivery, read_delivery
from medpipe.session import open_session
from medpipe.tables import Lake


@dataclass(frozen=True)
class Option:
    """One flag of a step: `--name`, its help, its default (None: required) and the values it may take.

    Attributes:
        is_switch: `--name` alone is "yes". It says how to work, not what comes out: a run goes on with or without it.
    """

    name: str
    help: str
    default: str | None = None
    choices: tuple[str, ...] = ()
    is_switch: bool = False


ROLE = Option("role", "fit: index in the past, to train; apply: index at as_of, to score", "apply", ("fit", "apply"))
RECIPE = Option("recipe", "model recipe", "risk_gru")


@dataclass
class Run:
    """What a step is given.

    Attributes:
        lake: writes here carry the run's id; reads pin one version of each table.
        partition: column -> value of the rows the step replaces.
        delivery: the delivery the step is for, or None.
        options: values of the step's own flags.
        counts: rows_in, rows_out, rows_quarantined, rows_duplicate, as far as the step knows them.
    """

    lake: Lake
    settings: settings.Settings
    as_of: date | None
    partition: dict
    delivery: Delivery | None
    options: dict[str, str]
    run_id: str
    load_key: Callable[[], keys.Key]
    counts: dict[str, int] = field(default_factory=dict)

    @cached_property
    def key(self) -> keys.Key:
        """The pseudonym key, checked against the one the lake was built with."""
        return self.load_key()


@dataclass(frozen=True)
class Outcome:
    """How a step ended: done, or skipped because the same identity had run."""

    job: str
    target: str
    status: str
    num_rows: int
    seconds: float


@dataclass(frozen=True)
class Step:
    """A job of one step; calling it runs it from the command line and returns the exit code."""

    function: Callable[[Run], None]
    scope: str
    reads: Callable[[dict], dict[str, dict]]
    writes: tuple[str, ...]
    settings: tuple[str, ...]
    options: tuple[Option, ...]
    needs_key: bool
    extra: Callable[["Workplace", dict], dict]

    @property
    def name(self) -> str:
        return Path(self.function.__code__.co_filename).stem

    @property
    def doc(self) -> str:
        return sys.modules[self.function.__module__].__doc__ or ""

    def __call__(self, argv: list[str] | None = None) -> int:
        parser = command.arguments(self.name, self.doc, self.scope == "folder")
        for option in self.options:
            parser.add_argument(
                f"--{option.name}",
                help=option.help,
                default=option.default,
                required=option.default is None,
                choices=option.choices or None,
                nargs="?" if option.is_switch else None,
                const="yes" if option.is_switch else None,
            )
        return main(self.name, parser, argv, lambda work, args: work.run(self, **_chosen(self, work, args)))


def step(
    *,
    scope: str = "as_of",
    reads: dict[str, dict] | Callable[[dict], dict[str, dict]] = MappingProxyType({}),
    writes: tuple[str, ...] = (),
    settings: tuple[str, ...] = (),
    options: tuple[Option, ...] = (),
    needs_key: bool = False,
    extra: Callable[["Workplace", dict], dict] = lambda work, options: {},
) -> Callable[[Callable[[Run], None]], Step]:
    """Declares a step.

    Args:
        scope: as_of (one logical date), folder (a delivery about to be read), or deliveries (each delivery known).
        reads: table -> columns and values that select the rows read, beside as_of; or what gives it for the options.
        settings: parts of the settings that change the result.
        options: flags; those named like a partition column of the written tables become part of the partition.
        extra: more of what the result depends on, e.g. the model that is current.
    """
    asked = reads if callable(reads) else lambda options: reads
    return lambda function: Step(function, scope, asked, writes, settings, options, needs_key, extra)


@dataclass
class Workplace:
    """One session on one lake; runs steps in order, each at most once per identity."""

    lake: Lake
    settings: settings.Settings
    as_of: date | None
    ledger: ledger.Ledger

    def run(self, step: Step, delivery: Delivery | None = None, **options: str) -> list[Outcome]:
        """Runs a step for as_of, for a delivery, or for every delivery of records known before as_of, oldest first.

        Raises: what the step raises; the ledger has a row of it.
        """
        options = {option.name: option.default for option in step.options if option.default is not None} | options
        if step.scope == "deliveries":
            records = [known for known in self.deliveries(self.as_of) if known.source not in (IMAGES, MOLECULES)]
            return [self._once(step, known, options) for known in records]
        return [self._once(step, delivery, options)]

    def deliveries(self, as_of: date | None, source: str | None = None) -> list[Delivery]:
        """Deliveries known before as_of (None: all), in the order the hospital sent them.

        Args:
            source: IMAGES: those of images, whose files stand in bronze.image, where an erasure finds them.
        """
        rows = self.lake.for_run("").read("bronze.image" if source == IMAGES else "phi.delivery")
        absent = {"is_history", "is_snapshot"} - set(rows.columns)
        told = rows.withColumns({name: F.lit(False) for name in absent}) if absent else rows
        rows = told.select("source", "delivery_id", "known_at", "is_history", "is_snapshot").distinct().collect()
        known = [
            Delivery(r.source, r.delivery_id, r.known_at.astimezone(UTC), r.is_history, (), r.is_snapshot) for r in rows
        ]
        known = [d for d in known if as_of is None or d.known_at < self.lake.midnight(as_of)]
        return sorted(known, key=lambda delivery: delivery.came)

    def _once(self, step: Step, delivery: Delivery | None, options: dict[str, str]) -> Outcome:
        started = time.monotonic()
        partition = self._partition(step, delivery, options)
        target = ledger.target_of(partition)
        run_id = self._identity(step, partition, delivery, options)
        last = self.ledger.last(step.name, target)
        told = {"run_id": run_id, "job": step.name, "target": target}
        if last is not None and last.run_id == run_id and last.status == "done":
            log.logger.info("step skipped", extra=told | {"detail": "the same identity has run"})
            return Outcome(step.name, target, "skipped", last.rows_out or 0, 0.0)
        run = Run(
            lake=self.lake.for_run(run_id),
            settings=self.settings,
            as_of=self.as_of if step.scope == "as_of" else None,
            partition=partition,
            delivery=delivery,
            options=options,
            run_id=run_id,
            load_key=lambda: self.key(run_id),
        )
        log.logger.info("step started", extra=told)
        if last is not None and last.status == "done":
            # Killed between two of its commits, this run must not leave the ledger saying that the other one holds.
            self._record(step, run, target, "started", None, started)
        try:
            step.function(run)
            run.lake.unstage()
        except Exception as raised:
            failure = raised_by_worker(raised) or raised
            code = failure.code if isinstance(failure, MedpipeError) else type(failure).__name__
            log.logger.error("step failed", extra=told | {"code": code})
            self._record(step, run, target, "failed", code, started)
            if failure is not raised:
                raise failure from None
            raise
        finally:
            # A step caches what it reads often; none of it is for the next.
            self.lake.spark.catalog.clearCache()
        self._record(step, run, target, "done", None, started)
        rows = run.counts.get("rows_out", sum(written.num_rows for written in run.lake.written))
        seconds = time.monotonic() - started
        log.logger.info("step done", extra=told | {"rows": rows, "seconds": round(seconds, 2)})
        return Outcome(step.name, target, "done", rows, seconds)

    def _partition(self, step: Step, delivery: Delivery | None, options: dict[str, str]) -> dict:
        if delivery is not None:
            return {"source": delivery.source, "delivery_id": delivery.delivery_id}
        if self.as_of is None:
            raise UsageError("NO_AS_OF", f"{step.name} is for a logical date; pass --as-of YYYY-MM-DD")
        columns = {name: value for name, value in options.items() if name in ("role", "recipe")}
        return {"as_of": self.as_of} | columns

    def _identity(self, step: Step, partition: dict, delivery: Delivery | None, options: dict[str, str]) -> str:
        as_of = self.as_of if delivery is None else None
        before = (self.lake.midnight(self.as_of).timestamp(), "") if delivery is None else delivery.came
        inputs = {}
        for table, where in step.reads(options).items():
            chosen = {column: partition.get(column, value) for column, value in where.items()}
            # Rows of the delivery itself are not older than it.
            inputs[table] = self.ledger.runs_behind(table, as_of, None if "delivery_id" in where else before, chosen)
        switches = {option.name for option in step.options if option.is_switch}
        extra = {"options": {name: value for name, value in options.items() if name not in switches}}
        extra |= step.extra(self, options)
        if step.scope == "folder":
            extra["delivery"] = [delivery.known_at, delivery.is_history, [(f.name, f.sha256) for f in delivery.files]]
        if step.needs_key:
            extra["key"] = self.key(None).fingerprint
        extra["timezone"] = self.lake.timezone
        return ledger.identity(step.name, ledger.target_of(partition), inputs, self.settings.part(step.settings), extra)

    def key(self, run_id: str | None) -> keys.Key:
        """The key of the settings; the lake's first key is kept by fingerprint, any other is refused."""
        key = keys.load(self.settings.privacy.key)
        known = [row.fingerprint for row in self.lake.for_run("").read("phi.key").collect()]
        if known and key.fingerprint not in known:
            raise UsageError(
                "OTHER_KEY",
                f"this lake was built with key {known[0]}, {self.settings.privacy.key} holds {key.fingerprint}; "
                "give the first key: pseudonyms of two keys never match",
            )
        if not known and run_id is not None:
            frame = self.lake.spark.createDataFrame([(key.fingerprint,)], "fingerprint string")
            self.lake.for_run(run_id).append(frame, "phi.key", once=key.fingerprint)
        return key

    def _record(self, step: Step, run: Run, target: str, status: str, code: str | None, started: float) -> None:
        outputs = run.lake.written
        self.ledger.append(
            ledger.Entry(
                run_id=run.run_id,
                job=step.name,
                as_of=run.as_of,
                known_at=run.delivery.known_at if run.delivery else None,
                target=target,
                status=status,
                error_code=code,
                inputs=sorted(run.lake.inputs.items()),
                outputs=[(w.table, w.version, w.num_rows) for w in outputs],
                rows_in=run.counts.get("rows_in"),
                rows_out=run.counts.get("rows_out"),
                rows_quarantined=run.counts.get("rows_quarantined"),
                rows_duplicate=run.counts.get("rows_duplicate"),
                key_fingerprint=run.key.fingerprint if "key" in run.__dict__ else None,
                settings_sha256=ledger.digest(run.settings.part(step.settings)),
                code_version=__version__,
                seconds=round(time.monotonic() - started, 3),
                finished_at=datetime.now(UTC),
            )
        )


def main(name: str, parser: argparse.ArgumentParser, argv: list[str] | None, body: Callable) -> int:
    """Parses, opens the workplace, runs `body(work, args)` and returns the exit code."""
    return command.run(name, parser, argv, lambda told, args: body(open_workplace(name, told, args.as_of), args))


def open_workplace(name: str, configured: settings.Settings, as_of: date | None) -> Workplace:
    """Session, lake and ledger for one set of settings."""
    told = (configured.lake.rstrip("/"), configured.phi_root, configured.published_root)
    root, phi_root, published_root = (place if "://" in place else str(Path(place).resolve()) for place in told)
    spark = open_session(f"medpipe {name}", {"spark.checkpoint.dir": f"{root}/ops/checkpoint"} | configured.spark)
    lake = Lake(spark, root, phi_root, configured.hospital.timezone, published_root=published_root)
    return Workplace(lake, configured, as_of, ledger.Ledger.open(lake))


def delivery_from(work: Workplace, folder: Path, is_history: bool, source: str | None = None) -> Delivery:
    """The delivery in a folder; one known only after as_of is refused.

    Raises:
        UsageError: NO_AS_OF, LATER_DELIVERY.
    """
    if work.as_of is None:
        raise UsageError("NO_AS_OF", "a delivery is read for a logical date; pass --as-of YYYY-MM-DD")
    end = work.lake.midnight(work.as_of)
    delivery = read_delivery(folder, end, work.lake.timezone, is_history, source)
    # A folder that does not say when it was delivered keeps the time it was first given for.
    delivery = next(
        (
            replace(delivery, delivery_id=d.delivery_id, known_at=d.known_at)
            for d in work.deliveries(None, delivery.source)
            if d.same_as(delivery)
        ),
        delivery,
    )
    if delivery.known_at >= end:
        raise UsageError(
            "LATER_DELIVERY", f"{folder} was delivered at {delivery.known_at.isoformat()}, not before {end.isoformat()}"
        )
    return delivery


def _chosen(step: Step, work: Workplace, args: argparse.Namespace) -> dict:
    chosen = {option.name: getattr(args, option.name.replace("-", "_")) for option in step.options}
    if step.scope == "folder":
        chosen["delivery"] = delivery_from(work, args.delivery, args.history, args.source)
    return chosen


def actor() -> str:
    """The operating system's user; the environment's USER could say anything."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def announce(outcomes: list[Outcome]) -> None:
    """One line a step on stdout, for people; the log has the same for machines."""
    for outcome in outcomes:
        told = f"  {outcome.job:<24} {outcome.target:<52}"
        if outcome.status == "skipped":
            print(f"{told} already done", flush=True)
        else:
            print(f"{told} {outcome.num_rows:>11,} rows {outcome.seconds:7.1f} s", flush=True)
