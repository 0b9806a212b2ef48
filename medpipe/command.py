"""A job's command line: its flags, its settings, and failures that say no patient's value."""

import argparse
import contextlib
import os
import sys
import tomllib
import traceback
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

from medpipe import log, settings
from medpipe.errors import MedpipeError, UsageError


def arguments(name: str, doc: str, takes_delivery: bool = False) -> argparse.ArgumentParser:
    """The flags every job has."""
    parser = argparse.ArgumentParser(name, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lake", help="root of silver, gold and ops")
    parser.add_argument("--phi", help="root of bronze and quarantine (default: LAKE-phi)")
    parser.add_argument("--as-of", type=date.fromisoformat, help="logical date, exclusive: YYYY-MM-DD")
    parser.add_argument("--config", type=Path, help="the hospital's settings, TOML")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, e.g. cohort.washout_days=365"
    )
    parser.add_argument("--log", help="file for the JSON log (default: stderr)")
    if takes_delivery:
        parser.add_argument("--delivery", type=Path, required=True, help="folder the hospital delivered")
        parser.add_argument("--source", help="its format, where its delivery.toml does not name it (default: omop)")
        parser.add_argument(
            "--history", action="store_true", help="an initial load: records count as known when they happened"
        )
    return parser


def run(name: str, parser: argparse.ArgumentParser, argv: list[str] | None, body: Callable) -> int:
    """Parses, reads the settings, runs `body(settings, args)`, and turns a failure into one line and an exit code."""
    args = parser.parse_args(argv)
    log.configure(args.log)
    phi_root = None
    try:
        configured = settings.load(args.config, flags(args))
        if not configured.lake:
            raise UsageError("NO_LAKE", "pass --lake, or set lake in the config file or MEDPIPE_LAKE")
        phi_root = configured.phi_root
        body(configured, args)
        return 0
    except MedpipeError as failure:
        log.logger.error("job failed", extra={"job": name, "code": failure.code, "detail": str(failure)})
        print(f"medpipe {name}: {failure}", file=sys.stderr)
        return failure.exit_code
    except Exception as failure:
        place = _keep_trace(phi_root, name)
        log.logger.error("job failed", extra={"job": name, "code": type(failure).__name__})
        print(
            f"medpipe {name}: {type(failure).__name__}; what it says may hold patients' values and is in {place}",
            file=sys.stderr,
        )
        return 1


def flags(args: argparse.Namespace) -> dict:
    """--lake, --phi and --set KEY=VALUE as nested settings; VALUE is TOML, or text where it is none."""
    given: dict = {name: value for name in ("lake", "phi") if (value := getattr(args, name)) is not None}
    for pair in args.set:
        path, sign, text = pair.partition("=")
        if not sign:
            raise UsageError("BAD_SETTING", f"--set {path}: expected KEY=VALUE")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        *parents, leaf = path.split(".")
        place = given
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = value
    return given


def _keep_trace(phi_root: str | None, name: str) -> str:
    """Full text of the failure into the PHI zone, or nowhere."""
    if phi_root is None or "://" in phi_root:
        return "no file (the PHI root is not a local folder)"
    folder = Path(phi_root) / "errors"
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%S}.txt"
        with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(traceback.format_exc())
        return str(place)
    return "no file (the PHI root cannot be written)"
