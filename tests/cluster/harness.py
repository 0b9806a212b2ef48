"""A standalone Spark cluster on this machine: one master and two workers on loopback, from the pip pyspark.

Python on it finds the packages of this environment but not medpipe, which reaches it by --py-files only: a wrapper
starts it without `site`, so that the editable install is never seen. Jobs and workers stand in another directory.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyspark

from medpipe.session import delta_jars

NUM_WORKERS = 2
START_SECONDS = 60
STOP_SECONDS = 10
SPARK_HOME = Path(pyspark.__file__).parent
SITE_PACKAGES = SPARK_HOME.parent
CONF = {
    "spark.executor.memory": "1g",
    "spark.driver.memory": "1g",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "2",
    "spark.databricks.delta.snapshotPartitions": "2",
}


@dataclass(frozen=True)
class Cluster:
    """A running cluster.

    Attributes:
        folder: where jobs and workers stand; nothing of the project lies there.
        daemons: process ids of the master and the workers; each began a session of its own.
    """

    master: str
    folder: Path
    environment: dict[str, str]
    daemons: tuple[int, ...]

    def submit(
        self, script: Path, args: list[str], py_files: list[Path], conf: dict[str, str], seconds: int = 600
    ) -> subprocess.CompletedProcess:
        """Runs `spark-submit script args` in client mode; exit code, stdout and stderr come back as they are.

        Raises:
            subprocess.TimeoutExpired: the job ran longer than `seconds`; it has been killed.
        """
        command = [SPARK_HOME / "bin" / "spark-submit", "--master", self.master]
        for key, value in (CONF | delta_jars() | conf).items():
            command += ["--conf", f"{key}={value}"]
        if py_files:
            command += ["--py-files", ",".join(str(file) for file in py_files)]
        process = _start([*command, script, *args], self.folder, self.environment, subprocess.PIPE, subprocess.PIPE)
        try:
            stdout, stderr = process.communicate(timeout=seconds)
        finally:
            _stop([process])
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


@contextmanager
def standalone_cluster() -> Iterator[Cluster]:
    """A cluster of one master and two workers, each with one core and 1 GB; gone at the end, whatever happened.

    Raises:
        RuntimeError: it did not come up; the message ends with the daemons' log.
    """
    folder = Path(tempfile.mkdtemp(prefix="medpipe-cluster-"))
    environment = _environment(folder)
    processes = []
    try:
        port, web_port = _free_port(), _free_port()
        master = f"spark://127.0.0.1:{port}"
        at = ["--host", "127.0.0.1", "--port"]
        daemons = [["master.Master", *at, str(port), "--webui-port", str(web_port)]]
        for number in range(NUM_WORKERS):
            work = ["--work-dir", str(folder / f"worker{number}"), "--cores", "1", "--memory", "1g"]
            daemons.append(["worker.Worker", *at, "0", "--webui-port", "0", *work, master])
        with (folder / "daemons.log").open("ab") as log:
            for name, *options in daemons:
                command = [SPARK_HOME / "bin" / "spark-class", f"org.apache.spark.deploy.{name}", *options]
                processes.append(_start(command, folder, environment, log, log))
                if name == "master.Master":
                    _wait_for(lambda: _num_workers(web_port) is not None, folder)
        _wait_for(lambda: _num_workers(web_port) == NUM_WORKERS, folder)
        yield Cluster(master, folder, environment, tuple(process.pid for process in processes))
    finally:
        _stop(processes)
        shutil.rmtree(folder, ignore_errors=True)


def session_members(leader: int) -> list[int]:
    """Processes of the session that `leader` began: Spark's Python daemons leave its process group, not its session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # Fields after the command's name, which may hold spaces: state, parent, group, session.
                state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:
                continue
            if int(session) == leader and state != "Z":
                found.append(int(entry.name))
    return found


def _environment(folder: Path) -> dict[str, str]:
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{SITE_PACKAGES}" exec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SPARK_", "PYSPARK_", "PYTHON", "MEDPIPE_"))}
    return inherited | {
        "SPARK_HOME": str(SPARK_HOME),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_DAEMON_MEMORY": "256m",
        "SPARK_LOCAL_DIRS": str(folder / "scratch"),
        "PYSPARK_PYTHON": str(python),
        "PYSPARK_DRIVER_PYTHON": str(python),
    }


def _start(command: list, folder: Path, environment: dict, stdout, stderr) -> subprocess.Popen:
    command = [str(part) for part in command]
    alone = {"stdin": subprocess.DEVNULL, "start_new_session": True}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=stdout, stderr=stderr, text=True, **alone)


def _stop(processes: list[subprocess.Popen]) -> None:
    """Ends the processes and all they started: asked first, killed after STOP_SECONDS."""
    leaders = [process.pid for process in processes]
    for signum in (signal.SIGTERM, signal.SIGKILL):
        for pid in _members(leaders):
            try:
                os.kill(pid, signum)
            except ProcessLookupError:
                pass
        deadline = time.monotonic() + STOP_SECONDS
        while _members(leaders) and time.monotonic() < deadline:
            time.sleep(0.1)
    for process in processes:
        process.wait()


def _members(leaders: list[int]) -> list[int]:
    return [pid for leader in leaders for pid in session_members(leader)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _num_workers(web_port: int) -> int | None:
    """Workers the master counts as alive; None while it does not answer."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://127.0.0.1:{web_port}/json/", timeout=5) as answer:
            return json.load(answer)["aliveworkers"]
    except OSError:
        return None


def _wait_for(condition, folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            log = (folder / "daemons.log").read_text("utf-8", "replace")
            raise RuntimeError(f"no cluster after {START_SECONDS} s; its log ends: {log[-2000:]}")
        time.sleep(0.2)
