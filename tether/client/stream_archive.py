"""The database asked for streams that ended, on a thread of its own: it may take long to answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from tether.client.backend import StreamEvent
from tether.errors import StoreUnavailable
from tether.jobs import Piece

MOST_JOBS = 256
"""Jobs in one question."""


@dataclass(frozen=True)
class Ended:
    """What the database holds of a job that ended: its tokens and its last event."""

    run: int
    pieces: tuple[Piece, ...]
    last: StreamEvent


class Archive(Protocol):
    """Where streams are read that Redis no longer has."""

    def ended(self, job_ids: Sequence[str]) -> Mapping[str, Ended]:
        """Those of the jobs that have ended."""


class ArchiveThread:
    """Owns the thread ``tether-stream-archive``, from the first question to :meth:`close`.

    A question that fails is forgotten: whoever still wants to know asks again.
    """

    def __init__(self, archive: Archive, *, on_answer: Callable[[], None]) -> None:
        """
        Args:
          archive: Whom to ask.
          on_answer: Called on the thread when there is something to :meth:`take`.
        """
        self._archive = archive
        self._on_answer = on_answer
        self._changed = threading.Condition()
        # A dict keeps their order, and each once.
        self._questions: dict[str, None] = {}
        self._answers: dict[str, Ended] = {}
        self._is_closing = False
        self._thread: threading.Thread | None = None
        self._log = structlog.stdlib.get_logger("tether.client")

    def ask(self, job_ids: Iterable[str]) -> None:
        """Ask whether jobs have ended. Returns at once."""
        with self._changed:
            if self._is_closing:
                return
            self._questions.update(dict.fromkeys(job_ids))
            if self._questions and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="tether-stream-archive", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def take(self) -> Mapping[str, Ended]:
        """The answers since the last call: jobs that have ended."""
        with self._changed:
            answers, self._answers = self._answers, {}
            return answers

    def close(self) -> None:
        """End the thread, once its question is answered. May be repeated."""
        with self._changed:
            self._is_closing = True
            self._questions.clear()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._questions or self._is_closing)
                if self._is_closing:
                    return
                job_ids = list(self._questions)[:MOST_JOBS]
                for job_id in job_ids:
                    del self._questions[job_id]
            found = self._ended(job_ids)
            if found:
                with self._changed:
                    self._answers.update(found)
                self._on_answer()

    def _ended(self, job_ids: Sequence[str]) -> Mapping[str, Ended]:
        try:
            return self._archive.ended(job_ids)
        except StoreUnavailable:
            return {}
        except Exception:
            if len(job_ids) == 1:
                self._log.exception("The end of a stream cannot be read. Going on.", job_id=job_ids[0])
                return {}
        # What one job's rows do to a question must not touch the others.
        found: dict[str, Ended] = {}
        for job_id in job_ids:
            if self._is_closing:
                break
            found.update(self._ended([job_id]))
        return found
