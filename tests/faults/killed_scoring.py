"""Scores a lake's newest day while something of it dies.

Usage: python -m tests.faults.killed_scoring WHAT DELAY MARK FLAGS...; begin it in a session of its own. WHAT dies DELAY
seconds after scoring has begun, and the file MARK says that it did: `worker` (a Python process), `segfault` (the same,
by a segmentation fault), `executor` (a JVM of local-cluster), `driver` (all there is), or `row` (an exception in the
middle of a shard, once).
"""

import os
import signal
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import Tensor

from medpipe import recipes
from medpipe.jobs import score_population
from tests.cluster.harness import session_members
from tests.faults.crashes import hooked


def main() -> int:
    what, delay, mark, *flags = sys.argv[1:]
    if what == "row":
        failing = partial(fail_once, mark=mark, after=time.time() + float(delay))
        recipe = replace(recipes.RISK_GRU, scores=failing)
        recipes.named = lambda name: recipe
    begun = threading.Event()

    def begin(hook: str) -> None:
        if hook == "before ops.scored 1":
            begun.set()

    def kill() -> None:
        begun.wait()
        time.sleep(float(delay))
        while not (victims := VICTIMS[what]()):
            time.sleep(0.01)
        Path(mark).touch()
        death = signal.SIGSEGV if what == "segfault" else signal.SIGKILL
        for victim in victims[:1]:
            os.kill(victim, death) if victim else os.killpg(0, death)

    if what != "row":
        threading.Thread(target=kill, daemon=True).start()
    with hooked(begin):
        return score_population.main(flags)


def fail_once(logits: Tensor, mark: str, after: float) -> Tensor:
    """The probabilities; the first to come here after that time raises instead."""
    if time.time() > after and not Path(mark).exists():
        Path(mark).touch()
        raise ArithmeticError("planted")
    return recipes.probabilities(logits)


def workers() -> list[int]:
    """Python processes that a daemon has forked to run tasks."""
    daemons = {pid for pid in session_members(os.getpid()) if b"pyspark.daemon" in _command(pid)}
    return sorted(pid for pid in daemons if _parent(pid) in daemons)


def executors() -> list[int]:
    return sorted(pid for pid in session_members(os.getpid()) if b"CoarseGrainedExecutorBackend" in _command(pid))


VICTIMS = {"worker": workers, "segfault": workers, "executor": executors, "driver": lambda: [0]}


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
