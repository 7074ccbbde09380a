"""A process that announces many workers for next to nothing: everything is signed ahead of time.

    presence_feeder.py MODELS FIRST COUNT ROUNDS

It connects to the orchestrator alone. It reads requests in JSON, one a line, and answers each: see
:class:`Process`.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import presence_common as common

from tether.discovery.announcements.presence import Presence
from tether.discovery.announcements.wire import VERSION, sign, signing_domain
from tether.discovery.trust.trusted_keys import TrustedKeys
from tether.telemetry.logs import configure_logs

STEP_SECONDS = 0.05
_SIGNATURE_BYTES = 64
_FIRST_SEQUENCE = b'"sequence":1,'


class Process:
    """Its methods are the requests. The thread ``bench-feeder`` ends with the process or :meth:`finish`."""

    def __init__(self, models: int, first: int, count: int, rounds: int) -> None:
        settings = common.settings()
        self._interval = settings.presence.interval / 1000
        # Of the folder alone: only orchestrators have a key there.
        self._transport = common.transport_of(first, TrustedKeys((), settings.presence.identity_dir))
        self._presences: list[Presence] = []
        self._envelopes: list[list[bytes]] = [[] for _ in range(rounds)]
        network = common.network_of(settings)
        for number in range(first, first + count):
            presence = common.presence_of(number, 1, models, network)
            body = sign(presence, common.key_of(number))[_SIGNATURE_BYTES:]
            before, after = body.split(_FIRST_SEQUENCE)
            self._presences.append(presence)
            for turn, envelopes in enumerate(self._envelopes):
                text = b'%b"sequence":%d,%b' % (before, turn + 1, after)
                envelopes.append(common.key_of(number).sign(signing_domain(VERSION) + text).signature + text)
        self._times = common.Times(Path("times"))
        self._first = first
        self._is_finished = threading.Event()
        self._sent = 0
        self._latest = 0.0
        self._thread = threading.Thread(target=self._feed, name="bench-feeder", daemon=True)

    def join(self) -> dict[str, float]:
        """Connect. Answers when an orchestrator is there."""
        self._transport.join((common.TOPIC,))
        self._transport.start()
        if not self._transport.wait_for_status(lambda status: bool(status.get("peers")), 60):
            raise TimeoutError("there is no orchestrator")
        return {}

    def feed(self) -> dict[str, float]:
        """Begin to announce: each worker once in each interval."""
        self._thread.start()
        return {}

    def finish(self) -> dict[str, float]:
        """End it. Answers how many were sent, and how late the latest was, in seconds."""
        self._is_finished.set()
        self._thread.join()
        return {"sent": self._sent, "late": self._latest}

    def _feed(self) -> None:
        began = time.monotonic()
        count = len(self._presences)
        left = len(self._envelopes) * count
        while left and not self._is_finished.wait(STEP_SECONDS):
            behind = int((time.monotonic() - began) / self._interval * count) - self._sent
            self._latest = max(self._latest, (behind / count) * self._interval - STEP_SECONDS)
            for _ in range(min(behind, left)):
                turn, place = divmod(self._sent, count)
                if turn == 0:
                    self._times.stamp(self._first + place)
                self._transport.announce(self._envelopes[turn][place], self._presences[place])
                self._sent += 1
                left -= 1


def main() -> None:
    configure_logs(form="json")
    process = Process(*map(int, sys.argv[1:5]))
    common.say(reply={})
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        common.say(reply=getattr(process, request.pop("do"))(**request))


if __name__ == "__main__":
    main()
