"""Scores a lake's newest day on a cluster whose executors have GPUs that torch cannot use.

Usage: python -m tests.cluster.gpus FLAGS...; prints one line of JSON: device wanted -> exit code, and what is scored.
"""

import contextlib
import io
import json
import sys

from medpipe.jobs import score_population


def main() -> None:
    told = {}
    for device in ("auto", "gpu"):
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors):
            code = score_population.main([*sys.argv[1:], "--set", f"score.device={device}"])
        told[device] = [code, next((line for line in errors.getvalue().splitlines() if line.startswith("medpipe")), "")]
    print(json.dumps(told))


if __name__ == "__main__":
    main()
