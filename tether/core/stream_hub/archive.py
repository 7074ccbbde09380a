"""The database asked for streams that ended, on a thread of its own: it may take long to answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from tether.errors import StoreUnavailable
from tether.ids import JobId
from tether.jobs import Piece
from tether.loops import IDLE, Loop
from tether.streams.events import StreamEvent

MAX_JOBS = 256
"""Jobs in one question."""


@dataclass(frozen=True)
class Ended:
    """What the database holds of a job that ended: its tokens and its last event."""

    run: int
    pieces: tuple[Piece, ...]
    last: StreamEvent


class Archive(Protocol):
    """Where streams are read that Redis no longer has."""

    def ended(self, job_ids: Sequence[JobId]) -> Mapping[JobId, Ended]:
        """Those of the jobs that have ended."""


class ArchiveThread:
    """Owns the thread ``tether-stream-archive``, from the first question to :meth:`close`.

    A question that fails is forgotten: whoever still wants to know asks again.

    Attributes:
      loop: That of the thread.
    """

    def __init__(self, archive: Archive, *, on_answer: Callable[[], None]) -> None:
        """
        Args:
          archive: Whom to ask.
          on_answer: Called on the thread when there is something to :meth:`take`.
        """
        self._archive = archive
        self._on_answer = on_answer
        self._lock = threading.Lock()
        # A dict keeps their order, and each once.
        self._questions: dict[JobId, None] = {}
        self._answers: dict[JobId, Ended] = {}
        self._log = structlog.stdlib.get_logger("tether.client")
        self.loop = Loop("stream-archive", self._step, log=self._log)

    def ask(self, job_ids: Iterable[JobId]) -> None:
        """Ask whether jobs have ended. Returns at once."""
        with self._lock:
            if self.loop.is_stopping:
                return
            self._questions.update(dict.fromkeys(job_ids))
            if not self._questions:
                return
            self.loop.start()
        self.loop.wake()

    def take(self) -> Mapping[JobId, Ended]:
        """The answers since the last call: jobs that have ended."""
        with self._lock:
            answers, self._answers = self._answers, {}
            return answers

    def close(self) -> None:
        """End the thread, once its question is answered. May be repeated."""
        with self._lock:
            self.loop.ask_to_stop()
            self._questions.clear()
        self.loop.stop()

    def _step(self) -> float:
        with self._lock:
            job_ids = list(self._questions)[:MAX_JOBS]
            for job_id in job_ids:
                del self._questions[job_id]
        if not job_ids:
            return IDLE
        ended = self._ended(job_ids)
        if ended:
            with self._lock:
                self._answers.update(ended)
            self._on_answer()
        return 0

    def _ended(self, job_ids: Sequence[JobId]) -> Mapping[JobId, Ended]:
        try:
            return self._archive.ended(job_ids)
        except StoreUnavailable:
            return {}
        except Exception:
            if len(job_ids) == 1:
                self._log.exception("The end of a stream cannot be read. Continuing.", job_id=job_ids[0])
                return {}
        # What one job's rows do to a question must not touch the others.
        ended: dict[JobId, Ended] = {}
        for job_id in job_ids:
            if self.loop.is_stopping:
                break
            ended.update(self._ended([job_id]))
        return ended
