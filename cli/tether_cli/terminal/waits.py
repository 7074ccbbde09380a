"""What is told of a response that is slow to come, while it is waited for."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator

from tether.threads import OwnedThread
from tether_cli.terminal.output import Notes

NO_ANSWER = "the gateway has not responded yet"


@contextlib.contextmanager
def telling_of_waits(
    notes: Notes, *, after: float | None = None, ask: Callable[[], str] = lambda: ""
) -> Iterator[None]:
    """Print a notice when a response is slow, and why: clients retry for half a minute.

    Owns the thread ``tether-cli-wait``, which ends with it.

    Args:
      after: Seconds; by default the patience of the notes.
      ask: Returns why a gateway that has not answered is slow; empty where it does not say.
    """
    waits = _Waits(notes, notes.patience if after is None else after, ask)
    thread = OwnedThread("cli-wait", waits.tell, ask_to_stop=waits.stop)
    with _heard(waits):
        thread.start()
        try:
            yield
        finally:
            thread.stop()


@contextlib.contextmanager
def _heard(handler: logging.Handler) -> Iterator[None]:
    """Give a handler what the client logs of calls that are tried again."""
    # Its name stands here too: its module is loaded with the client, which not every verb needs.
    log = logging.getLogger("tether.client.retries")
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


class _Waits(logging.Handler):
    """Why there is no response yet, as the client logs it."""

    def __init__(self, notes: Notes, patience: float, ask: Callable[[], str]) -> None:
        super().__init__()
        self._notes = notes
        self._patience = patience
        self._ask = ask
        self._changed = threading.Condition()
        self._has_answered = False
        self._why = ""

    def emit(self, record: logging.LogRecord) -> None:
        # Without a status nothing has answered.
        if getattr(record, "status", None) is not None:
            with self._changed:
                self._why = getattr(record, "why", "")
                self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._has_answered = True
            self._changed.notify_all()

    def tell(self) -> None:
        """Tell it once the patience is over, and each other reason once."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_answered, self._patience)
            why = self._why
        told = {"", why}
        text = why if self._has_answered else why or self._ask() or NO_ANSWER
        while not self._has_answered:
            self._notes.warning(f"{text}: still trying (Ctrl-C stops)")
            with self._changed:
                self._changed.wait_for(lambda: self._has_answered or self._why not in told)
                text = self._why
            told.add(text)
