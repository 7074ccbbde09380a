"""What is told beside the text of a job that is followed: which attempts failed, and why nothing comes."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from tether.clocks import wall_clock_ms
from tether.jobs import JobState
from tether_cli.terminal.output import Notes
from tether_cli.terminal.printable import one_line

if TYPE_CHECKING:
    from tether.client.api import Tether
    from tether.client.handles import JobHandle
    from tether.histories import JobHistory
    from tether.statuses import JobStatus, ModelInfo
    from tether.streams.events import StreamEvent


_FOR_THE_ORCHESTRATOR = (JobState.ACCEPTED, JobState.PARKED, JobState.WAITING_RETRY)
"""States that only an orchestrator leads a job out of."""


class JobNews:
    """Tells on standard error of a job's failed attempts, each once, and why nothing comes of it.

    It asks the gateway where a stream tells nothing: after a silence, and where a further attempt begins.
    Where the gateway is away, nothing is told here; the job goes on without it.
    """

    def __init__(
        self,
        client: Tether,
        handle: JobHandle,
        notes: Notes,
        health: Callable[[], Mapping[str, str] | None] = lambda: None,
        *,
        now_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        """
        Args:
          health: Returns what the gateway says of itself; None where it says nothing.
          now_ms: Milliseconds since the epoch.
        """
        self._client = client
        self._health = health
        self._handle = handle
        self._notes = notes
        self._now_ms = now_ms
        self._why = ""
        self._has_output = False
        self._told_dispatch = 0
        self._heard_dispatch = 1

    @property
    def patience(self) -> float:
        """What may pass without an event before it is told why, in seconds."""
        return self._notes.patience

    def hear(self, event: StreamEvent) -> None:
        """Take note of an event, before it is shown."""
        if event.kind == "delta":
            self._has_output = True
        elif event.kind == "started" and event.details.get("dispatch", 1) > self._heard_dispatch:
            self._heard_dispatch = event.details["dispatch"]
            if self._heard_dispatch - 1 > self._told_dispatch:
                self._tell_failures()

    def tell_silence(self) -> None:
        """Tell why nothing comes, unless that is what was told last."""
        from tether.errors import TetherError

        with contextlib.suppress(TetherError):
            # Asked first: without Redis the others take long.
            health = self._health()
            if is_without_redis(health):
                self._tell_why(why_waiting(self._handle.status(), (), health))
                return
            status = self._handle.status()
            if status.error is not None and status.dispatch > self._told_dispatch:
                self._tell_failures()
            if status.state is JobState.WAITING_RETRY and self._told_dispatch >= status.dispatch:
                return
            if status.state.is_final or (status.state is JobState.RUNNING and self._has_output):
                return
            why = why_waiting(status, self._client.models(), health)
            more = ""
            if status.state is not JobState.RUNNING:
                expected = expectation_text(status, self._now_ms())
                more = (
                    f"{expected and f'; {expected}'}. Why there: tether explain --job {self._handle.job_id}"
                )
            self._tell_why(why, more)

    def _tell_why(self, why: str, more: str = "") -> None:
        if why != self._why:
            self._say(why + more)
        self._why = why

    def _tell_failures(self) -> None:
        from tether.errors import TetherError

        # A gateway of an older version knows the job and not its attempts.
        with contextlib.suppress(TetherError):
            history = self._handle.history()
            lines = failure_lines(history, after=self._told_dispatch)
            for dispatch, line in lines:
                self._say(line)
                self._told_dispatch = dispatch

    def _say(self, text: str) -> None:
        self._notes.warning(f"job {self._handle.job_id}: {text}")


def failure_lines(history: JobHistory, after: int = 0) -> list[tuple[int, str]]:
    """The attempts that failed and were not the job's last, as lines for a person, each with its dispatch.

    Args:
      after: Only those of later dispatches.
    """
    failed = [
        record for record in history.attempts if record.outcome == "failed" and record.error is not None
    ]
    lines = []
    for number, record in enumerate(failed, start=1):
        is_newest = record.dispatch == history.dispatch
        if record.error is None or record.dispatch <= after or (is_newest and history.state.is_final):
            continue
        line = f"attempt {number} failed ({record.error.code}): {one_line(record.error.message)}"
        if is_newest and history.due_at is not None:
            seconds = math.ceil(max(history.due_at - history.since, 0) / 1000)
            line += f". The next one comes after a wait of {seconds} s"
        lines.append((record.dispatch, line))
    return lines


def is_without_redis(health: Mapping[str, str] | None) -> bool:
    """Whether a gateway says that its Redis does not respond: then it knows nothing of workers."""
    return health is not None and health["redis"] != "ok"


def is_without_orchestrator(health: Mapping[str, str] | None) -> bool:
    """Whether a gateway says that no orchestrator runs. An older one says nothing of that."""
    return health is not None and health.get("orchestrator") == "absent"


def expectation_text(status: JobStatus, now_ms: int) -> str:
    """When a job is expected to begin, in words; empty where that is not known."""
    if status.expected_at is None:
        return ""
    seconds = math.ceil((status.expected_at - now_ms) / 1000)
    if seconds < 0:
        return f"was expected to begin {-seconds} s ago"
    return f"expected to begin in about {seconds} s" if seconds else "expected to begin now"


def why_waiting(
    status: JobStatus, models: Sequence[ModelInfo], health: Mapping[str, str] | None = None
) -> str:
    """Why nothing has come of a job yet, as far as the gateway knows.

    Args:
      health: What the gateway says of itself; None where it says nothing.
    """
    if is_without_redis(health):
        then = "its text comes" if status.state.is_final else "the job is kept, and goes on,"
        return f"waits: the gateway's Redis does not respond; {then} once it does"
    if status.state is JobState.RUNNING:
        return "running; no token has come yet"
    if status.state in _FOR_THE_ORCHESTRATOR and is_without_orchestrator(health):
        return (
            "waits: no orchestrator runs, so that no waiting job is placed and none is retried; the job is "
            "kept, and goes on once one does: `tether orchestrator` starts one"
        )
    if status.state is JobState.WAITING_RETRY and status.error is not None:
        return f"waits to be tried again. The last attempt failed: {status.error.message}"
    versions = [model for model in models if model.name == status.model]
    if not versions:
        return f"waits: model {status.model!r} is no longer configured. It goes on once it is again"
    workers = sum(model.workers for model in versions)
    if status.state in (JobState.ACCEPTED, JobState.PLACED, JobState.PARKED) and status.waits_for:
        why = f"waits: {one_line(status.waits_for)}"
        if workers:
            return why + _without_first_orchestrator(health)
        return "; ".join((why, *_absence(versions[0])))
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
    held = {worker: why for model in versions for worker, why in model.held_workers.items()}
    if workers and len(held) >= workers:
        worker, why = next(iter(held.items()))
        return f"waits: all workers of model {status.model!r} are held back, as worker {worker}: {why}"
    if workers and not any(model.is_loaded for model in versions):
        failing = {worker: why for model in versions for worker, why in model.failing_workers.items()}
        if failing:
            worker, why = next(iter(failing.items()))
            others = f"; {len(failing) - 1} more cannot either" if len(failing) > 1 else ""
            return (
                f"waits: worker {worker} cannot load model {status.model!r}, and tries again by itself: "
                f"{why}{others}"
            )
    if workers and status.state is JobState.ACCEPTED:
        return (
            "waits in the database: it may not start yet, since it was submitted with a delay, or Redis has "
            "no room for more jobs of its priority or tenant"
        )
    if workers:
        why = f"waits: the workers of model {status.model!r} are busy, or are loading it"
        return why + _without_first_orchestrator(health)
    return "; ".join((f"waits: no worker serves model {status.model!r} now", *_absence(versions[0])))


def _without_first_orchestrator(health: Mapping[str, str] | None) -> str:
    if not is_without_orchestrator(health):
        return ""
    return (
        "; or Redis was empty when it started, and workers draw from it once an orchestrator has run: none "
        "does, `tether orchestrator` starts one"
    )


def _absence(model: ModelInfo) -> list[str]:
    from tether.statuses import absence_text

    return [text for text in (_place_text(model), absence_text(model)) if text]


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
