"""How each fault is done to an installation, and how its effects are counted.

An injector does the fault, waits for as long as it lasts, ends it, and returns what counts its effects: that
is called a little later, when they can be seen. What is counted is what happened because of the fault, never
that it was done.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

from chaos_databases import truncate_log
from chaos_parts import Part, send
from chaos_script import FaultType, ScriptedFault
from chaos_site import DATABASE_FILE, ORCHESTRATORS, Site, drain, fill
from chaos_watch import ClientWatch, JobWatch, LogMarks, RunningAttempt
from core_stage import wait_for

EffectCounts: TypeAlias = dict[str, int]
CountEffects: TypeAlias = Callable[[], EffectCounts]

LOST_SECONDS = 8.0
"""After this every lost attempt is known to be lost."""
READY_SECONDS = 3.0
"""How long a fault waits for a moment at which it bites."""
GATEWAY_OFFSET_MS = 8_000
WORKER_OFFSET_MS = 20 * 60_000
"""Beyond what an announcement may be off."""
OF_WORKERS = (FaultType.WORKER_KILLED, FaultType.WORKER_HOST_KILLED, FaultType.WORKER_STOPPED)
CLOCK_WORDS = ("clock differs", "clock is wrong", "clock agrees", "clock was set")


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
        self._site = site
        self._watch = JobWatch(site, stop)
        self._clients = clients
        self._stop = stop
        self._tell_victims = tell_victims
        self._redis_process = threading.Lock()
        """For who kills or stops Redis, or fills its disk: it could not be started meanwhile."""
        self._ways: Mapping[FaultType, Callable[[ScriptedFault], CountEffects]] = {
            FaultType.WORKER_KILLED: self._kill_worker,
            FaultType.WORKER_HOST_KILLED: self._kill_worker_host,
            FaultType.WORKER_STOPPED: self._stop_worker,
            FaultType.GATEWAY_KILLED: self._kill_gateway,
            FaultType.GATEWAY_STOPPED: self._stop_gateway,
            FaultType.ORCHESTRATOR_KILLED: self._kill_orchestrator,
            FaultType.ORCHESTRATOR_STOPPED: self._stop_orchestrator,
            FaultType.SIDECAR_KILLED: self._kill_sidecar,
            FaultType.SIDECAR_STOPPED: self._stop_sidecar,
            FaultType.REDIS_KILLED: self._kill_redis,
            FaultType.REDIS_STOPPED: self._stop_redis,
            FaultType.REDIS_FLUSHED: self._flush_redis,
            FaultType.REDIS_ROLLED_BACK: self._roll_redis_back,
            FaultType.REDIS_FULL: self._fill_redis,
            FaultType.REDIS_DISK_FULL: self._fill_redis_disk,
            FaultType.DATABASE_RESTARTED: self._restart_database,
            FaultType.DATABASE_DISK_FULL: self._fill_database_disk,
            FaultType.CONNECTIONS_CUT: self._cut,
            FaultType.CONNECTIONS_STALLED: self._stall,
            FaultType.CLOCK_AHEAD: partial(self._set_clock, direction=1),
            FaultType.CLOCK_BACK: partial(self._set_clock, direction=-1),
        }

    def wait_for_moment(self, fault: ScriptedFault) -> ScriptedFault:
        """Wait until the fault can bite, not for long: jobs run, where it matters on its target.

        Returns:
          The fault; of another worker, where jobs run there and not on its target.
        """
        if fault.type not in OF_WORKERS:
            self._wait_for(lambda: bool(self._running()))
            return fault
        part = self._site.parts[fault.target]
        if self._wait_for(lambda: self._is_busy(part)):
            return fault
        busy = [other.name for other in self._site.parts_of("worker") if self._is_busy(other)]
        return replace(fault, target=busy[0]) if busy else fault

    def _wait_for(self, condition: Callable[[], bool]) -> bool:
        try:
            wait_for(lambda: self._stop.is_set() or condition(), READY_SECONDS, "jobs run there")
        except TimeoutError:
            return False
        return True

    def _is_busy(self, part: Part) -> bool:
        return part.working() is not None and bool(self._running_on(part))

    def strike(self, fault: ScriptedFault) -> CountEffects:
        """Do a fault, from its beginning to its end."""
        return self._ways[fault.type](fault)

    # Workers.

    def _running(self) -> list[RunningAttempt]:
        return self._watch.running()

    def _running_on(self, part: Part) -> list[RunningAttempt]:
        boot_id = part.log.look().boot_id
        return [one for one in self._running() if one.worker == boot_id]

    def _lost(self, victims: Sequence[RunningAttempt]) -> EffectCounts:
        return {"attempts lost": self._watch.count_lost(victims, LOST_SECONDS)}

    def _kill_worker(self, fault: ScriptedFault) -> CountEffects:
        part = self._site.parts[fault.target]
        victims, pid = self._running_on(part), part.working()
        if pid is not None and send(signal.SIGKILL, [pid]):
            self._tell_victims(fault, victims)
        else:
            victims = []
        return partial(self._lost, victims)

    def _kill_worker_host(self, fault: ScriptedFault) -> CountEffects:
        part = self._site.parts[fault.target]
        victims = self._running_on(part)
        self._tell_victims(fault, victims)
        part.kill_all()
        return partial(self._lost, victims)

    def _stop_worker(self, fault: ScriptedFault) -> CountEffects:
        part = self._site.parts[fault.target]
        victims, pid = self._running_on(part), part.working()
        self._stop_for(fault, [pid] if pid else [])
        return partial(self._lost, victims)

    def _stop_for(self, fault: ScriptedFault, pids: Sequence[int]) -> None:
        send(signal.SIGSTOP, pids)
        self._stop.wait(fault.seconds)
        send(signal.SIGCONT, pids)

    # Gateways and orchestrators.

    def _kill_gateway(self, fault: ScriptedFault) -> CountEffects:
        mark = self._clients.mark()
        pid = self._site.parts[fault.target].working()
        send(signal.SIGKILL, [pid] if pid else [])
        return partial(self._clients.disturbed, mark)

    def _stop_gateway(self, fault: ScriptedFault) -> CountEffects:
        mark = self._clients.mark()
        pid = self._site.parts[fault.target].working()
        self._stop_for(fault, [pid] if pid else [])
        return partial(self._clients.disturbed, mark)

    def _leading(self) -> list[int]:
        """The process of the orchestrator that runs the loops: it reads outcomes."""
        clients: Any = self._site.redis.client_list()
        ports = [int(one["addr"].rpartition(":")[2]) for one in clients if one["cmd"] == "xreadgroup"]
        ways = [self._site.ways.name_of(port) for port in ports]
        names = [way.removesuffix("-redis") for way in ways if way.startswith("orchestrator")]
        part = self._site.parts[names[0] if names else ORCHESTRATORS[0]]
        pid = part.working()
        return [] if pid is None else [pid]

    def _kill_orchestrator(self, fault: ScriptedFault) -> CountEffects:
        before, pids = self._watch.holders(), self._leading()
        send(signal.SIGKILL, pids)
        return partial(self._taken_over, before)

    def _stop_orchestrator(self, fault: ScriptedFault) -> CountEffects:
        before, pids = self._watch.holders(), self._leading()
        self._stop_for(fault, pids)
        return partial(self._taken_over, before)

    def _taken_over(self, before: Mapping[str, str]) -> EffectCounts:
        after = self._watch.holders()
        return {"loops taken over": sum(after.get(name, holder) != holder for name, holder in before.items())}

    # The swarm.

    def _kill_sidecar(self, fault: ScriptedFault) -> CountEffects:
        part = self._site.parts[fault.target]
        marks = LogMarks([part.log])
        send(signal.SIGKILL, part.sidecars())
        return lambda: {
            "sidecars joined again": marks.count(lambda line: line.get("event") == "In the swarm.")
        }

    def _stop_sidecar(self, fault: ScriptedFault) -> CountEffects:
        """A worker that is heard of no more expires, and gets no jobs."""
        part = self._site.parts[fault.target]
        worker = part.log.look().boot_id.partition(".")[0]
        send(signal.SIGSTOP, pids := part.sidecars())
        self._stop.wait(fault.seconds)
        expired = self._watch.has_expired(worker)
        send(signal.SIGCONT, pids)
        return lambda: {"workers expired": int(expired)}

    # Redis.

    def _kill_redis(self, fault: ScriptedFault) -> CountEffects:
        with self._redis_process:
            marks = self._all_marks()
            self._site.server.kill()
            self._stop.wait(fault.seconds)
            self._site.server.start()
        return partial(self._after_restart, marks)

    def _after_restart(self, marks: LogMarks) -> EffectCounts:
        statistics: Any = self._site.redis.info("stats")
        return {
            "reconnects": int(statistics["total_connections_received"]),
            "outages logged": marks.outages(),
        }

    def _stop_redis(self, fault: ScriptedFault) -> CountEffects:
        marks, mark, victims = self._all_marks(), self._clients.mark(), self._running()
        with self._redis_process:
            self._stop_for(fault, [self._site.server.pid])
        return lambda: {
            "outages logged": marks.outages(),
            **self._clients.disturbed(mark),
            **self._lost(victims),
        }

    def _flush_redis(self, fault: ScriptedFault) -> CountEffects:
        return self._lose(self._site.redis.flushall)

    def _roll_redis_back(self, fault: ScriptedFault) -> CountEffects:
        folder = self._site.server.folder
        copy = folder.with_name("older")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        self._stop.wait(fault.seconds)

        def roll_back() -> None:
            self._site.server.kill()
            shutil.rmtree(folder)
            os.rename(copy, folder)
            self._site.server.start()

        with self._redis_process:
            return self._lose(roll_back)

    def _lose(self, loss: Callable[[], object]) -> CountEffects:
        """Let Redis lose jobs."""
        marks, epoch = self._all_marks(), self._watch.epoch()
        offsets = self._watch.offsets([one.job_id for one in self._running()])
        loss()
        # Before anybody places them again, as far as one can be so quick.
        set_back = self._watch.count_set_back(offsets)
        return lambda: {
            "jobs set back": set_back,
            "epochs raised": max(self._watch.epoch() - epoch, 0),
            "outages logged": marks.outages(),
        }

    def _fill_redis(self, fault: ScriptedFault) -> CountEffects:
        before = self._errors_of_redis("OOM")
        self._site.limit_memory(1_000_000)
        self._stop.wait(fault.seconds)
        refused = self._errors_of_redis("OOM") - before
        self._site.limit_memory()
        return lambda: {"commands refused": refused}

    def _fill_redis_disk(self, fault: ScriptedFault) -> CountEffects:
        before = self._errors_of_redis("MISCONF")
        with self._redis_process:
            fill(self._site.redis_disk)
            self._stop.wait(fault.seconds)
            refused = self._errors_of_redis("MISCONF") - before
            drain(self._site.redis_disk)
        return lambda: {"commands refused": refused}

    def _errors_of_redis(self, name: str) -> int:
        errors: Any = self._site.redis.info("errorstats")
        found = errors.get(f"errorstat_{name}", {"count": 0})
        return int(found["count"])

    def _all_marks(self) -> LogMarks:
        return LogMarks([part.log for part in self._site.parts.values()])

    # The database.

    def _restart_database(self, fault: ScriptedFault) -> CountEffects:
        postgres = self._site.postgres
        assert postgres is not None
        marks, mark = self._all_marks(), self._clients.mark()
        postgres.crash()
        self._stop.wait(fault.seconds)
        postgres.start()
        return lambda: {"outages logged": marks.outages(), **self._clients.disturbed(mark)}

    def _fill_database_disk(self, fault: ScriptedFault) -> CountEffects:
        marks, mark = self._all_marks(), self._clients.mark()
        if self._site.postgres is None:
            # Else its log goes on for long in the room that it has.
            truncate_log(self._site.database_disk / DATABASE_FILE)
        fill(self._site.database_disk)
        self._stop.wait(fault.seconds)
        drain(self._site.database_disk)
        if self._site.postgres is not None:
            self._site.postgres.start()
        return lambda: {"outages logged": marks.outages(), **self._clients.disturbed(mark)}

    # Connections and clocks.

    def _cut(self, fault: ScriptedFault) -> CountEffects:
        ways = self._site.ways
        closed = ways.cut(fault.target)
        self._stop.wait(fault.seconds)
        refused = ways.heal(fault.target)
        return lambda: {"connections closed": closed, "connections refused": refused}

    def _stall(self, fault: ScriptedFault) -> CountEffects:
        marks, mark = self._all_marks(), self._clients.mark()
        self._site.ways.stall(fault.target)
        self._stop.wait(fault.seconds)
        held = self._site.ways.go_on(fault.target)
        return lambda: {
            "connections held up": held,
            "outages logged": marks.outages(),
            **self._clients.disturbed(mark),
        }

    def _set_clock(self, fault: ScriptedFault, direction: int) -> CountEffects:
        marks = self._all_marks()
        offset = WORKER_OFFSET_MS if fault.target.startswith("worker") else GATEWAY_OFFSET_MS
        clock = self._site.clock_of(fault.target)
        _write_whole(str(clock), str(direction * offset))
        self._stop.wait(fault.seconds)
        _write_whole(str(clock), "0")
        return lambda: {"wrong clocks noticed": marks.count(_tells_of_clock)}


def _write_whole(file: str, text: str) -> None:
    """So that who reads meanwhile reads the old text or the new one."""
    with open(f"{file}.new", "w", encoding="utf-8") as aside:
        aside.write(text)
    os.rename(f"{file}.new", file)


def _tells_of_clock(line: dict[str, Any]) -> bool:
    return any(word in str(line.get("event")) for word in CLOCK_WORDS)
