import pytest

from medpipe import keys
from medpipe.errors import UsageError


def test_a_new_key_is_private_and_is_not_overwritten(tmp_path):
    keys.create(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert len(keys.load(f"file:{tmp_path / 'key'}").secret) == 32
    with pytest.raises(UsageError, match="KEY_EXISTS"):
        keys.create(tmp_path / "key")


def test_a_key_file_that_others_may_read_is_refused(tmp_path):
    keys.create(tmp_path / "key")
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(UsageError, match="KEY_MODE: .* has mode 0640"):
        keys.load(f"file:{tmp_path / 'key'}")


@pytest.mark.parametrize(
    ("text", "code"),
    [("ab" * 31, "SHORT_KEY"), ("correct horse", "BAD_KEY"), ("", "NO_KEY")],
    ids=["short", "text", "none"],
)
def test_a_key_that_is_none_is_refused_without_being_printed(monkeypatch, text, code):
    monkeypatch.setenv("THE_KEY", text)
    with pytest.raises(UsageError, match=code) as refused:
        keys.load("env:THE_KEY")
    assert not text or text not in str(refused.value)


def test_subkeys_and_fingerprint_tell_keys_apart_and_hide_the_secret():
    one, other = keys.Key(b"1" * 32), keys.Key(b"2" * 32)
    assert one.fingerprint != other.fingerprint and one.subkey("a") != one.subkey("b")
    assert "1111" not in repr(one) and one.secret.hex() not in one.fingerprint
