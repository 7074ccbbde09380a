"""Follows a job to its end, and shows what it makes."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tether.ids import JobId
from tether.jobs import JobState
from tether_cli.terminal.output import Notes, TextOutput, print_line

if TYPE_CHECKING:
    from tether.client.api import Tether
    from tether.client.handles import JobHandle
    from tether.errors import TetherError
    from tether.statuses import JobStatus, ModelInfo
    from tether.streams.events import StreamEvent


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
    on_silence: Callable[[], None] = lambda: None,
    silence: float | None = None,
) -> Generator[StreamEvent, None, None]:
    """Everything that happens to a job from token ``offset`` on, to the end.

    Args:
      limit: Longest wait for the end.
      on_silence: Called while nothing has come at all: after ``silence`` seconds, then after twice as many,
        and so on, up to a minute. Never where ``silence`` is None.

    Raises:
      JobNotFound: There is no such job.
      ResultTimeout: It has not ended by then.
    """
    from tether.errors import ResultTimeout

    inbox: queue.SimpleQueue[StreamEvent | TetherError] = queue.SimpleQueue()
    limit = limit or WaitLimit(None)
    tell_after = silence
    subscription = handle.backend.stream_port.follow(handle.job_id, offset, inbox.put)
    try:
        while True:
            left = limit.left()
            is_cut_short = tell_after is not None and (left is None or tell_after < left)
            try:
                event = inbox.get(timeout=tell_after if is_cut_short else left)
            except queue.Empty:
                if is_cut_short:
                    assert tell_after is not None
                    on_silence()
                    tell_after = min(2 * tell_after, MAX_SILENCE_SECONDS)
                    continue
                raise ResultTimeout(
                    f"job {handle.job_id} has not finished within {limit.seconds:g} s; it continues"
                ) from None
            tell_after = None
            if isinstance(event, Exception):
                raise event
            yield event
            if event.is_last:
                return
    finally:
        subscription.close()


def telling_of_silence(client: Tether, handle: JobHandle, notes: Notes) -> Callable[[], None]:
    """What tells why nothing has come of a job yet, and tells it again where that has changed."""
    from tether.errors import TetherError

    told = ""

    def tell() -> None:
        nonlocal told
        # Where the gateway is away, that is told elsewhere; the job goes on without it.
        with contextlib.suppress(TetherError):
            why = why_waiting(handle.status(), client.models())
            if why != told:
                notes.warning(f"job {handle.job_id}: {why}")
            told = why

    return tell


def why_waiting(status: JobStatus, models: Sequence[ModelInfo]) -> str:
    """Why nothing has come of a job yet, as far as the gateway knows."""
    if status.state is JobState.RUNNING:
        return "running; no token has come yet"
    if status.state is JobState.WAITING_RETRY and status.error is not None:
        return f"waits to be tried again. The last attempt failed: {status.error.message}"
    versions = [model for model in models if model.name == status.model]
    if not versions:
        return f"waits: model {status.model!r} is no longer configured. It goes on once it is again"
    workers = sum(model.workers for model in versions)
    if is_in_lost_pool(status, versions):
        return (
            f"waits: no worker draws from pool {status.pool!r} now. Another pool that serves model "
            f"{status.model!r} gets the job, unless a worker comes back soon"
        )
    if status.state is JobState.PARKED and workers:
        return (
            "waits: it is parked, and placed again shortly: within a minute where its pools lose their "
            "workers again and again"
        )
    if workers:
        return f"waits: the workers of model {status.model!r} are busy, or are loading it"
    from tether.statuses import absence_text

    told = "; ".join(text for text in (_place_text(versions[0]), absence_text(versions[0])) if text)
    return f"waits: no worker serves model {status.model!r} now{f'; {told}' if told else ''}"


def _place_text(model: ModelInfo) -> str:
    """Where alone a model may be served; empty where it may be anywhere."""
    places = [f"on GPU class {model.gpu_class}"] if model.gpu_class else []
    places += [f"in region {model.region}"] if model.region else []
    return f"it may be served {' '.join(places)} alone" if places else ""


def is_in_lost_pool(status: JobStatus, versions: Sequence[ModelInfo]) -> bool:
    """Whether a job waits in a pool without live workers, while its model is served in others.

    Args:
      versions: Of its model.
    """
    in_pool = status.state in (JobState.ACCEPTED, JobState.PLACED) and status.pool is not None
    served = {pool for model in versions for pool in model.pools}
    return in_pool and bool(served) and status.pool not in served


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
