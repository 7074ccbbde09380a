"""The orchestrator: all loops of one process."""

from __future__ import annotations

import contextlib
import functools
import secrets
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from tether.broker.redis.connections import connect
from tether.core.control_plane import ControlPlane
from tether.loops import Loop, Step
from tether.orchestrator.context import PASSING_ERRORS, Lapses, LoopContext, core_outage
from tether.orchestrator.loop_lease_keeper import RENEWAL_SECONDS, KeepLeases
from tether.orchestrator.loop_registry import LOOPS, RegisteredLoop
from tether.processes.stopping import CLOSING_SECONDS, StopDeadline
from tether.telemetry.logs import get_logger

LEASE_KEEPER = "lease-keeper"
"""The loop that takes and renews the leases of the others."""


class Orchestrator:
    """Carries jobs between the database and Redis until they end. Any number of them may run.

    It owns one thread for each loop, named after it, and its Redis connections.

    Attributes:
      holder: The name of this process in the leases of loops.
      loops: By name.
    """

    def __init__(
        self,
        plane: ControlPlane,
        registry: Sequence[RegisteredLoop] = LOOPS,
        *,
        deadline: StopDeadline | None = None,
    ) -> None:
        """
        Args:
          plane: What it works on; opened and closed by whoever made it.
          registry: The loops to run.
          deadline: That of the process's stop.
        """
        self._deadline = deadline or StopDeadline()
        self._log = get_logger("tether.orchestrator")
        self._closing = contextlib.ExitStack()
        # Blocking reads have a connection of their own, without a time limit.
        client = connect(plane.settings.redis.url)
        self._closing.callback(client.close)
        now_ms = plane.clock.now_ms
        context = LoopContext(plane, client, secrets.token_hex(8), now_ms, self._wake, self._closing)
        self.holder = context.holder
        leases = {entry.name: entry.lease(plane.followed_models) for entry in registry if entry.is_leased}
        self._keeper = KeepLeases(plane.store, list(leases.values()), self.holder, now_ms=now_ms)
        self.loops = {LEASE_KEEPER: self._loop(LEASE_KEEPER, self._keeper, RENEWAL_SECONDS)}
        for entry in registry:
            interval = entry.interval(plane.settings)
            lease = leases.get(entry.name)
            self.loops[entry.name] = self._loop(entry.name, entry.make(context), interval, lease)

    def _loop(self, name: str, step: Step, interval: float, lease: str | None = None) -> Loop:
        return Loop(
            name,
            step,
            interval=interval,
            may_run=functools.partial(self._keeper.holds, lease) if lease is not None else None,
            at_lapse=step.lapse if isinstance(step, Lapses) else None,
            outage=core_outage(self._log, name),
            log=self._log,
        )

    def _wake(self, name: str) -> None:
        # One that is not made yet looks as soon as it starts.
        if name in self.loops:
            self.loops[name].wake()

    def start(self) -> Self:
        """Start all loops."""
        for loop in self.loops.values():
            loop.start()
        return self

    def stop(self) -> None:
        """End all loops after their step under way, as far as there is time for that, and free their leases
        for others."""
        for loop in self.loops.values():
            loop.ask_to_stop()
        for loop in self.loops.values():
            loop.stop(self._deadline.remaining(but=CLOSING_SECONDS))
        # Where that fails, they run out by themselves.
        with contextlib.suppress(*PASSING_ERRORS):
            self._keeper.give_up()
        self._closing.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
