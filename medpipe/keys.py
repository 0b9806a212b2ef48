"""The hospital's secret key: read from where the settings point, checked, never printed, never in a Spark plan."""

import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from medpipe.errors import UsageError

NUM_BYTES = 32


@dataclass(frozen=True)
class Key:
    """A secret of at least 32 bytes. Each purpose has a subkey of its own (HKDF-SHA256, RFC 5869)."""

    secret: bytes = field(repr=False)

    def subkey(self, purpose: str, num_bytes: int = NUM_BYTES) -> bytes:
        return HKDF(SHA256(), num_bytes, salt=None, info=f"medpipe/{purpose}".encode()).derive(self.secret)

    @property
    def fingerprint(self) -> str:
        """16 hex digits that name the key and tell nothing of it."""
        return self.subkey("fingerprint", 8).hex()


def create(path: Path) -> None:
    """Writes a new random key, readable by its owner alone. Refuses to overwrite one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError("KEY_EXISTS", f"{path} is there already; a new key would orphan every pseudonym") from None
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_hex(NUM_BYTES) + "\n")


def load(reference: str) -> Key:
    """The key behind `file:PATH` or `env:NAME`: at least 64 hex digits.

    Raises:
        UsageError: NO_KEY, KEY_MODE (a file others can read), SHORT_KEY, BAD_KEY_REFERENCE.
    """
    kind, _, place = reference.partition(":")
    if kind == "file":
        text = _read(Path(place))
    elif kind == "env":
        text = os.environ.get(place)
        if not text:
            raise UsageError(
                "NO_KEY",
                f"environment variable {place} holds no pseudonym key; make one with `medpipe new-key FILE` and pass "
                "--set privacy.key=file:FILE",
            )
    else:
        raise UsageError("BAD_KEY_REFERENCE", "privacy.key must be file:PATH or env:NAME")
    try:
        secret = bytes.fromhex(text.strip())
    except ValueError:
        raise UsageError("BAD_KEY", f"{reference} is not hexadecimal; make a key with `medpipe new-key FILE`") from None
    if len(secret) < NUM_BYTES:
        raise UsageError("SHORT_KEY", f"{reference} holds {len(secret)} bytes, expected at least {NUM_BYTES}")
    return Key(secret)


def _read(path: Path) -> str:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as failure:
        raise UsageError(
            "NO_KEY", f"key file {path}: {failure.strerror}; make one with `medpipe new-key {path}`"
        ) from None
    if mode & 0o077:
        raise UsageError("KEY_MODE", f"key file {path} has mode {mode:04o}; others may read it: chmod 600 {path}")
    return path.read_text()
