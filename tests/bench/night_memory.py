"""Peak memory of a night's processes for hospitals of several sizes: the JVM of Spark, its Python workers, the driver.

    python -m tests.bench.night_memory --patients 50000 200000 --out /tmp/memory

For each size: simulate; the night of the first delivery, all history; a model trained and promoted; the same night
again, which adds the scores. Each command is a process of its own, watched twice a second. Memory is proportional set
size, so pages that workers share count once.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from datetime import date, timedelta
from pathlib import Path

import psutil

from medpipe.simulate import HospitalSettings, write_hospital

KEY = "c3" * 32
MEDPIPE = Path(sys.executable).with_name("medpipe")
EVERY_SECONDS = 0.5
# Enough to have a model; how its quality grows with more is hospital_quality.py's question.
TRAIN = ["--set", "train.max_patients=10000", "--set", "train.max_epochs=3"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, nargs="+", default=[50_000, 200_000])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    for num_patients in args.patients:
        folder = args.out / str(num_patients)
        if not (folder / "hospital" / "hospital.toml").exists():
            write_hospital(HospitalSettings(num_patients, seed=1), folder / "hospital")
        for command, flags in commands(folder):
            figures = watched([str(MEDPIPE), *command, *flags])
            print(json.dumps({"patients": num_patients, "command": " ".join(command[:2])} | figures), flush=True)


def commands(folder: Path) -> list[tuple[list[str], list[str]]]:
    """(command, flags) of a night whose model is trained half way."""
    delivery = min((folder / "hospital" / "deliveries").iterdir())
    morning = date.fromisoformat(delivery.name) + timedelta(days=1)
    flags = ["--lake", str(folder / "lake"), "--config", str(folder / "hospital" / "hospital.toml")]
    flags += ["--as-of", str(morning)]
    night = ["nightly", "--delivery", str(delivery)]
    return [(night, flags), (["run", "retrain_risk"], flags + TRAIN), (["run", "promote_model"], flags), (night, flags)]


def watched(command: list[str]) -> dict:
    """Runs a command; exit code, seconds, seconds of processors, and the peak of each kind of process and of all, MiB.

    Those of processors say more than those of a clock on a machine that does other work too.
    """
    started, peaks, cpu = time.monotonic(), defaultdict(int), {}
    process = subprocess.Popen(command, env=os.environ | {"MEDPIPE_PSEUDONYM_KEY": KEY})
    while process.poll() is None:
        driver = psutil.Process(process.pid)
        cpu |= cpu_seconds(driver)
        now = sizes(driver)
        for kind, size in (now | {"all": sum(now.values())}).items():
            peaks[kind] = max(peaks[kind], size)
        time.sleep(EVERY_SECONDS)
    told = {f"{kind}_mib": size >> 20 for kind, size in sorted(peaks.items())}
    seconds = {"seconds": round(time.monotonic() - started), "cpu_seconds": round(sum(cpu.values()))}
    return {"exit": process.returncode} | seconds | told


def cpu_seconds(driver: psutil.Process) -> dict[int, float]:
    """Process id -> seconds on a processor so far, of the driver, the JVM and the Python workers."""
    found = {}
    for process in [driver, *driver.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):  # it has just ended
            told = process.cpu_times()
            found[process.pid] = told.user + told.system
    return found


def sizes(driver: psutil.Process) -> dict[str, int]:
    """Bytes of the driver, the JVM and the Python workers together."""
    found = defaultdict(int)
    for process in [driver, *driver.children(recursive=True)]:
        try:
            kind = "driver" if process == driver else "jvm" if Path(process.exe()).name == "java" else "workers"
            size = process.memory_full_info().pss
            # A JVM that starts another program shares its memory with it for a moment: there is one, and no sum.
            found[kind] = max(found[kind], size) if kind == "jvm" else found[kind] + size
        except psutil.Error:
            continue  # it has just ended
    return found


if __name__ == "__main__":
    main()
