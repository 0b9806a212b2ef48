"""medpipe as one zip, for `spark-submit --py-files` on a cluster whose machines do not have it installed."""

import zipfile
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

PACKAGES = ("medpipe", "medpipe.jobs", "medpipe.schemas")
SUFFIXES = (".py", ".toml", ".properties")
# The same code gives the same bytes, so a copy on a cluster can be compared by its digest.
TIMESTAMP = (1980, 1, 1, 0, 0, 0)


def write_zip(target: Path) -> int:
    """Writes the installed medpipe, its jobs and its contracts as a zip; returns the number of files in it.

    An editable install, a wheel and such a zip itself give the same bytes.
    """
    files = {path: file for name in PACKAGES for path, file in _walk(name.replace(".", "/"), resources.files(name))}
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w") as bundle:
        for path, file in sorted(files.items()):
            bundle.writestr(zipfile.ZipInfo(path, TIMESTAMP), file.read_bytes(), zipfile.ZIP_DEFLATED)
    return len(files)


def _walk(folder: str, root: Traversable) -> list[tuple[str, Traversable]]:
    found = []
    for entry in root.iterdir():
        path = f"{folder}/{entry.name}"
        if entry.is_dir() and entry.name != "__pycache__":
            found += _walk(path, entry)
        elif entry.name.endswith(SUFFIXES):
            found.append((path, entry))
    return found
