"""A backlog that does not fit into Redis: what Redis holds meanwhile, and how others fare beside it."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from backlog_stage import LIVE, BacklogStage
from bench_queue import say
from core_stage import wait_for
from report import Figure

from tether import Tether
from tether.client.handles import JobHandle

STEADY = "steady"
TOKENS_PER_SECOND = 20
PROMPT_BYTES = 20_000
PROCESSES, THREADS = 2, 8
LOOK_SECONDS = 0.1
PROBE_SECONDS = 2.0
JOB_SECONDS = 60.0
MAX_GAP_MS, MAX_PASSING_MS = 1_000.0, 1_000.0

_MODELS = f"""
[[models]]
name = "{STEADY}"
engine = "null"
[models.options]
tokens_per_second = {TOKENS_PER_SECOND}
output_tokens = 1000000
"""


@dataclass(frozen=True)
class MemoryPlan:
    """How many jobs of 20 KB are queued, against how much memory of Redis."""

    jobs: int
    redis_bytes: int
    seconds: float


FULL_MEMORY = MemoryPlan(100_000, 64_000_000, 5_400.0)
QUICK_MEMORY = MemoryPlan(1_000, 16_000_000, 120.0)


class MemoryStage(BacklogStage):
    """A stage whose Redis is small, with a model whose streams never end."""

    def __init__(self, redis_bytes: int) -> None:
        super().__init__()
        self._redis_bytes = redis_bytes

    def __enter__(self) -> Self:
        super().__enter__()
        with (self.folder / "tether.toml").open("a", encoding="utf-8") as file:
            file.write(_MODELS)
        self.redis.config_set("maxmemory-policy", "noeviction")
        self.redis.config_set("maxmemory", self._redis_bytes)
        return self


class MemoryWatch:
    """Looks at Redis's memory all the time; it owns a thread, from entering to leaving.

    Attributes:
      max_bytes: The most that was in use.
    """

    def __init__(self, stage: MemoryStage) -> None:
        self.max_bytes = 0
        self._redis = stage.redis
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="bench-memory")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self.max_bytes = max(self.max_bytes, self._redis.info("memory")["used_memory"])


class StreamWatch:
    """Follows a stream that never ends, and notes its gaps; it owns a thread, from entering to leaving.

    Attributes:
      gaps_ms: Between each token and the next.
    """

    def __init__(self, job: JobHandle) -> None:
        self.gaps_ms: list[float] = []
        self._job = job
        self._began = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="bench-stream")

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._began.wait(JOB_SECONDS):
            raise TimeoutError("the stream has not begun")
        return self

    def __exit__(self, *_: object) -> None:
        self._job.cancel()
        self._thread.join()

    def _watch(self) -> None:
        last = None
        for event in self._job.events():
            if event.kind == "delta":
                now = time.monotonic()
                if last is not None:
                    self.gaps_ms.append((now - last) * 1e3)
                last = now
                self._began.set()


def measure_memory(plan: MemoryPlan) -> Iterator[Figure]:
    """A queue of jobs against a small Redis, with a stream and interactive jobs beside it."""
    with MemoryStage(plan.redis_bytes) as stage:
        watermark = stage.settings().redis.watermark * plan.redis_bytes
        stage.start_orchestrator()
        with contextlib.closing(Tether.direct(stage.settings())) as client:
            stage.start_worker(processes=PROCESSES, threads=THREADS)
            client.submit(LIVE, "count", max_tokens=1).result(JOB_SECONDS)
            say(f"queueing {plan.jobs} jobs of {PROMPT_BYTES} bytes")
            with MemoryWatch(stage) as memory, StreamWatch(client.submit(STEADY, "count")) as stream:
                before = stage.settled()
                began = time.monotonic()
                stage.queue(client, plan.jobs, LIVE, PROMPT_BYTES)
                passed = list(_pass_the_queue(client, stage, before + plan.jobs, began + plan.seconds))
                seconds = time.monotonic() - began
    unit = 1e6
    yield Figure("jobs that were queued, and ended", plan.jobs, goal="all", met=True)
    yield Figure("jobs a second", plan.jobs / seconds, "/s")
    yield Figure(
        "Redis's memory, at most",
        memory.max_bytes / unit,
        "MB",
        goal=f"under the watermark, {watermark / unit:.1f} MB",
        met=memory.max_bytes <= watermark,
    )
    yield Figure(
        "gap in a stream, longest",
        max(stream.gaps_ms),
        "ms",
        goal=f"at most {MAX_GAP_MS:.0f} ms",
        met=max(stream.gaps_ms) <= MAX_GAP_MS,
    )
    yield Figure("gap in a stream, median", statistics.median(stream.gaps_ms), "ms")
    for name, samples in zip(("submitted", "owed by the outbox"), zip(*passed, strict=True), strict=True):
        yield Figure(f"an interactive job, {name}, until it ended, median", statistics.median(samples), "ms")
        yield Figure(
            f"an interactive job, {name}, until it ended, longest",
            max(samples),
            "ms",
            goal=f"at most {MAX_PASSING_MS:.0f} ms",
            met=max(samples) <= MAX_PASSING_MS,
        )


def _pass_the_queue(
    client: Tether, stage: MemoryStage, wanted: int, until: float
) -> Iterator[tuple[float, float]]:
    """Interactive jobs beside the queue, until that has ended: milliseconds that one took which its submitter
    placed, and one which only the outbox knew."""
    extra = 0
    while stage.settled() < wanted + extra:
        if time.monotonic() > until:
            raise TimeoutError(f"{stage.settled()} of {wanted + extra} jobs have ended")
        began = time.monotonic()
        client.submit(LIVE, "count", max_tokens=1, priority="interactive").result(JOB_SECONDS)
        submitted = (time.monotonic() - began) * 1e3
        began = time.monotonic()
        stage.wait_for_end(stage.queue(client, 1, LIVE, 10, priority="interactive"), JOB_SECONDS)
        yield submitted, (time.monotonic() - began) * 1e3
        extra += 2
        rest = began + PROBE_SECONDS
        wait_for(lambda rest=rest: time.monotonic() >= rest, JOB_SECONDS, "a rest between two jobs")
