"""Failures a user can act on: an exit code, a short code for the ledger, and a message without patient values."""

import re


class MedpipeError(Exception):
    """A failure with a remedy. Base of the five kinds below; `code` is stable and goes to ops.run."""

    exit_code = 1

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class UsageError(MedpipeError):
    """An argument, a setting or a key is wrong."""

    exit_code = 2


class DataError(MedpipeError):
    """The data break a threshold or do not balance; nothing was published."""

    exit_code = 3


class ContractError(MedpipeError):
    """A table does not have the shape its contract demands."""

    exit_code = 4


class ConflictError(MedpipeError):
    """Another run changed the same table; run again."""

    exit_code = 5


class MissingEnvironmentError(MedpipeError):
    """Something the machine must provide is not there: Java, a JAR, a GPU, the model's file as it was registered."""

    exit_code = 6


def raised_by_worker(failure: Exception) -> MedpipeError | None:
    """The error of ours that a Python worker raised, out of the text that Spark makes of it; None for any other."""
    found = re.search(r"medpipe\.errors\.(\w+): ([A-Z_]+): (.*)", str(failure))
    kinds = {kind.__name__: kind for kind in MedpipeError.__subclasses__()}
    return kinds[found[1]](found[2], found[3]) if found and found[1] in kinds else None


def task_of_dead_worker(failure: Exception) -> int | None:
    """Index of the task whose Python worker died each time it was tried, out of Spark's text; None for any other."""
    died = r"Task (\d+) in stage [\d.]+ failed \d+ times, most recent failure: .*Python worker exited unexpectedly"
    found = re.search(died, str(failure))
    return int(found[1]) if found else None
