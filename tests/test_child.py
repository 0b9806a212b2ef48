import ctypes
import os
import signal
import time
from functools import partial

import pytest

from medpipe.child import Child
from medpipe.errors import DataError


def answer(words, process_ids=None):
    """Each word in capitals; some words are not answered as one would wish."""
    for word in words:
        if word == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "crash":
            ctypes.string_at(0)
        if word == "hang":
            time.sleep(60)
        if word == "fail":
            raise DataError("BAD_WORD", "a word that fails")
        yield str(os.getpid()) if word == "who" else word.upper()


@pytest.fixture
def child():
    with Child(partial(lambda function: function, answer)) as opened:
        yield opened


@pytest.mark.parametrize("word", ["die", "crash"])
def test_a_death_has_no_answer_and_the_next_question_has(child, word):
    assert child.ask(["a", "b"]) == ["A", "B"]
    assert child.ask(["a", word]) is None
    assert child.ask(["b"]) == ["B"]


def test_a_process_that_takes_too_long_is_ended_and_the_next_one_goes_on(child):
    (before,) = child.ask(["who"])
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        child.ask(["hang"], seconds=0.2)
    assert time.monotonic() - started < 5
    with pytest.raises(ProcessLookupError):
        os.kill(int(before), 0)
    (after,) = child.ask(["who"], seconds=30)
    assert after != before != str(os.getpid())


def test_what_the_function_raises_is_raised(child):
    with pytest.raises(DataError, match="BAD_WORD: a word that fails"):
        child.ask(["fail"])
