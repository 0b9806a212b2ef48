"""Nights stopped at a commit: hooks before and after each, what the disk holds at each, and a guard that is off.

A hook is named by moment, table and the table's how-manieth commit: `after gold.sequence 1`.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql.readwriter import DataFrameWriter

from medpipe.tables import Lake
from tests.cluster.harness import session_members
from tests.nights import Nights

ROOTS = ("lake", "lake-phi")
REPOSITORY = Path(__file__).parents[2]
# A worker of Spark ends when its JVM is gone.
END_SECONDS = 30


@dataclass(frozen=True)
class State:
    """What the disk held at one or more hooks that follow each other: a copy under `folder`."""

    hooks: list[str]
    folder: Path


@contextmanager
def hooked(call: Callable[[str], None]) -> Iterator[None]:
    """Calls `call(hook)` before and after every commit of any lake."""
    commit, seen = Lake._commit, Counter()

    def counted(self, name, write):
        seen[name] += 1
        call(f"before {name} {seen[name]}")
        commit(self, name, write)
        call(f"after {name} {seen[name]}")

    Lake._commit = counted
    try:
        yield
    finally:
        Lake._commit = commit


@contextmanager
def unguarded() -> Iterator[None]:
    """Nothing written is recognised: neither a partition held by the same run nor a transaction seen before."""
    holds, option = Lake._holds, DataFrameWriter.option
    Lake._holds = lambda *_: False
    DataFrameWriter.option = lambda self, key, value: self if key.startswith("txn") else option(self, key, value)
    try:
        yield
    finally:
        Lake._holds, DataFrameWriter.option = holds, option


def states(night: Callable[[], None], found: Nights, folder: Path) -> list[State]:
    """Runs a night to its end and keeps what the disk holds at each hook.

    Hooks at which not a byte differs share one state: nothing is written between a commit and the next.
    """
    kept: list[State] = []
    digests = [None]

    def keep(hook: str) -> None:
        digest = _digest(found.folder)
        if digest == digests[-1]:
            kept[-1].hooks.append(hook)
            return
        digests.append(digest)
        kept.append(State([hook], folder / str(len(kept))))
        _copy(found.folder, kept[-1].folder)

    with hooked(keep):
        night()
    return kept


def restore(state: State, found: Nights, spark: SparkSession) -> None:
    """Puts a state where the night ran; nothing the session remembers of the lake survives."""
    for name in ROOTS:
        shutil.rmtree(found.folder / name, ignore_errors=True)
    _copy(state.folder, found.folder)
    spark.catalog.clearCache()
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()


def start_night(found: Nights, flags: list[str], conf: dict[str, str], hook: str = "never") -> subprocess.Popen:
    """`medpipe nightly` as a process with a session of its own, which kills itself at the hook."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SPARK_", "PYSPARK_"))}
    command = [sys.executable, "-m", "tests.faults.killed_night", hook, *flags]
    return subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=environment | {"MEDPIPE_SPARK": json.dumps(conf)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait(process: subprocess.Popen, seconds: int) -> tuple[int, str]:
    """Exit code and what was printed, once nothing of the process's session is left.

    Raises:
        subprocess.TimeoutExpired, RuntimeError: it did not end; all of it has been killed.
    """
    try:
        told, _ = process.communicate(timeout=seconds)
        deadline = time.monotonic() + END_SECONDS
        while session_members(process.pid):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{session_members(process.pid)} live on {END_SECONDS} s after their driver")
            time.sleep(0.1)
    finally:
        for pid in session_members(process.pid):
            os.kill(pid, 9)
    return process.returncode, told


def _copy(source: Path, target: Path) -> None:
    for name in ROOTS:
        if (source / name).exists():
            shutil.copytree(source / name, target / name)


def _digest(folder: Path) -> str:
    """SHA-256 of every file's path and bytes."""
    digest = hashlib.sha256()
    for file in sorted(path for name in ROOTS for path in (folder / name).rglob("*") if path.is_file()):
        digest.update(str(file.relative_to(folder)).encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
