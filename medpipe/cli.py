"""The `medpipe` command: finds what was asked for and hands it the rest of the line.

Spark, torch and the jobs are imported by the command that needs them, so that help comes at once.
"""

import argparse
import ast
import sys
from collections.abc import Callable
from importlib import import_module, resources
from pathlib import Path

from medpipe.errors import MedpipeError, UsageError

# Command -> function of the remaining arguments that returns the exit code, and what help says of it.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("medpipe.jobs.demo:main", "two nights of a simulated hospital, end to end, on this machine"),
    "simulate": ("medpipe.cli:simulate", "write the deliveries of a simulated hospital"),
    "nightly": ("medpipe.jobs.nightly:main", "a night: delivery in, scores and recommendations out"),
    "run": ("medpipe.cli:run", "run one job; alone: list the jobs"),
    "tables": ("medpipe.show:tables", "the data dictionary: every table, or the columns of one"),
    "sql": ("medpipe.show:sql", "query the lake's tables by name, e.g. gold.score"),
    "recommend": (
        "medpipe.jobs.show_recommendations:main",
        "`recommend show --patient PSEUDONYM`: a patient's list, why, and what was blocked",
    ),
    "history": ("medpipe.show:history", "the ledger: what ran, on what, with what outcome"),
    "register": ("medpipe.jobs.register_tables:main", "put the lake's tables into the metastore's catalog"),
    "reidentify": ("medpipe.jobs.reidentify_patient:main", "for key holders: the patient behind a pseudonym, audited"),
    "quarantine": ("medpipe.jobs.show_quarantine:main", "refused rows: counts by reason; for key holders, the rows"),
    "erase": ("medpipe.jobs.erase_patient:main", "for key holders: take a patient out of every table, for good"),
    "new-key": ("medpipe.cli:new_key", "write a new pseudonym key to a file"),
    "zip": ("medpipe.cli:zip_code", "write medpipe as a zip for spark-submit --py-files"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command; a failure is one line on stderr and an exit code, see errors.py."""
    words = sys.argv[1:] if argv is None else argv
    command, rest = (words[0], words[1:]) if words else ("--help", [])
    try:
        if command in ("-h", "--help", "help"):
            print(_help())
            return 0
        if command == "--version":
            print(import_module("medpipe").__version__)
            return 0
        if command not in COMMANDS:
            raise UsageError("UNKNOWN_COMMAND", f"no command {command!r}; expected one of {', '.join(COMMANDS)}")
        return _function(COMMANDS[command][0])(rest)
    except MedpipeError as failure:
        print(f"medpipe: {failure}", file=sys.stderr)
        return failure.exit_code
    except KeyboardInterrupt:
        return 130


def jobs() -> dict[str, str]:
    """Name -> first line of the docstring of every job, read without importing it."""
    files = [file for file in resources.files("medpipe.jobs").iterdir() if file.name.endswith(".py")]
    docs = {file.name.removesuffix(".py"): ast.get_docstring(ast.parse(file.read_text("utf-8"))) for file in files}
    return {name: (doc or "").partition("\n")[0] for name, doc in sorted(docs.items()) if not name.startswith("_")}


def run(argv: list[str]) -> int:
    """`medpipe run JOB ...` is `spark-submit jobs/JOB.py ...` with a session of medpipe's own."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_columns("usage: medpipe run JOB [--help] ...", jobs()))
        return 0
    if argv[0] not in jobs():
        raise UsageError("UNKNOWN_JOB", f"no job {argv[0]!r}; expected one of {', '.join(jobs())}")
    return _function(f"medpipe.jobs.{argv[0]}:main")(argv[1:])


def simulate(argv: list[str]) -> int:
    """Deliveries and, apart from them, the truth behind them."""
    from rich.console import Console
    from rich.progress import Progress

    parser = _parser("simulate", simulate)
    parser.add_argument("--patients", type=int, default=2000, help="default 2000")
    parser.add_argument("--seed", type=int, default=1, help="the same seed writes the same hospital; default 1")
    parser.add_argument("--nights", type=int, default=2, help="deliveries; default 2")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    args = parser.parse_args(argv)
    settings = _function("medpipe.simulate:HospitalSettings")(args.patients, args.seed, args.nights)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("patients", total=args.patients)
        write_hospital = _function("medpipe.simulate:write_hospital")
        write_hospital(settings, args.out, lambda num_done, _: progress.update(task, completed=num_done))
    print(
        f"{args.out}: {args.nights} deliveries of a hospital of {args.patients:,} patients, and the truth behind them"
    )
    return 0


def new_key(argv: list[str]) -> int:
    """Writes a new pseudonym key, readable by you alone. Keep a copy: no other key makes the same pseudonyms."""
    parser = _parser("new-key", new_key)
    parser.add_argument("file", type=Path)
    path = parser.parse_args(argv).file
    _function("medpipe.keys:create")(path)
    print(f"{path}: a new key; name it with --set privacy.key=file:{path}")
    return 0


def zip_code(argv: list[str]) -> int:
    """Writes medpipe, its jobs and its contracts as one zip, for a cluster that does not have it installed."""
    parser = _parser("zip", zip_code)
    parser.add_argument("file", type=Path)
    path = parser.parse_args(argv).file
    num_files = _function("medpipe.bundle:write_zip")(path)
    print(f"{path}: {num_files} files")
    return 0


def _parser(name: str, function: Callable) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(f"medpipe {name}", description=function.__doc__)


def _function(place: str) -> Callable:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def _help() -> str:
    title = "usage: medpipe COMMAND [--help] ...\n\nHospital data in, risk scores and treatment recommendations out."
    return _columns(title, {name: text for name, (_, text) in COMMANDS.items()})


def _columns(title: str, lines: dict[str, str]) -> str:
    width = max((len(name) for name in lines), default=0)
    return "\n".join([title, "", *[f"  {name:<{width}}  {text}" for name, text in lines.items()]])
