"""A hospital written to disk: one delivery per night, and apart from them the truth."""

import csv
import gzip
import io
import json
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from medpipe.errors import UsageError
from medpipe.simulate import concepts, dirt, tables
from medpipe.simulate.history import Events, Visits, draw_events, draw_visits, with_outcomes
from medpipe.simulate.people import CHUNK_PATIENTS, NEVER, People, day_number, draw_people
from medpipe.simulate.risk import true_risk
from medpipe.simulate.settings import HospitalSettings
from medpipe.simulate.world import World, make_world

CDM_VERSION = "5.4"
# Delivered compressed, so that both forms are always in use.
GZIPPED = {"procedure_occurrence"}
# Patients who had the outcome before the time at risk, and so are not at risk of a first one.
SHARE_PRIOR = 0.04
RISK_SCHEMA = pa.schema(
    [("person_id", pa.int64()), ("index_date", pa.date32()), ("risk", pa.float64()), ("outcome", pa.int8())]
)
PREFERENCE_SCHEMA = pa.schema([("person_id", pa.int64()), ("preference", pa.list_(pa.float32()))])


@dataclass(frozen=True, eq=False)
class Chunk:
    """CHUNK_PATIENTS patients with all that happened to them.

    By role, each (N,): risk; outcome 0 or 1; is_at_risk, alive and known to the hospital at the index, no outcome yet.
    """

    people: People
    visits: Visits
    events: Events
    risk: dict[str, np.ndarray]
    outcome: dict[str, np.ndarray]
    is_at_risk: dict[str, np.ndarray]


