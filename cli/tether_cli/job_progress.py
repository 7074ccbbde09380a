"""Follows a job to its end, and shows what it makes."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

from tether.ids import JobId
from tether_cli.terminal.output import Notes, TextOutput, print_line

if TYPE_CHECKING:
    from tether.client.handles import JobHandle
    from tether.errors import TetherError
    from tether.streams.events import StreamEvent
    from tether_cli.job_news import JobNews


MAX_SILENCE_SECONDS = 60.0
"""While nothing comes of a job, this often at least it is looked why."""


class WaitLimit:
    """How long a whole command may take, counted from when this is made."""

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
          seconds: None where there is no limit.
          clock: Monotonic, in seconds.
        """
        self.seconds = seconds
        self._clock = clock
        self._ends_at = None if seconds is None else clock() + seconds

    def left(self) -> float | None:
        """Seconds, not below 0; None where there is no limit."""
        return None if self._ends_at is None else max(self._ends_at - self._clock(), 0.0)


def told_after(patience: float, limit: WaitLimit, delay: float = 0.0) -> float:
    """After how many seconds it is told why nothing has come of a job: while there is still time to ask.

    Args:
      patience: What is waited where there is no limit.
      delay: Seconds in which nothing is to come.
    """
    left = limit.left()
    if left is None or delay:
        return patience + delay
    return min(patience, left / 2)


def events_of(
    handle: JobHandle,
    *,
    offset: int = 0,
    limit: WaitLimit | None = None,
    news: JobNews | None = None,
    silence: float | None = None,
) -> Generator[StreamEvent, None, None]:
    """Everything that happens to a job from token ``offset`` on, to the end.

    Args:
      limit: Longest wait for the end.
      news: Hears of each event, and of silences.
      silence: After how many seconds without a first event that is, then after twice as many, and so on, up
        to a minute; never where this is None. After an event it is after the patience of ``news``.

    Raises:
      JobNotFound: There is no such job.
      ResultTimeout: It has not ended by then.
    """
    from tether.errors import ResultTimeout

    inbox: queue.SimpleQueue[StreamEvent | TetherError] = queue.SimpleQueue()
    limit = limit or WaitLimit(None)
    tell_after = None if news is None else silence
    subscription = handle.backend.stream_port.follow(handle.job_id, offset, inbox.put)
    try:
        while True:
            left = limit.left()
            is_cut_short = tell_after is not None and (left is None or tell_after < left)
            try:
                event = inbox.get(timeout=tell_after if is_cut_short else left)
            except queue.Empty:
                if is_cut_short:
                    assert news is not None
                    assert tell_after is not None
                    news.tell_silence()
                    tell_after = min(2 * tell_after, MAX_SILENCE_SECONDS)
                    continue
                raise ResultTimeout(
                    f"job {handle.job_id} has not finished within {limit.seconds:g} s; it continues"
                ) from None
            if isinstance(event, Exception):
                raise event
            if news is not None:
                news.hear(event)
                tell_after = told_after(news.patience, limit)
            yield event
            if event.is_last:
                return
    finally:
        subscription.close()


def check_end(job_id: JobId, last: StreamEvent) -> None:
    """
    Raises:
      JobFailed: The last event tells that the job failed, was cancelled or expired.
    """
    from tether.client.handles import Gathering

    Gathering(job_id).result(last)


def show_text(
    job_id: JobId, events: Generator[StreamEvent, None, None], offset: int, output: TextOutput, notes: Notes
) -> None:
    """Print the text as it is made.

    Args:
      offset: Tokens before the first that is printed.

    Raises:
      JobFailed: It failed, was cancelled or expired.
    """
    shown = offset
    with contextlib.closing(events):
        for event in events:
            if event.kind == "delta":
                output.write(event.text)
                shown = event.offset
            elif event.kind == "started":
                notes.progress("running")
            elif event.kind == "rerouted":
                notes.progress("rerouted: another worker continues")
            elif event.kind == "restarted":
                _tell_restart(max(shown - max(event.offset, offset), 0), notes)
                shown = event.offset
            elif event.is_last:
                output.end_line()
                check_end(job_id, event)
                notes.progress(_told_end(event))


def show_events(job_id: JobId, events: Generator[StreamEvent, None, None]) -> None:
    """Print each event as one JSON object per line.

    Raises:
      JobFailed: It failed, was cancelled or expired.
    """
    from tether.streams.events import event_to_json

    with contextlib.closing(events):
        for event in events:
            print_line({"kind": event.kind, "job_id": job_id, **event_to_json(event)})
            if event.is_last:
                check_end(job_id, event)


@contextlib.contextmanager
def going_on(job_id: JobId, notes: Notes, *, is_accepted: bool) -> Iterator[None]:
    """Says how to come back to a job that is left before its end.

    Args:
      is_accepted: Whether the job was accepted just now. Else, where it cannot be followed, nothing is known.
    """
    from tether.errors import JobFailed, ResultTimeout, TetherError

    try:
        yield
    except JobFailed:
        raise
    except (KeyboardInterrupt, TetherError) as error:
        if isinstance(error, TetherError) and not is_accepted and not isinstance(error, ResultTimeout):
            raise
        notes.warning(
            f"job {job_id} continues. Follow it: tether jobs watch {job_id}\n"
            f"Cancel it: tether jobs cancel {job_id}"
        )
        raise


def _tell_restart(void: int, notes: Notes) -> None:
    if void:
        notes.warning(
            f"restarted: the last {void} token{'s' if void > 1 else ''} above are void and are "
            "generated again. "
            "With --json only the final text is printed"
        )
    else:
        notes.progress("restarted")


def _told_end(last: StreamEvent) -> str:
    details: dict[str, Any] = dict(last.details)
    reason = details.get("reason", "")
    count = f"{last.offset} token{'s' if last.offset != 1 else ''}"
    return f"succeeded{f' ({reason})' if reason else ''}: {count}"
