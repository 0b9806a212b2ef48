"""Two nights of a simulated hospital on this machine: deliveries, a correction, a model, scores, recommendations.

A second call finds the nights done and changes nothing.
"""

import argparse
import sys
import time
from datetime import date, timedelta
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from medpipe import command, contracts, job, keys
from medpipe.jobs import nightly, promote_model, retrain_risk
from medpipe.session import SMALL
from medpipe.simulate import HospitalSettings, write_hospital

SMALL_HOSPITAL = 10_000


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), help="folder of hospital, key and lake; default ./demo"
    )
    parser.add_argument("--patients", type=int, default=2000, help="default 2000")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    hospital = simulated(args.out / "hospital", args.patients)
    key = args.out / "pseudonym.key"
    if not key.exists():
        keys.create(key)
    deliveries = sorted((hospital / "deliveries").iterdir())
    last = as_of(deliveries[-1])
    flags = command.arguments("demo", __doc__)
    told = ["--lake", str(args.out / "lake"), "--as-of", str(last), "--config", str(hospital / "hospital.toml")]
    told += ["--set", f"privacy.key=file:{key}", "--log", str(args.out / "log.jsonl")]
    if args.patients <= SMALL_HOSPITAL:
        conf = ", ".join(f'"{name}" = "{value}"' for name, value in SMALL.items())
        told += ["--set", f"spark={{{conf}}}"]
    return job.main("demo", flags, told, lambda work, _: nights(work, deliveries, args.out))


def as_of(delivery: Path) -> date:
    """The morning after a delivery's evening."""
    return date.fromisoformat(delivery.name) + timedelta(days=1)


def simulated(folder: Path, num_patients: int) -> Path:
    """The hospital's folder, written if it is not there."""
    if (folder / "hospital.toml").exists():
        print(f"The simulated hospital in {folder} is there already")
        return folder
    print(f"Simulating a hospital of {num_patients:,} patients into {folder}", flush=True)
    write_hospital(HospitalSettings(num_patients=num_patients, seed=1), folder)
    return folder


def nights(work: job.Workplace, deliveries: list[Path], out: Path) -> None:
    """Every night in turn; after the first load a model is trained and promoted, so that each night has scores."""
    started = time.monotonic()
    num_before = len(work.ledger.entries)
    for number, delivery in enumerate(deliveries):
        morning = job.Workplace(work.lake, work.settings, as_of(delivery), work.ledger)
        print(f"Night {number + 1}: delivery {delivery.name}, as of {morning.as_of}", flush=True)
        if number == 0:
            nightly.load(morning, [delivery])
            print("Training the risk model on what is known then, and promoting it", flush=True)
            retrain_risk.retrain(morning)
            job.announce(morning.run(promote_model.main, recipe="risk_gru"))
        nightly.night(morning, [delivery])
    if len(work.ledger.entries) == num_before:
        print("The nights are done already; nothing was written.")
    Console().print(written(work))
    Console().print(quality(work))
    print(f"Done in {time.monotonic() - started:.0f} s. Look further:")
    lake = f"--lake {out / 'lake'}"
    print(f'  .venv/bin/medpipe sql {lake} "select * from gold.current_score order by score desc limit 10"')
    print(f"  .venv/bin/medpipe history {lake}")
    told = f"--config {out / 'hospital' / 'hospital.toml'} --as-of {as_of(deliveries[-1])}"
    print(f"  .venv/bin/medpipe run check_quality {lake} {told}")
    print("  .venv/bin/medpipe tables gold.recommendation")
    drawn = f"notebooks/01_scores.ipynb --output={(out / '01_scores.ipynb').resolve()}"
    print(f"  MEDPIPE_LAKE={(out / 'lake').resolve()} .venv/bin/jupyter execute {drawn}")


def written(work: job.Workplace) -> Table:
    """Tables of the lake: rows and Delta version."""
    table = Table("table", "rows", "version", title="What stands in the lake")
    lake = work.lake.for_run("")
    for name in contracts.names():
        if contracts.load(name).view is None and lake.exists(name):
            table.add_row(name, f"{lake.count(name, {}):,}", str(lake.version(name)))
    return table


def quality(work: job.Workplace) -> Table:
    """The newest figures of each model beside the baselines, on patients or ratings it has not seen."""
    # Without lines between the columns it fits a terminal of 80.
    table = Table("recipe", "split", "model", "metric", "value", "95 % interval", box=SIMPLE, padding=(0, 1, 0, 0))
    table.title = "Quality on what was held out"
    rows = (
        work.lake.for_run("")
        .read("gold.model_metric")
        .where("metric in ('auroc', 'auprc', 'brier', 'ndcg_at_10', 'recall_at_10') and subgroup = 'all'")
        .orderBy("as_of", "recipe", "split", "metric", "model")
        .collect()
    )
    newest = {row.recipe: row.as_of for row in rows}
    for row in (row for row in rows if row.as_of == newest[row.recipe]):
        interval = "" if row.low is None else f"{row.low:.3f} - {row.high:.3f}"
        table.add_row(row.recipe, row.split, row.model, row.metric, f"{row.value:.3f}", interval)
    return table


if __name__ == "__main__":
    sys.exit(main())
