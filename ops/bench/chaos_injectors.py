"""Does each fault to an installation, and hands out what counts its effects.

An injector does the fault, waits for as long as it lasts, ends it, and returns what counts its effects: that
is called a little later, when they can be seen. What is counted is what happened because of the fault, never
that it was done.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from chaos_context import CountEffects, FaultContext, FaultInjectors
from chaos_parts import Part
from chaos_process_faults import ProcessFaults
from chaos_script import FaultType, ScriptedFault
from chaos_server_faults import ServerFaults
from chaos_site import Site
from chaos_watch import ClientWatch, JobWatch, RunningAttempt
from core_stage import wait_for

READY_SECONDS = 3.0
"""How long a fault waits for a moment at which it bites."""
OF_WORKERS = (
    FaultType.WORKER_KILLED,
    FaultType.WORKER_HOST_KILLED,
    FaultType.WORKER_HOST_LOST,
    FaultType.WORKER_STOPPED,
)


class Injectors:
    """Strikes one installation. Each fault runs on the caller's thread."""

    def __init__(
        self,
        site: Site,
        clients: ClientWatch,
        stop: threading.Event,
        tell_victims: Callable[[ScriptedFault, Sequence[RunningAttempt]], object],
    ) -> None:
        """
        Args:
          stop: Ends all waiting.
          tell_victims: Told, just before a worker is killed, whose attempts ran there.
        """
        self._context = context = FaultContext(site, JobWatch(site, stop), clients, stop)
        self._injectors: FaultInjectors = {
            **ProcessFaults(context, tell_victims).injectors,
            **ServerFaults(context).injectors,
        }

    def wait_for_moment(self, fault: ScriptedFault) -> ScriptedFault:
        """Wait until the fault can bite, not for long: jobs run, where it matters on its target.

        Returns:
          The fault; of another worker, where jobs run there and not on its target.
        """
        if fault.type not in OF_WORKERS:
            self._wait_for(lambda: bool(self._context.watch.running()))
            return fault
        part = self._context.site.parts[fault.target]
        if self._wait_for(lambda: self._is_busy(part)):
            return fault
        busy = [other.name for other in self._context.site.parts_of("worker") if self._is_busy(other)]
        return replace(fault, target=busy[0]) if busy else fault

    def _wait_for(self, condition: Callable[[], bool]) -> bool:
        try:
            wait_for(lambda: self._context.stop.is_set() or condition(), READY_SECONDS, "jobs run there")
        except TimeoutError:
            return False
        return True

    def _is_busy(self, part: Part) -> bool:
        return part.working() is not None and bool(self._context.running_on(part))

    def strike(self, fault: ScriptedFault) -> CountEffects:
        """Do a fault, from its beginning to its end."""
        return self._injectors[fault.type](fault)
