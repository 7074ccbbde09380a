"""The flush thread: writes what all slots have made, with one call at a time for all of them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import structlog

from tether.broker.connections import OUTAGE_ERRORS
from tether.broker.worker_port import Growth, WorkerPort
from tether.errors import EpochChanged
from tether_workers.attempt import Attempt, Ending

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 1.0
"""Between two tries while Redis is away; the pause doubles until then."""


class FlushThread:
    """Owns the thread ``tether-flush``, from :meth:`start` to :meth:`stop`.

    The first token is written at once; what comes while a call is under way goes with the next one. While
    Redis is away everything is kept, and written once when it is back.
    """

    def __init__(self, port: WorkerPort) -> None:
        self._port = port
        self._log = structlog.stdlib.get_logger("tether.flush")
        self._news = threading.Condition()
        # A dict keeps their order, and each once.
        self._unwritten: dict[Attempt, None] = {}
        self._is_stopping = False
        self._pause = 0.0
        self._thread = threading.Thread(target=self._run, name="tether-flush", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def note(self, attempt: Attempt) -> None:
        """An attempt has something to write."""
        with self._news:
            self._unwritten[attempt] = None
            self._news.notify()

    def stop(self) -> None:
        """End the thread, after a last try to write what is left."""
        with self._news:
            self._is_stopping = True
            self._news.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._news:
                if self._pause:
                    self._news.wait_for(lambda: self._is_stopping, self._pause)
                self._news.wait_for(lambda: self._unwritten or self._is_stopping)
                is_last = self._is_stopping
                attempts = list(self._unwritten)
                self._unwritten.clear()
            self.flush(attempts)
            if is_last:
                return

    def flush(self, attempts: Sequence[Attempt]) -> None:
        """Write what these attempts have made."""
        batch = [(attempt, growth) for attempt in attempts if (growth := self._take(attempt)) is not None]
        if batch:
            self._write(batch)

    def _take(self, attempt: Attempt) -> Growth | None:
        try:
            return attempt.take()
        except Exception:
            self._give_up(attempt)
            return None

    def _write(self, batch: Sequence[tuple[Attempt, Growth]]) -> None:
        try:
            answers = self._port.append_many([growth for _, growth in batch])
        except EpochChanged:
            for attempt, _ in batch:
                attempt.end(Ending.DROP)
        except OUTAGE_ERRORS as error:
            if not self._pause:
                self._log.warning("Tokens cannot be written. Keeping them.", error=str(error))
            self._pause = min(max(self._pause * 2, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
            for attempt, _ in batch:
                self.note(attempt)
        except Exception:
            self._write_apart(batch)
        else:
            self._pause = 0.0
            for (attempt, _), answer in zip(batch, answers, strict=True):
                if attempt.written(answer):
                    self.note(attempt)

    def _write_apart(self, batch: Sequence[tuple[Attempt, Growth]]) -> None:
        """One attempt's tokens are refused in a way that is no answer: the others must not suffer."""
        if len(batch) > 1:
            for one in batch:
                self._write([one])
            return
        self._give_up(batch[0][0])

    def _give_up(self, attempt: Attempt) -> None:
        self._log.exception("Tokens cannot be written. Giving the attempt up.", job_id=attempt.drawn.job_id)
        attempt.end(Ending.DROP)
