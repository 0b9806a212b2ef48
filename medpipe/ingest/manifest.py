"""A delivery: a folder of files, what it says of itself, and the digest that names it."""

import gzip
import hashlib
import os
import tomllib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from medpipe.errors import DataError, UsageError

MANIFEST = "delivery.toml"
# Sources that are no patients' records, and have jobs of their own.
IMAGES, MOLECULES = "images", "molecules"
KEYS = {"source", "cdm_version", "delivered_at", "is_history", "is_snapshot", "files"}
FILE_KEYS = {"name", "bytes", "sha256", "rows"}


@dataclass(frozen=True)
class DeliveredFile:
    """One file as received; `name` is its path inside the delivery, with forward slashes.

    Attributes:
        num_rows: as the manifest tells, or None.
    """

    name: str
    path: Path
    num_bytes: int
    sha256: str
    num_rows: int | None = None

    @property
    def is_deletions(self) -> bool:
        """Whether its rows are deletions: it lies in a folder `deleted`, as bulk export clients write them."""
        return "deleted" in self.name.lower().split("/")[:-1]


@dataclass(frozen=True)
class Delivery:
    """What a hospital sent at one time.

    Attributes:
        source: outside format, e.g. omop, or images.
        delivery_id: day and digest of all content: other content is another delivery, the same is the same. No name of
            a folder, which might be a patient's.
        known_at: when it was delivered, UTC.
        is_history: an initial load, whose records count as recorded when they happened.
        files: sorted by name; empty for a delivery that is in bronze already.
        is_snapshot: the tables it holds are complete: what was delivered of them before and is not in it is withdrawn.
    """

    source: str
    delivery_id: str
    known_at: datetime
    is_history: bool
    files: tuple[DeliveredFile, ...]
    is_snapshot: bool = False

    @property
    def came(self) -> tuple[float, str]:
        """What orders deliveries: the time, then the id."""
        return self.known_at.timestamp(), self.delivery_id

    def same_as(self, other: "Delivery") -> bool:
        """Whether both are of the same content; a folder that does not tell its day may be given on several."""
        return (self.source, self.delivery_id[-8:]) == (other.source, other.delivery_id[-8:])


def read_delivery(folder: Path, end: datetime, zone: str, is_history: bool, source: str | None = None) -> Delivery:
    """Lists and digests a delivery; reads delivery.toml where there is one.

    Args:
        end: midnight of as_of; a folder without delivered_at counts as delivered one second before.
        zone: the hospital's time zone, in which delivered_at is written.
        is_history: holds where delivery.toml does not say.
        source: the outside format that is expected; None: what delivery.toml says, omop if nothing.
    Raises:
        UsageError: NO_DELIVERY, BAD_MANIFEST, OTHER_SOURCE.
        DataError: EMPTY_DELIVERY; EMPTY_FILE, but for images; MANIFEST_MISMATCH where the files are not those that
            delivery.toml lists.
    """
    if not folder.is_dir():
        raise UsageError("NO_DELIVERY", f"--delivery {folder} is not a folder")
    told = _told(folder / MANIFEST)
    if source and told.get("source", source) != source:
        raise UsageError(
            "OTHER_SOURCE", f"{folder / MANIFEST} says source {told['source']!r}, expected {source!r}; mend one of them"
        )
    source = told.get("source", source or "omop")
    if told.get("is_snapshot") and source in (IMAGES, MOLECULES):
        raise UsageError("BAD_MANIFEST", f"{folder / MANIFEST}: is_snapshot is for patients' records, not {source}")
    files = _images(folder) if source == IMAGES else _tables(folder)
    if not files:
        raise DataError("EMPTY_DELIVERY", f"{folder} holds no file; expected the tables of one delivery")
    if "files" in told:
        files = _listed(files, told["files"])
    content = hashlib.sha256(repr((sorted(told.items()), [(f.name, f.sha256) for f in files])).encode()).hexdigest()
    known_at = end - timedelta(seconds=1)
    if "delivered_at" in told:
        known_at = told["delivered_at"].replace(tzinfo=told["delivered_at"].tzinfo or ZoneInfo(zone))
    return Delivery(
        source=source,
        delivery_id=f"{known_at.astimezone(ZoneInfo(zone)):%Y-%m-%d}-{content[:8]}",
        known_at=known_at.astimezone(UTC),
        is_history=told.get("is_history", is_history),
        files=files,
        is_snapshot=told.get("is_snapshot", False),
    )


