"""A process of its own for work that may kill the process that does it, or never end."""

import multiprocessing
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from pyspark import cloudpickle

from medpipe.errors import raised_by_worker


class Child:
    """A process that answers questions with what a function makes of them; after its death the next one goes on.

    Args:
        start: gives the function, within the process; what the function returns is sent as a list.
        preload: modules loaded once by the process that children are forked from, which has neither threads nor a GPU.
    """

    def __init__(self, start: Callable[[], Callable[[Any], Iterable]], preload: Sequence[str] = ()) -> None:
        self._function = cloudpickle.dumps(start)
        self._preload = list(preload)

    def __enter__(self) -> "Child":
        self._begin()
        return self

    def __exit__(self, *unused: object) -> None:
        self._end()

    def _begin(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(self._preload)
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_answer, args=(other, self._function), daemon=True)
        self._process.start()
        other.close()

    def _end(self) -> None:
        self._connection.close()
        self._process.join()

    def ask(self, question: Any, seconds: float | None = None) -> list | None:
        """The answer, or None: the process died of the question.

        Args:
            seconds: how long to wait for it; None: as long as it takes.
        Raises:
            TimeoutError: none came in time; that process is ended, too.
            What the function raises, as raised_by_worker gives it.
        """
        # A process that is gone may have left word why.
        with suppress(OSError):
            self._connection.send(question)
        if not self._connection.poll(seconds):
            self._process.kill()
            self._end()
            self._begin()
            raise TimeoutError
        try:
            answer = self._connection.recv()
        except (EOFError, OSError):
            self._end()
            self._begin()
            return None
        if isinstance(answer, str):
            failure = RuntimeError(answer)
            raise raised_by_worker(failure) or failure
        return answer


def _answer(connection: Connection, start: bytes) -> None:
    """Answers until nothing more is asked; a failure is sent as text, and ends it."""
    try:
        function = cloudpickle.loads(start)()
        while True:
            try:
                question = connection.recv()
            except (EOFError, OSError):
                return
            connection.send(list(function(question)))
    except Exception:
        connection.send(traceback.format_exc())
