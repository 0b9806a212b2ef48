"""Rows at rest that only a key holder may read: deterministic authenticated encryption."""

from collections.abc import Callable

import pandas as pd
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from pyspark.sql import Column
from pyspark.sql import functions as F

from medpipe.errors import UsageError

NUM_KEY_BYTES = 64


def sealer(subkey: bytes) -> Callable[[Column], Column]:
    """A function from a string column to AES-SIV ciphertext: the same text gives the same bytes, so reruns agree.

    Source: RFC 5297, deterministic use without a nonce; equal rows are seen to be equal, nothing else.
    """

    @F.pandas_udf("binary")
    def sealed(texts: pd.Series) -> pd.Series:
        return seal(subkey, texts)

    return sealed


def seal(subkey: bytes, texts: pd.Series) -> pd.Series:
    """One ciphertext per text."""
    cipher = AESSIV(subkey)
    return texts.map(lambda text: cipher.encrypt(text.encode(), None))


def unseal(subkey: bytes, sealed: bytes) -> str:
    """The text behind one sealed value.

    Raises:
        UsageError: WRONG_KEY.
    """
    try:
        return AESSIV(subkey).decrypt(sealed, None).decode()
    except InvalidTag:
        raise UsageError(
            "WRONG_KEY", "this key did not seal the row; give the one phi.quarantine.key_fingerprint names"
        ) from None
