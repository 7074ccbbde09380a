"""Writes the tokens of all slots, with one call at a time for all of them: the thread ``tether-flush``."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

import structlog

from tether.broker.pools.worker_port import Growth, WorkerPort
from tether.broker.redis.connections import OUTAGE_ERRORS
from tether.errors import EpochChanged
from tether.loops import IDLE, Loop, Outage
from tether.threads import STOP_SECONDS
from tether_workers.attempts.attempt import Attempt, AttemptEnding


class TokenWriter:
    """Owns the thread ``tether-flush``, from :meth:`start` to :meth:`stop`.

    The first token is written at once; what comes while a call is under way goes with the next one. While
    Redis is away everything is kept, and written once when it is back.

    Attributes:
      loop: That of the thread.
    """

    def __init__(self, port: WorkerPort) -> None:
        self._port = port
        self._log = structlog.stdlib.get_logger("tether.flush")
        self._lock = threading.Lock()
        # A dict keeps their order, and each once.
        self._unwritten: dict[Attempt, None] = {}
        self.loop = Loop(
            "flush",
            self._step,
            at_end=self._step,
            outage=Outage(
                OUTAGE_ERRORS,
                self._log,
                begins="Tokens cannot be written. Keeping them.",
                ends="Tokens are written again, or there are none.",
            ),
            log=self._log,
        )

    def start(self) -> None:
        self.loop.start()

    def note(self, attempt: Attempt) -> None:
        """An attempt has something to write."""
        with self._lock:
            self._unwritten[attempt] = None
        self.loop.wake()

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """End the thread, after a last try to write what is left, within ``timeout`` seconds."""
        self.loop.stop(timeout)

    def _step(self) -> float:
        with self._lock:
            attempts, self._unwritten = self._unwritten, {}
        if (outage := self.flush(attempts)) is not None:
            raise outage
        return IDLE

    def flush(self, attempts: Iterable[Attempt]) -> Exception | None:
        """Write the new tokens of these attempts. Those that Redis did not accept are kept for the next.

        Returns:
          The error if Redis is unavailable and did not accept all of them.
        """
        batch = [(attempt, growth) for attempt in attempts if (growth := self._take(attempt)) is not None]
        return self._write(batch) if batch else None

    def _take(self, attempt: Attempt) -> Growth | None:
        try:
            return attempt.take()
        except Exception:
            self._give_up(attempt)
            return None

    def _write(self, batch: Sequence[tuple[Attempt, Growth]]) -> Exception | None:
        try:
            answers = self._port.append_many([growth for _, growth in batch])
        except EpochChanged:
            for attempt, _ in batch:
                attempt.end(AttemptEnding.DROP)
        except OUTAGE_ERRORS as error:
            for attempt, _ in batch:
                self.note(attempt)
            return error
        except Exception:
            return self._write_apart(batch)
        else:
            for (attempt, _), answer in zip(batch, answers, strict=True):
                if attempt.written(answer):
                    self.note(attempt)
        return None

    def _write_apart(self, batch: Sequence[tuple[Attempt, Growth]]) -> Exception | None:
        """One attempt's tokens are refused in a way that is no answer: the others must not suffer."""
        if len(batch) > 1:
            outages = [self._write([one]) for one in batch]
            return next((outage for outage in outages if outage is not None), None)
        self._give_up(batch[0][0])
        return None

    def _give_up(self, attempt: Attempt) -> None:
        self._log.exception("Tokens cannot be written. Giving the attempt up.", job_id=attempt.drawn.job_id)
        attempt.end(AttemptEnding.DROP)
