"""A process with workers that announce themselves: over one transport for all, or each over its own.

    presence_member.py MODELS

It reads requests in JSON, one a line, and answers each: see :class:`Process`. It goes without a goodbye.
"""

from __future__ import annotations

import heapq
import json
import logging
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import presence_common as common

from tether.discovery.announcements.presence import WorkerState
from tether.discovery.announcements.wire import sign
from tether.discovery.trust.trusted_keys import TrustedKeys
from tether.telemetry.logs import configure_logs

READY_SECONDS = 60.0


class Readiness(logging.Handler):
    """Tells when a sidecar is ready, which its transport logs."""

    def __init__(self) -> None:
        super().__init__()
        self._is_ready = threading.Event()
        self._at = 0

    def emit(self, record: logging.LogRecord) -> None:
        if "In the swarm" in str(record.msg):
            self._at = time.monotonic_ns()
            self._is_ready.set()

    def wait(self) -> int:
        """When the next one was. One at a time."""
        if not self._is_ready.wait(READY_SECONDS):
            raise TimeoutError("a sidecar is not ready")
        self._is_ready.clear()
        return self._at


class Unit:
    """One transport, and workers that announce themselves over it in each interval, each at its own moment.

    It owns a thread, ``bench-unit``, which ends with the process or :meth:`leave`.
    """

    def __init__(
        self, numbers: Sequence[int], models: int, times: common.Times, trusted: TrustedKeys
    ) -> None:
        self._models = models
        self._times = times
        self._interval = common.settings().presence.interval / 1000
        self._transport = common.transport_of(numbers[0], trusted)
        self._sequences = dict.fromkeys(numbers, 0)
        self._changed = threading.Condition()
        self._is_leaving = False
        now = time.monotonic()
        self._due = [(now + self._interval * i / len(numbers), number) for i, number in enumerate(numbers)]
        self._thread = threading.Thread(target=self._run, name="bench-unit", daemon=True)

    def start(self) -> None:
        self._transport.join((common.TOPIC,))
        self._thread.start()
        self._transport.start()

    def add(self, numbers: Sequence[int], *, spread: bool) -> None:
        """Workers that begin to announce themselves, at once or one by one within an interval."""
        with self._changed:
            now = time.monotonic()
            step = self._interval / len(numbers) if spread and numbers else 0.0
            for place, number in enumerate(numbers):
                self._sequences[number] = 0
                heapq.heappush(self._due, (now + step * place, number))
            self._changed.notify_all()

    def silence(self, numbers: Sequence[int]) -> None:
        """Workers that announce themselves no more."""
        with self._changed:
            for number in numbers:
                self._sequences.pop(number, None)

    def leave(self) -> None:
        """Say goodbye for all, and leave the swarm, as a worker that stops does."""
        with self._changed:
            self._is_leaving = True
            self._changed.notify_all()
        self._thread.join()
        for number in self._sequences:
            self._announce(number, WorkerState.STOPPED)
        self._transport.stop()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._is_leaving:
                    return
                left = self._due[0][0] - time.monotonic() if self._due else None
                if left is None or left > 0:
                    self._changed.wait(left)
                    continue
                due, number = heapq.heappop(self._due)
                if number not in self._sequences:
                    continue
                self._announce(number)
                heapq.heappush(self._due, (due + self._interval, number))

    def _announce(self, number: int, state: WorkerState = WorkerState.SERVING) -> None:
        self._sequences[number] += 1
        network = self._transport.network
        presence = common.presence_of(number, self._sequences[number], self._models, network, state)
        self._times.stamp(number)
        self._transport.announce(sign(presence, common.key_of(number)), presence)


class Process:
    """Its methods are the requests."""

    def __init__(self, models: int) -> None:
        self._models = models
        self._times = common.Times(Path("times"))
        self._trusted = TrustedKeys.from_settings(common.settings())
        self._units: dict[int, Unit] = {}
        self._readiness = Readiness()
        configure_logs(form="json")
        logging.getLogger("tether.swarm").addHandler(self._readiness)

    def join(self, numbers: list[int]) -> dict[str, int]:
        """Workers that share a new transport. Answers when its sidecar was started, and when it was ready."""
        unit = self._units[numbers[0]] = Unit(numbers, self._models, self._times, self._trusted)
        started = time.monotonic_ns()
        unit.start()
        return {"started": started, "ready": self._readiness.wait()}

    def add(self, unit: int, numbers: list[int], spread: bool) -> dict[str, int]:
        self._units[unit].add(numbers, spread=spread)
        return {}

    def silence(self, unit: int, numbers: list[int]) -> dict[str, int]:
        self._units[unit].silence(numbers)
        return {}

    def leave(self, unit: int) -> dict[str, int]:
        """A unit says goodbye. Answers when that began."""
        began = time.monotonic_ns()
        self._units.pop(unit).leave()
        return {"began": began}


def main() -> None:
    process = Process(int(sys.argv[1]))
    common.say(reply={})
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        common.say(reply=getattr(process, request.pop("do"))(**request))


if __name__ == "__main__":
    main()
