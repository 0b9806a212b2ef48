"""A small simulated hospital taken through its nights, for tests that need a whole lake, and what its tables say."""

import shutil
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from pyspark.sql import SparkSession

from medpipe import command, contracts, job, ledger, settings
from medpipe.jobs import nightly, promote_model, retrain_risk
from medpipe.simulate import HospitalSettings, write_hospital
from medpipe.tables import Lake

KEY_VARIABLE = "MEDPIPE_TEST_KEY"
KEY = "5a" * 32
SMALL = HospitalSettings(num_patients=150, seed=3)
# Of drugs that many patients of it get: what high blood pressure, opioids and beta blockers rule out.
SAFETY = {
    "classes.csv": "treatment,class\n"
    + "".join(f"OMOP:{drug},opioid\n" for drug in (1174888, 1124957, 1110410))
    + "".join(f"OMOP:{drug},beta blocker\n" for drug in (1307046, 1346823, 1338005, 1314002)),
    "interactions.csv": "a,b,severity,source\nopioid,opioid,major,made up\nbeta blocker,beta blocker,major,made up\n"
    "opioid,OMOP:744740,contraindicated,made up\n",
    "contraindications.csv": "condition,treatment,severity,source\nOMOP:320128,OMOP:1125315,minor,made up\n",
}


@dataclass(frozen=True)
class Nights:
    """A hospital's folder, and a folder that holds its lake and lake-phi."""

    hospital: Path
    folder: Path

    @property
    def deliveries(self) -> list[Path]:
        return sorted((self.hospital / "deliveries").iterdir())

    @property
    def as_ofs(self) -> list[date]:
        return [date.fromisoformat(delivery.name) + timedelta(days=1) for delivery in self.deliveries]

    def flags(self, as_of: date) -> list[str]:
        """The same as `workplace`, for a command line."""
        given = [
            "--lake",
            str(self.folder / "lake"),
            "--as-of",
            str(as_of),
            "--config",
            str(self.hospital / "hospital.toml"),
        ]
        pairs = [
            f"safety.folder={self.hospital / 'safety'}",
            f"privacy.key=env:{KEY_VARIABLE}",
            "train.max_epochs=2",
            "als.rank=4",
            "als.iterations=3",
        ]
        return given + [flag for pair in pairs for flag in ("--set", pair)]

    def workplace(self, spark: SparkSession, as_of: date) -> job.Workplace:
        args = command.arguments("test", "").parse_args(self.flags(as_of))
        configured = settings.load(args.config, command.flags(args))
        lake = Lake(spark, configured.lake, configured.phi_root, configured.hospital.timezone)
        return job.Workplace(lake, configured, as_of, ledger.Ledger.open(lake))

    def copy_to(self, folder: Path) -> "Nights":
        """The same hospital with a copy of the lake elsewhere."""
        for name in ("lake", "lake-phi"):
            shutil.copytree(self.folder / name, folder / name)
        return Nights(self.hospital, folder)

    def tables(self, spark: SparkSession) -> dict[str, list[str]]:
        """Table -> its rows as text, sorted; floats to 9 digits. All but the ledger, which tells the time."""
        lake = self.workplace(spark, self.as_ofs[-1]).lake
        names = [name for name in contracts.names() if contracts.load(name).view is None and lake.exists(name)]
        return {name: content(lake, name) for name in names if name != "ops.run"}


def content(lake: Lake, name: str) -> list[str]:
    """Rows of a table as text, sorted; floats to 9 significant digits."""
    rows = lake.spark.read.format("delta").load(lake.path(name)).collect()
    return sorted(str([_plain(value) for value in row]) for row in rows)


def differing(found: dict[str, list[str]], expected: dict[str, list[str]]) -> list[str]:
    """Tables that are not in both, or whose rows are not the same."""
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))


def _plain(value):
    if isinstance(value, float):
        return f"{value:.9g}"
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return sorted(value.items())
    return value


def simulate(folder: Path) -> Path:
    """The small hospital's folder, with safety tables beside its deliveries."""
    write_hospital(SMALL, folder)
    (folder / "safety").mkdir()
    for name, text in SAFETY.items():
        (folder / "safety" / name).write_text(text)
    return folder


def first_night(spark: SparkSession, nights: Nights) -> None:
    """Load, train, promote, and the night itself."""
    work = nights.workplace(spark, nights.as_ofs[0])
    nightly.load(work, nights.deliveries[:1])
    retrain_risk.retrain(work)
    work.run(promote_model.main, recipe="risk_gru")
    nightly.night(work, nights.deliveries[:1])


def second_night(spark: SparkSession, nights: Nights) -> None:
    nightly.night(nights.workplace(spark, nights.as_ofs[1]), nights.deliveries[1:2])
