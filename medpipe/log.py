"""The job's log: one JSON object a line, fields from a closed list, no value of any patient."""

import json
import logging
import sys
from datetime import UTC, datetime

FIELDS = ("run_id", "job", "target", "table", "status", "code", "rows", "version", "seconds", "detail")
logger = logging.getLogger("medpipe")


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        told = {name: getattr(record, name) for name in FIELDS if getattr(record, name, None) is not None}
        return json.dumps({"at": at, "level": record.levelname, "event": record.getMessage()} | told)


def configure(path: str | None) -> None:
    """Sends the log to a file, or to stderr for None or `-`. Calling it again moves the log."""
    handler = logging.StreamHandler(sys.stderr) if path in (None, "-") else logging.FileHandler(path)
    handler.setFormatter(_JsonLines())
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
