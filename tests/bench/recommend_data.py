"""What the quality benchmark of recommenders reads: patients, their treatments with time, their features."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import sparse

from medpipe.recommend.histories import Histories

# Fewer treatments than these stay wholly known: nothing could be learnt from so short a history and measured beside it.
MIN_TREATMENTS = 5
# A feature of fewer patients than these is left out.
MIN_PATIENTS = 5


@dataclass(frozen=True)
class Data:
    """P patients, M treatments, N features.

    Attributes:
        had: float32 (P, M), 1 + ln(orders).
        day: float64 (E,), when each entry was first given, plus 10**7; least where nobody knows.
        features: float32 (P, N). truth: (P, M) true preferences, of a simulated hospital only.
    """

    name: str
    had: sparse.csr_matrix
    day: np.ndarray
    features: sparse.csr_matrix
    truth: np.ndarray | None = None

    def histories(self, had: sparse.csr_matrix, rows: np.ndarray | None = None) -> Histories:
        """Of these ratings; ids are the patients' places."""
        rows = np.arange(self.had.shape[0]) if rows is None else rows
        return Histories(pa.array([f"{row:06}" for row in rows]), had, self.features[rows])


def eicu(folder: Path) -> Data:
    """patient_treatment; features of the first unit stay: sex, age band, unit, APACHE, and diagnoses at any time.

    A unit is told at each of its levels: hospital, ward, kind. Hospitals differ in what they send.
    """
    rated = pd.read_csv(folder / "patient_treatment.csv.gz")
    stays = pd.read_csv(folder / "patient.csv.gz").sort_values(
        ["uniquepid", "hospitaldischargeyear", "unitvisitnumber"]
    )
    stays = stays[stays.uniquepid.isin(rated.uniquepid)]
    first = stays.drop_duplicates("uniquepid")
    age = pd.to_numeric(first.age.replace("> 89", "90"), errors="coerce")
    said = [
        pd.DataFrame({"uniquepid": first.uniquepid, "feature": column})
        for column in (
            "sex " + first.gender.fillna("?"),
            "age " + (age // 10).map(lambda tens: f"{tens:.0f}0"),
            "hospital " + first.hospitalid.astype(str),
            "ward " + first.wardid.astype(str),
            "unit " + first.unittype + " " + first.unitstaytype,
            "admitted for " + first.apacheadmissiondx.fillna("?"),
            "from " + first.unitadmitsource.fillna("?"),
        )
    ]
    of_stay = stays.set_index("patientunitstayid").uniquepid
    said += [_diagnoses(folder, of_stay), _apache(folder, of_stay)]
    pairs = pd.concat(said).drop_duplicates().dropna()
    pairs = pairs[pairs.groupby("feature").uniquepid.transform("nunique") >= MIN_PATIENTS]
    return _data(
        "ehr_eicu_demo",
        rated.uniquepid,
        rated.treatment_code,
        1 + np.log(rated.num_orders),
        rated.first_offset_minutes / 1440,
        pairs,
    )


def _diagnoses(folder: Path, of_stay: pd.Series) -> pd.DataFrame:
    """Every level of a diagnosis, and of APACHE's at admission: organ system, disease, kind."""
    found = []
    for table, column in (("diagnosis", "diagnosisstring"), ("admissiondx", "admitdxpath")):
        rows = pd.read_csv(folder / f"{table}.csv.gz", usecols=["patientunitstayid", column])
        levels = rows[column].str.split("|")
        patient = rows.patientunitstayid.map(of_stay)
        for depth in range(1, 7):
            is_deep = levels.str.len() >= depth
            said = f"{table} " + levels[is_deep].str[:depth].str.join("|")
            found.append(pd.DataFrame({"uniquepid": patient[is_deep], "feature": said}))
    return pd.concat(found)


def _apache(folder: Path, of_stay: pd.Series) -> pd.DataFrame:
    """What the APACHE variables of the first day say, each in three parts of equal size; -1 is missing."""
    found = []
    for name, left_out in (
        ("apacheapsvar", ["apacheapsvarid"]),
        ("apachepredvar", ["apachepredvarid", "gender", "age", "teachtype", "region", "bedcount", "diedinhospital"]),
    ):
        rows = pd.read_csv(folder / f"{name}.csv.gz").drop(columns=left_out).select_dtypes("number")
        patient = rows.pop("patientunitstayid").map(of_stay)
        for column in rows.columns.drop(["dischargelocation", "var03hspxlos", "saps3today"], errors="ignore"):
            value = rows[column].where(rows[column] >= 0)
            if value.nunique() > 10:
                value = pd.qcut(value, 3, labels=False, duplicates="drop")
            is_known = value.notna() & (value != 0)
            found.append(pd.DataFrame({"uniquepid": patient, "feature": f"{column} " + value.astype(str)})[is_known])
    return pd.concat(found)


def movielens(folder: Path) -> Data:
    """Films seen, whatever the stars; no features. Films of fewer than five people are left out."""
    rated = pd.read_csv(folder / "ratings.csv.gz")
    rated = rated[rated.groupby("movieId").userId.transform("size") >= 5]
    none = pd.DataFrame({"uniquepid": [], "feature": []})
    ones = np.ones(len(rated))
    return _data("rec_movielens_small", rated.userId, rated.movieId, ones, rated.timestamp / 86400, none)


def hospital(folder: Path, num_patients: int, seed: int) -> Data:
    """A simulated hospital's drug records, with the truth; features: sex, age band, conditions, as delivered."""
    from medpipe.simulate import HospitalSettings, write_hospital

    if not (folder / "hospital.toml").exists():
        write_hospital(HospitalSettings(num_patients, seed=seed, num_nights=1), folder)
    import pyarrow.parquet as pq

    delivery = next((folder / "deliveries").iterdir())
    names = json.loads((folder / "truth" / "treatments.json").read_text())
    drugs = _read(delivery / "drug_exposure", ["person_id", "drug_concept_id", "drug_exposure_start_date"])
    drugs["treatment"] = "OMOP:" + drugs.drug_concept_id
    drugs["day"] = (
        pd.to_datetime(drugs.drug_exposure_start_date, errors="coerce") - pd.Timestamp("1970-01-01")
    ).dt.days
    table = pq.read_table(folder / "truth" / "preference.parquet").to_pandas()
    table.index = table.person_id.astype(str)
    # What was planted as dirt stays out: unknown people and drugs, days that are none.
    known = drugs[drugs.treatment.isin(names) & drugs.day.notna() & drugs.person_id.isin(table.index)]
    given = known.groupby(["person_id", "treatment"]).agg(count=("day", "size"), day=("day", "min")).reset_index()
    people = _read(delivery / "person", ["person_id", "gender_concept_id", "year_of_birth"]).drop_duplicates(
        "person_id"
    )
    born = pd.to_numeric(people.year_of_birth, errors="coerce")
    conditions = _read(delivery / "condition_occurrence", ["person_id", "condition_concept_id"])
    pairs = pd.concat(
        [
            pd.DataFrame({"uniquepid": people.person_id, "feature": "sex " + people.gender_concept_id}),
            pd.DataFrame({"uniquepid": people.person_id, "feature": (born // 10).map("born {:.0f}0".format)}),
            pd.DataFrame({"uniquepid": conditions.person_id, "feature": "dx " + conditions.condition_concept_id}),
        ]
    )
    data = _data(
        "simulated hospital",
        given.person_id,
        given.treatment,
        1 + np.log(given["count"]),
        given.day,
        pairs.drop_duplicates().dropna(),
    )
    rows = table.loc[sorted(given.person_id.unique())].preference
    columns = [names.index(name) for name in sorted(given.treatment.unique())]
    return Data(data.name, data.had, data.day, data.features, np.stack(rows.to_numpy())[:, columns])


def _read(folder: Path, columns: list[str]) -> pd.DataFrame:
    parts = [pd.read_csv(file, usecols=columns, dtype=str, on_bad_lines="skip") for file in sorted(folder.iterdir())]
    return pd.concat(parts)


def _data(name, patients, treatments, ratings, days, pairs: pd.DataFrame) -> Data:
    """Rows and columns in the order of their names."""
    patient, treatment = (pd.Categorical(column.astype(str)) for column in (patients, treatments))
    shape = (len(patient.categories), len(treatment.categories))
    places = (patient.codes.astype(int), treatment.codes.astype(int))
    had = sparse.csr_matrix((np.asarray(ratings, np.float32), places), shape=shape)
    # Days, moved so that none is 0, which a sparse matrix would lose.
    filled = np.nan_to_num(np.asarray(days, np.float64), nan=-1e6)
    day = sparse.csr_matrix((filled + 1e7, places), shape=shape)
    had.sort_indices(), day.sort_indices()
    of_patient = {str(name): row for row, name in enumerate(patient.categories)}
    pairs = pairs[pairs.uniquepid.astype(str).isin(of_patient)]
    feature = pd.Categorical(pairs.feature)
    rows = pairs.uniquepid.astype(str).map(of_patient).to_numpy(int)
    features = sparse.csr_matrix(
        (np.ones(len(pairs), np.float32), (rows, feature.codes.astype(int))), shape=(shape[0], len(feature.categories))
    )
    return Data(name, had, day.data, features)
