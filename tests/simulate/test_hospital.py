"""What a simulated hospital promises: the same bytes, true counts of dirt, and a task of the right difficulty."""

import csv
import gzip
import json
import tomllib
from collections import Counter
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from medpipe.errors import UsageError
from medpipe.simulate import HospitalSettings, write_hospital
from medpipe.simulate.concepts import LABS, OUTCOME

NIGHTS = ("2026-01-30", "2026-01-31")
EVENT_DATES = {
    "visit_occurrence": "visit_start_date",
    "condition_occurrence": "condition_start_date",
    "drug_exposure": "drug_exposure_start_date",
    "measurement": "measurement_date",
    "procedure_occurrence": "procedure_date",
}
TABLES = (*EVENT_DATES, "person", "observation_period", "death")
LAB = {lab.concept: lab for lab in LABS}


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    return written(tmp_path_factory.mktemp("hospital"), num_patients=900)


def written(out: Path, **settings) -> Path:
    write_hospital(HospitalSettings(seed=7, **settings), out)
    return out


def contents(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def lines(hospital: Path, night: str, table: str) -> list[list[str]]:
    """Header and rows of all of a table's files."""
    found = []
    for file in sorted((hospital / "deliveries" / night / table).glob("part-*")):
        text = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        header, *rows = csv.reader(text.decode().splitlines())
        found += [*([] if found else [header]), *rows]
    return found or [[]]


def good_rows(hospital: Path, night: str, table: str) -> list[dict[str, str]]:
    """Rows that can be split into the header's columns."""
    header, *rows = lines(hospital, night, table)
    return [dict(zip(header, row, strict=True)) for row in rows if len(row) == len(header)]


def births(hospital: Path) -> dict[str, date]:
    rows = [row for night in NIGHTS for row in good_rows(hospital, night, "person")]
    return {row["person_id"]: date.fromisoformat(row["birth_datetime"][:10]) for row in rows}


def faults(row: dict[str, str], table: str, night: str, born: dict[str, date]) -> list[str]:
    """What is wrong with a row, found without knowing what was planted."""
    found = []
    try:
        day = datetime.strptime(row[EVENT_DATES[table]], "%Y-%m-%d").date()
    except ValueError:
        return ["bad_date"]
    if row["person_id"] not in born:
        found.append("orphan")
    elif day < born[row["person_id"]]:
        found.append("before_birth")
    if day > date.fromisoformat(night):
        found.append("after_delivery")
    if not row[f"{table}_id"].isdigit():
        found.append("bad_id")
    if table == "measurement":
        lab = LAB[int(row["measurement_concept_id"])]
        if float(row["value_as_number"]) == lab.impossible:
            found.append("out_of_range")
        if row["unit_source_value"] != lab.unit:
            found.append("unit_mix")
    return found


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    first, again = (contents(written(tmp_path / name, num_patients=60)) for name in ("first", "again"))
    assert first == again
    write_hospital(HospitalSettings(num_patients=60, seed=8), tmp_path / "other")
    assert contents(tmp_path / "other") != first


def test_a_patient_is_the_same_in_a_hospital_of_any_size(tmp_path, hospital):
    small = written(tmp_path / "small", num_patients=300)
    ids = {row["person_id"] for night in NIGHTS for row in good_rows(small, night, "person")}
    assert len(ids) == 300
    for night in NIGHTS:
        for table in TABLES:
            in_small = Counter(tuple(row) for row in lines(small, night, table)[1:] if set(row) & ids)
            in_large = Counter(tuple(row) for row in lines(hospital, night, table)[1:] if set(row) & ids)
            assert in_small == in_large, table


def test_chunks_are_written_one_by_one_with_ids_of_their_own(tmp_path):
    out = tmp_path / "out"
    parts_by_then = {}

    def progress(done, total):
        parts_by_then[done, total] = {file.name for file in out.rglob("part-*.csv")}

    write_hospital(HospitalSettings(num_patients=5_200, seed=7), out, progress)
    # One chunk is on disk before the next one is made: memory does not grow with the patients.
    assert parts_by_then == {
        (5_000, 5_200): {"part-00000.csv"},
        (5_200, 5_200): {"part-00000.csv", "part-00001.csv"},
    }
    born = births(out)
    assert len(born) == 5_200
    for table in EVENT_DATES:
        clean = [row for row in good_rows(out, NIGHTS[0], table) if not faults(row, table, NIGHTS[0], born)]
        by_id = {row[f"{table}_id"]: row for row in clean}
        assert len(by_id) == len({tuple(row.values()) for row in clean})


def test_every_planted_fault_is_in_the_files_and_nothing_else(hospital):
    planted = json.loads((hospital / "truth" / "dirt.json").read_text())
    born = births(hospital)
    seen_before: dict[str, set] = {table: set() for table in EVENT_DATES}
    for night in NIGHTS:
        found = Counter()
        for table in TABLES:
            header, *rows = lines(hospital, night, table)
            found["exact_duplicate"] += sum(num - 1 for num in Counter(map(tuple, rows)).values())
            found["field_count"] += sum(len(row) != len(header) for row in rows)
            if table not in EVENT_DATES:
                continue
            first_ids = set(seen_before[table])
            for values in {tuple(row) for row in rows if len(row) == len(header)}:
                row = dict(zip(header, values, strict=True))
                wrong = faults(row, table, night, born)
                assert len(wrong) <= 1
                found.update(wrong)
                if not wrong or wrong == ["unit_mix"]:
                    if row[f"{table}_id"] in first_ids:
                        found["corrected"] += 1
                    elif night != NIGHTS[0] and row[EVENT_DATES[table]] < night:
                        found["late"] += 1
                    seen_before[table].add(row[f"{table}_id"])
        assert {kind: num for kind, num in found.items() if num} == planted[night]
    assert set(planted[NIGHTS[0]]) | set(planted[NIGHTS[1]]) == {
        *("bad_date", "exact_duplicate", "orphan", "unit_mix", "out_of_range", "before_birth", "after_delivery"),
        *("field_count", "bad_id", "late", "corrected"),
    }


def test_each_night_says_what_it_is_and_extends_the_observation_periods(hospital):
    for night, is_history in zip(NIGHTS, (True, False), strict=True):
        told = tomllib.loads((hospital / "deliveries" / night / "delivery.toml").read_text())
        assert told == {
            "source": "omop",
            "cdm_version": "5.4",
            "delivered_at": datetime.fromisoformat(f"{night}T22:00:00"),
            "is_history": is_history,
        }
    ends = [
        {row["observation_period_id"]: row["observation_period_end_date"] for row in rows}
        for rows in (good_rows(hospital, night, "observation_period") for night in NIGHTS)
    ]
    assert set(ends[1].values()) == {"2026-01-31"}
    assert all(ends[0][period] == "2026-01-30" for period in set(ends[0]) & set(ends[1]))
    assert set(ends[1]) - set(ends[0]) == {row["person_id"] for row in good_rows(hospital, NIGHTS[1], "person")}


def test_every_concept_has_a_name(hospital):
    rows = list(csv.DictReader((hospital / "deliveries" / NIGHTS[0] / "concept.csv").open()))
    named = {row["concept_id"] for row in rows}
    used = {
        row[f"{table.split('_')[0]}_concept_id"]
        for night in NIGHTS
        for table in list(EVENT_DATES)[1:]
        for row in good_rows(hospital, night, table)
    }
    assert used <= named
    assert str(OUTCOME) in used


def test_the_task_is_neither_trivial_nor_hopeless(tmp_path):
    truth = written(tmp_path / "out", num_patients=5_000) / "truth"
    risk = pq.read_table(truth / "risk.parquet").to_pandas()
    assert sorted({day.isoformat() for day in risk["index_date"]}) == ["2025-11-03", "2026-02-01"]
    for _, rows in risk.groupby("index_date"):
        assert 0.05 <= rows["outcome"].mean() <= 0.15
        assert 0.80 <= roc_auc_score(rows["outcome"], rows["risk"]) <= 0.90


def test_preferences_are_probabilities_over_the_treatments(hospital):
    treatments = json.loads((hospital / "truth" / "treatments.json").read_text())
    rows = pq.read_table(hospital / "truth" / "preference.parquet")
    wishes = np.stack(rows["preference"].to_numpy())
    assert wishes.shape == (900, len(treatments))
    assert np.allclose(wishes.sum(axis=1), 1, atol=1e-5)
    assert all(name.startswith("OMOP:") for name in treatments)


def test_outcomes_in_the_deliveries_are_those_of_the_truth(hospital):
    fit = date(2025, 11, 3)
    rows = pq.read_table(hospital / "truth" / "risk.parquet").to_pylist()
    happened = {str(row["person_id"]) for row in rows if row["index_date"] == fit and row["outcome"]}
    delivered = {
        row["person_id"]
        for night in NIGHTS
        for row in good_rows(hospital, night, "condition_occurrence")
        if row["condition_concept_id"] == str(OUTCOME) and "2025-11-03" <= row["condition_start_date"] <= "2026-01-31"
    }
    left_early = {
        row["person_id"]
        for row in good_rows(hospital, NIGHTS[0], "observation_period")
        if row["observation_period_end_date"] < "2026-01-30"
    }
    assert happened - left_early <= delivered


def test_settings_name_the_cohort(hospital):
    assert tomllib.loads((hospital / "hospital.toml").read_text()) == {
        "hospital": {"timezone": "Europe/Vienna"},
        "cohort": {"outcome_concepts": [f"OMOP:{OUTCOME}"], "observation_days": 365, "time_at_risk_days": 90},
    }


def test_a_folder_with_content_is_refused(tmp_path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(UsageError, match="NOT_EMPTY.*name a new folder"):
        written(tmp_path, num_patients=10)


def test_settings_out_of_range_are_refused():
    with pytest.raises(UsageError, match="BAD_HOSPITAL: num_nights is 0; expected 1 to 366"):
        HospitalSettings(num_patients=10, num_nights=0)