def _tables(folder: Path) -> tuple[DeliveredFile, ...]:
    inside = (path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    # As Spark does: _SUCCESS, .crc and their kin are not data.
    paths = sorted(p for p in inside if not any(part.startswith(("_", ".")) for part in p.relative_to(folder).parts))
    return tuple(_file(folder, path) for path in paths)


def _images(folder: Path) -> tuple[DeliveredFile, ...]:
    """Whatever its name, empty or a link: an image is judged alone, and does not stop the others."""
    inside = sorted(path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    return tuple(_image(folder, path) for path in inside if path != folder / MANIFEST)


def _image(folder: Path, path: Path) -> DeliveredFile:
    # A name that is not UTF-8 could not be stored; under this one the file is not found, which is told.
    name = os.fsencode(path.relative_to(folder).as_posix()).decode("utf-8", "backslashreplace")
    if not (path.is_file() and path.resolve().is_relative_to(folder.resolve())):
        # A link that leads out of the delivery, or nowhere, is not followed.
        return DeliveredFile(name, path, 0, hashlib.sha256(os.fsencode(os.readlink(path))).hexdigest())
    with path.open("rb") as file:
        return DeliveredFile(name, path, path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def _told(path: Path) -> dict:
    if not path.is_file():
        return {}
    try:
        told = tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as failure:
        raise UsageError("BAD_MANIFEST", f"{path} is not TOML: {failure}") from None
    unknown = sorted(set(told) - KEYS)
    if unknown:
        raise UsageError("BAD_MANIFEST", f"{path}: unknown {', '.join(unknown)}; expected {', '.join(sorted(KEYS))}")
    for name in ("is_history", "is_snapshot"):
        if not isinstance(told.get(name, False), bool):
            raise UsageError("BAD_MANIFEST", f"{path}: {name} must be true or false")
    for file in told.get("files", []):
        if set(file) - FILE_KEYS or "name" not in file:
            found = f"{path}: a file has {sorted(file)}"
            raise UsageError("BAD_MANIFEST", f"{found}, expected name and any of bytes, sha256 and rows")
    if not isinstance(told.get("delivered_at", datetime.min), datetime):
        raise UsageError("BAD_MANIFEST", f"{path}: delivered_at must be a TOML date-time, e.g. 2026-01-30T22:00:00")
    return told


def _listed(files: tuple[DeliveredFile, ...], told: list[dict]) -> tuple[DeliveredFile, ...]:
    """The files with their numbers of rows, if they are those of the list, and are whole."""
    found, listed = {file.name: file for file in files}, {entry["name"]: entry for entry in told}
    wrong = [f"{name} is listed and not there" for name in sorted(set(listed) - set(found))]
    wrong += [f"{name} is there and not listed" for name in sorted(set(found) - set(listed))]
    for name in sorted(set(found) & set(listed)):
        file, entry = found[name], listed[name]
        if entry.get("bytes", file.num_bytes) != file.num_bytes:
            wrong.append(f"{name} has {file.num_bytes} bytes, listed are {entry['bytes']}")
        elif entry.get("sha256", file.sha256).lower() != file.sha256:
            wrong.append(f"{name} has another sha256 than is listed")
    if wrong:
        raise DataError("MANIFEST_MISMATCH", f"{'; '.join(wrong)}; ask for the delivery again")
    return tuple(replace(file, num_rows=listed[file.name].get("rows")) for file in files)


def damaged(files: Iterable[DeliveredFile]) -> str | None:
    """The first gzip file that ends early or is not what its checksum says, or None. Reads them all."""
    for file in files:
        if file.name.lower().endswith(".gz"):
            try:
                with gzip.open(file.path) as content:
                    while content.read(1 << 20):
                        pass
            except (EOFError, gzip.BadGzipFile, zlib.error):
                return file.name
    return None


def _file(folder: Path, path: Path) -> DeliveredFile:
    num_bytes = path.stat().st_size
    name = path.relative_to(folder).as_posix()
    if num_bytes == 0:
        raise DataError("EMPTY_FILE", f"{name} of delivery {folder.name} has 0 bytes; ask for it again")
    with path.open("rb") as file:
        return DeliveredFile(name, path, num_bytes, hashlib.file_digest(file, "sha256").hexdigest())