def write_hospital(settings: HospitalSettings, out: Path, progress: Callable[[int, int], None] | None = None) -> None:
    """Writes `out`/deliveries/DATE/, `out`/truth/ and `out`/hospital.toml.

    The deliveries are as a hospital would send them. truth/ holds what nobody could know: risk.parquet (person_id,
    index_date, risk, outcome in the time at risk; patients at risk of a first outcome only), preference.parquet
    (person_id, preference: probability that the next drug is each of treatments.json), dirt.json (delivery -> kind ->
    planted rows). Memory does not grow with patients.

    Args:
        progress: called with (patients written, patients of all) after each chunk.
    Raises:
        UsageError: NOT_EMPTY.
    """
    if out.exists() and any(out.iterdir()):
        raise UsageError("NOT_EMPTY", f"{out} is not empty; name a new folder")
    world = make_world(settings.seed)
    _write_frame(settings, world, out)
    planted: dict[str, Counter] = defaultdict(Counter)
    with ExitStack() as stack:
        risk, preference = (
            stack.enter_context(pq.ParquetWriter(out / "truth" / name, schema))
            for name, schema in (("risk.parquet", RISK_SCHEMA), ("preference.parquet", PREFERENCE_SCHEMA))
        )
        for number in range(-(-settings.num_patients // CHUNK_PATIENTS)):
            chunk = simulate_chunk(settings, world, number)
            num_kept = min(settings.num_patients - number * CHUNK_PATIENTS, CHUNK_PATIENTS)
            _write_deliveries(settings, chunk, number, num_kept, out, planted)
            _write_truth(settings, chunk, num_kept, risk, preference)
            if progress:
                progress(number * CHUNK_PATIENTS + num_kept, settings.num_patients)
    text = json.dumps({name: dict(sorted(kinds.items())) for name, kinds in sorted(planted.items())}, indent=2)
    (out / "truth" / "dirt.json").write_text(text + "\n")


def simulate_chunk(settings: HospitalSettings, world: World, number: int) -> Chunk:
    """The patients of one chunk, from (seed, number) alone."""
    rng = np.random.default_rng([settings.seed, 1, number])
    horizon = day_number(settings.last_as_of)
    people = draw_people(settings, world, number, rng)
    visits = draw_visits(people, horizon, rng)
    events = draw_events(people, visits, world, rng)
    index = {role: day_number(day) for role, day in settings.index_dates.items()}
    risk = {role: true_risk(people, visits, events, day) for role, day in index.items()}
    prior, happened = _outcome_days(settings, people, index["fit"], risk["fit"], rng)
    outcome = {
        "fit": (happened < NEVER).astype(np.int8),
        "apply": (rng.random(len(prior)) < risk["apply"]).astype(np.int8),
    }
    day = np.minimum(prior, happened)
    is_at_risk = {
        role: (people.joined_day < at) & (people.last_day(at + 1) == at) & (day >= at) for role, at in index.items()
    }
    is_recorded = day <= people.last_day(horizon)
    visits, events = with_outcomes(visits, events, np.flatnonzero(is_recorded), day[is_recorded])
    return Chunk(people, visits, events, risk, outcome, is_at_risk)


def _outcome_days(
    settings: HospitalSettings, people: People, index_day: int, risk: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) days of an outcome before the index, and of a first one in the time at risk; NEVER where there is none."""
    num = len(risk)
    span = np.maximum(index_day - people.joined_day, 1)
    prior = people.joined_day + np.floor(rng.random(num) * span).astype(np.int64)
    has_prior = (
        (rng.random(num) < SHARE_PRIOR) & (people.joined_day < index_day) & (prior <= people.last_day(index_day))
    )
    day = index_day + rng.integers(0, settings.time_at_risk_days, num)
    happens = (rng.random(num) < risk) & (day <= people.died_day) & (day >= people.joined_day) & ~has_prior
    return np.where(has_prior, prior, NEVER), np.where(happens, day, NEVER)


def _write_frame(settings: HospitalSettings, world: World, out: Path) -> None:
    """Folders, manifests, settings, concepts and the names of the treatments."""
    (out / "truth").mkdir(parents=True)
    for night in settings.nights:
        folder = out / "deliveries" / night.isoformat()
        folder.mkdir(parents=True)
        is_history = "true" if night == settings.first_night else "false"
        (folder / "delivery.toml").write_text(
            f'source = "omop"\ncdm_version = "{CDM_VERSION}"\n'
            f"delivered_at = {night.isoformat()}T22:00:00\nis_history = {is_history}\n"
        )
    pa_csv.write_csv(tables.concept_table(), out / "deliveries" / settings.first_night.isoformat() / "concept.csv")
    (out / "hospital.toml").write_text(
        f'[hospital]\ntimezone = "{settings.timezone}"\n\n[cohort]\noutcome_concepts = ["OMOP:{concepts.OUTCOME}"]\n'
        f"observation_days = {settings.observation_days}\ntime_at_risk_days = {settings.time_at_risk_days}\n"
    )
    names = [f"OMOP:{drug}" for drug in world.drugs.tolist()]
    (out / "truth" / "treatments.json").write_text(json.dumps(names, indent=0) + "\n")


def _write_deliveries(
    settings: HospitalSettings, chunk: Chunk, number: int, num_kept: int, out: Path, planted: dict[str, Counter]
) -> None:
    first = day_number(settings.first_night)
    rng = np.random.default_rng([settings.seed, 2, number])
    found = tables.patient_tables(chunk.people, first, settings.num_nights)
    found += tables.clinical_tables(chunk.people, chunk.visits, chunk.events, first, number)
    dirty = [dirt.plant(rows, settings.num_nights, first, rng) for rows in found]
    for place, night in enumerate(settings.nights):
        for part in dirty:
            is_now, is_spoilt = ((rows.night == place) & (rows.person < num_kept) for rows in (part.rows, part.sources))
            if not is_now.any() and not is_spoilt.any():
                continue
            planted[night.isoformat()] += dirt.counts(part.kinds[is_now]) + dirt.counts(part.faults[is_spoilt])
            sources = part.sources.take(np.flatnonzero(is_spoilt))
            lines = _spoilt_lines(sources, part.faults[is_spoilt], night, chunk.people)
            rows = part.rows.take(np.flatnonzero(is_now))
            _write_table(rows, lines, out / "deliveries" / night.isoformat() / rows.name, number)


def _spoilt_lines(sources: tables.Rows, faults: np.ndarray, night: date, people: People) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    births = people.birth_day[sources.person].astype("datetime64[D]").tolist()
    for row, kind, birth in zip(sources.columns.to_pylist(), faults.tolist(), births, strict=True):
        writer.writerow(dirt.spoilt(row, kind, sources.name, night, birth))
    return text.getvalue()


def _write_table(rows: tables.Rows, lines: str, folder: Path, number: int) -> None:
    folder.mkdir(exist_ok=True)
    text = io.BytesIO()
    pa_csv.write_csv(rows.columns, text)
    text.write(lines.encode())
    name = f"part-{number:05d}.csv"
    if rows.name in GZIPPED:
        # No time in the header: the same hospital is the same bytes.
        (folder / f"{name}.gz").write_bytes(gzip.compress(text.getbuffer(), 1, mtime=0))
    else:
        (folder / name).write_bytes(text.getbuffer())


def _write_truth(
    settings: HospitalSettings, chunk: Chunk, num_kept: int, risk: pq.ParquetWriter, preference: pq.ParquetWriter
) -> None:
    ids = chunk.people.person_id[:num_kept]
    for role, day in settings.index_dates.items():
        known = chunk.is_at_risk[role][:num_kept]
        columns = [ids[known], [day] * int(known.sum()), chunk.risk[role][:num_kept][known]]
        risk.write_table(pa.table([*columns, chunk.outcome[role][:num_kept][known]], schema=RISK_SCHEMA))
    wishes = pa.array(chunk.people.preference[:num_kept].astype(np.float32).ravel())
    starts = pa.array(np.arange(num_kept + 1) * chunk.people.preference.shape[1], pa.int32())
    preference.write_table(pa.table([ids, pa.ListArray.from_arrays(starts, wishes)], schema=PREFERENCE_SCHEMA))
