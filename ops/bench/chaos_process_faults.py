"""Faults of Tether's own processes: they are killed, stopped, or told a wrong time."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from chaos_context import CountEffects, EffectCounts, FaultContext, FaultInjectors
from chaos_parts import Part, send
from chaos_script import FaultType, ScriptedFault
from chaos_watch import LogMarks, RunningAttempt
from core_stage import wait_for

GATEWAY_OFFSET_MS = 8_000
WORKER_OFFSET_MS = 20 * 60_000
"""Beyond what an announcement may be off."""
LEADING_SECONDS = 8.0
"""How long it may take until a living orchestrator runs the loops again."""
CLOCK_WORDS = ("clock differs", "clock is wrong", "clock agrees", "clock was set")


class ProcessFaults:
    """Strikes what `tether` commands started."""

    def __init__(
        self,
        context: FaultContext,
        tell_victims: Callable[[ScriptedFault, Sequence[RunningAttempt]], object],
    ) -> None:
        """
        Args:
          tell_victims: Told, just before a worker is killed, whose attempts ran there.
        """
        self._with = context
        self._tell_victims = tell_victims
        self.injectors: FaultInjectors = {
            FaultType.WORKER_KILLED: self._kill_worker,
            FaultType.WORKER_HOST_KILLED: self._kill_worker_host,
            FaultType.WORKER_HOST_LOST: self._lose_worker_host,
            FaultType.WORKER_STOPPED: self._stop_worker,
            FaultType.GATEWAY_KILLED: self._kill_gateway,
            FaultType.GATEWAY_STOPPED: self._stop_gateway,
            FaultType.ORCHESTRATOR_KILLED: self._kill_orchestrator,
            FaultType.ORCHESTRATOR_STOPPED: self._stop_orchestrator,
            FaultType.SIDECAR_KILLED: self._kill_sidecar,
            FaultType.SIDECAR_STOPPED: self._stop_sidecar,
            FaultType.CLOCK_AHEAD: partial(self._set_clock, direction=1),
            FaultType.CLOCK_BACK: partial(self._set_clock, direction=-1),
        }

    # Workers.

    def _kill_worker(self, fault: ScriptedFault) -> CountEffects:
        part = self._with.site.parts[fault.target]
        victims, pid = self._with.running_on(part), part.working()
        if pid is not None and send(signal.SIGKILL, [pid]):
            self._tell_victims(fault, victims)
        else:
            victims = []
        return partial(self._with.count_lost, victims)

    def _kill_worker_host(self, fault: ScriptedFault) -> CountEffects:
        part = self._with.site.parts[fault.target]
        victims = self._with.running_on(part)
        self._tell_victims(fault, victims)
        part.kill_all()
        return partial(self._with.count_lost, victims)

    def _lose_worker_host(self, fault: ScriptedFault) -> CountEffects:
        self._with.site.forget_identity(_worker_of(self._with.site.parts[fault.target]))
        return self._kill_worker_host(fault)

    def _stop_worker(self, fault: ScriptedFault) -> CountEffects:
        part = self._with.site.parts[fault.target]
        victims, pid = self._with.running_on(part), part.working()
        self._with.stop_for(fault, [pid] if pid else [])
        return partial(self._with.count_lost, victims)

    # Gateways and orchestrators.

    def _kill_gateway(self, fault: ScriptedFault) -> CountEffects:
        mark = self._with.clients.mark()
        pid = self._with.site.parts[fault.target].working()
        send(signal.SIGKILL, [pid] if pid else [])
        return partial(self._with.clients.disturbed, mark)

    def _stop_gateway(self, fault: ScriptedFault) -> CountEffects:
        mark = self._with.clients.mark()
        pid = self._with.site.parts[fault.target].working()
        self._with.stop_for(fault, [pid] if pid else [])
        return partial(self._with.clients.disturbed, mark)

    def _leading(self) -> list[int]:
        """The process of the orchestrator that runs most loops; none where no living one runs any."""
        found: list[int] = []

        def is_known() -> bool:
            held = Counter(self._with.watch.holders().values())
            part = max(self._with.site.parts_of("orchestrator"), key=lambda one: held[one.log.look().holder])
            pid = part.working()
            if pid is not None and held[part.log.holder]:
                found.append(pid)
            return bool(found) or self._with.stop.is_set()

        with contextlib.suppress(TimeoutError):
            # The leases of one that was killed are another's after three seconds.
            wait_for(is_known, LEADING_SECONDS, "an orchestrator runs the loops")
        return found

    def _kill_orchestrator(self, fault: ScriptedFault) -> CountEffects:
        before, pids = self._with.watch.holders(), self._leading()
        send(signal.SIGKILL, pids)
        return partial(self._taken_over, before)

    def _stop_orchestrator(self, fault: ScriptedFault) -> CountEffects:
        before, pids = self._with.watch.holders(), self._leading()
        self._with.stop_for(fault, pids)
        return partial(self._taken_over, before)

    def _taken_over(self, before: Mapping[str, str]) -> EffectCounts:
        after = self._with.watch.holders()
        return {"loops taken over": sum(after.get(name, holder) != holder for name, holder in before.items())}

    # The swarm.

    def _kill_sidecar(self, fault: ScriptedFault) -> CountEffects:
        part = self._with.site.parts[fault.target]
        marks = LogMarks([part.log])
        send(signal.SIGKILL, part.sidecars())
        return lambda: {
            "sidecars joined again": marks.count(lambda line: line.get("event") == "In the swarm.")
        }

    def _stop_sidecar(self, fault: ScriptedFault) -> CountEffects:
        """A worker that is heard of no more expires, and gets no jobs."""
        part = self._with.site.parts[fault.target]
        worker = _worker_of(part)
        send(signal.SIGSTOP, pids := part.sidecars())
        self._with.stop.wait(fault.seconds)
        expired = self._with.watch.has_expired(worker)
        send(signal.SIGCONT, pids)
        return lambda: {"workers expired": int(expired)}

    # Clocks.

    def _set_clock(self, fault: ScriptedFault, direction: int) -> CountEffects:
        marks = self._with.all_marks()
        offset = WORKER_OFFSET_MS if fault.target.startswith("worker") else GATEWAY_OFFSET_MS
        clock = self._with.site.clock_of(fault.target)
        _write_whole(str(clock), str(direction * offset))
        self._with.stop.wait(fault.seconds)
        _write_whole(str(clock), "0")
        return lambda: {"wrong clocks noticed": marks.count(_tells_of_clock)}


def _worker_of(part: Part) -> str:
    return part.log.look().boot_id.partition(".")[0]


def _write_whole(file: str, text: str) -> None:
    """So that who reads meanwhile reads the old text or the new one."""
    with open(f"{file}.new", "w", encoding="utf-8") as aside:
        aside.write(text)
    os.rename(f"{file}.new", file)


def _tells_of_clock(line: dict[str, Any]) -> bool:
    return any(word in str(line.get("event")) for word in CLOCK_WORDS)
