import hashlib
import hmac

import pytest
from pyspark.sql import functions as F

from medpipe.errors import UsageError
from medpipe.privacy import sealing
from medpipe.privacy.pseudonyms import pseudonym, pseudonymiser

ONE, OTHER = b"1" * 32, b"2" * 32


def test_a_pseudonym_is_the_truncated_hmac_of_namespace_and_id():
    assert pseudonym(ONE, "patient", "17") == hmac.new(ONE, b"patient\x0017", hashlib.sha256).hexdigest()[:32]


def test_key_and_namespace_tell_pseudonyms_apart():
    assert len({pseudonym(ONE, "patient", "17"), pseudonym(OTHER, "patient", "17"), pseudonym(ONE, "visit", "17")}) == 3


def test_a_column_is_hashed_as_one_id_is_and_null_stays_null(spark):
    rows = spark.createDataFrame([("17",), (None,)], "id string")
    found = [row[0] for row in rows.select(pseudonymiser(ONE, "patient")(F.col("id"))).collect()]
    assert sorted(found, key=str) == sorted([pseudonym(ONE, "patient", "17"), None], key=str)


def test_the_key_stands_in_no_plan(spark, capsys):
    rows = spark.createDataFrame([("17",)], "id string").select(
        pseudonymiser(b"canary-key" * 4, "patient")(F.col("id"))
    )
    rows.explain(True)
    assert "canary" not in capsys.readouterr().out


def test_sealed_rows_are_equal_for_equal_text_and_only_the_key_opens_them(spark):
    one, other = b"1" * sealing.NUM_KEY_BYTES, b"2" * sealing.NUM_KEY_BYTES
    rows = spark.createDataFrame([("a",), ("a",), ("b",)], "text string")
    sealed = [bytes(row[0]) for row in rows.select(sealing.sealer(one)(F.col("text"))).collect()]
    assert len(set(sealed)) == 2 and b"a" not in sealed[0]
    assert sorted(sealing.unseal(one, raw) for raw in sealed) == ["a", "a", "b"]
    with pytest.raises(UsageError, match="WRONG_KEY"):
        sealing.unseal(other, sealed[0])
