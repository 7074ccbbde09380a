"""Faults of servers and of the ways to them: they die, stop, fill up, forget; ways are cut and stalled."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from chaos_context import CountEffects, EffectCounts, FaultContext, FaultInjectors
from chaos_databases import truncate_log
from chaos_script import FaultType, ScriptedFault
from chaos_site import DATABASE_FILE, drain, fill
from chaos_watch import LogMarks


class ServerFaults:
    """Strikes what Tether's processes connect to, and their ways there."""

    def __init__(self, context: FaultContext) -> None:
        self._with = context
        self._redis_process = threading.Lock()
        """For who does something to the server: another could not start it, or tell it anything."""
        self.injectors: FaultInjectors = {
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
        }

    # Redis.

    def _kill_redis(self, fault: ScriptedFault) -> CountEffects:
        with self._redis_process:
            marks = self._with.all_marks()
            self._with.site.server.kill()
            self._with.stop.wait(fault.seconds)
            self._with.site.server.start()
        return partial(self._after_restart, marks)

    def _after_restart(self, marks: LogMarks) -> EffectCounts:
        return {"reconnects": self._with.watch.connections(), "outages logged": marks.outages()}

    def _stop_redis(self, fault: ScriptedFault) -> CountEffects:
        marks, mark, victims = self._with.all_marks(), self._with.clients.mark(), self._with.watch.running()
        with self._redis_process:
            self._with.stop_for(fault, [self._with.site.server.pid])
        return lambda: {
            "outages logged": marks.outages(),
            **self._with.clients.disturbed(mark),
            **self._with.count_lost(victims),
        }

    def _flush_redis(self, fault: ScriptedFault) -> CountEffects:
        with self._redis_process:
            return self._lose(self._with.site.redis.flushall)

    def _roll_redis_back(self, fault: ScriptedFault) -> CountEffects:
        folder = self._with.site.server.folder
        copy = folder.with_name("older")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        self._with.stop.wait(fault.seconds)

        def roll_back() -> None:
            self._with.site.server.kill()
            shutil.rmtree(folder)
            os.rename(copy, folder)
            self._with.site.server.start()

        with self._redis_process:
            return self._lose(roll_back)

    def _lose(self, loss: Callable[[], object]) -> CountEffects:
        """Let Redis lose jobs."""
        marks, epoch = self._with.all_marks(), self._with.watch.epoch()
        offsets = self._with.watch.offsets([one.job_id for one in self._with.watch.running()])
        loss()
        # Before anybody places them again, as far as one can be so quick.
        set_back = self._with.watch.count_set_back(offsets)
        return lambda: {
            "jobs set back": set_back,
            "epochs raised": max(self._with.watch.epoch() - epoch, 0),
            "outages logged": marks.outages(),
        }

    def _fill_redis(self, fault: ScriptedFault) -> CountEffects:
        # A server that is killed meanwhile would forget both its limit and its count.
        with self._redis_process:
            before = self._errors_of_redis("OOM")
            self._with.site.limit_memory(1_000_000)
            self._with.stop.wait(fault.seconds)
            refused = self._errors_of_redis("OOM") - before
            self._with.site.limit_memory()
        return lambda: {"commands refused": refused}

    def _fill_redis_disk(self, fault: ScriptedFault) -> CountEffects:
        before = self._errors_of_redis("MISCONF")
        with self._redis_process:
            fill(self._with.site.redis_disk)
            self._with.stop.wait(fault.seconds)
            refused = self._errors_of_redis("MISCONF") - before
            drain(self._with.site.redis_disk)
        return lambda: {"commands refused": refused}

    def _errors_of_redis(self, name: str) -> int:
        errors: Any = self._with.site.redis.info("errorstats")
        found = errors.get(f"errorstat_{name}", {"count": 0})
        return int(found["count"])

    # The database.

    def _restart_database(self, fault: ScriptedFault) -> CountEffects:
        postgres = self._with.site.postgres
        assert postgres is not None
        marks, mark = self._with.all_marks(), self._with.clients.mark()
        postgres.crash()
        self._with.stop.wait(fault.seconds)
        postgres.start()
        return lambda: {"outages logged": marks.outages(), **self._with.clients.disturbed(mark)}

    def _fill_database_disk(self, fault: ScriptedFault) -> CountEffects:
        marks, mark = self._with.all_marks(), self._with.clients.mark()
        if self._with.site.postgres is None:
            # Else its log goes on for long in the room that it has.
            truncate_log(self._with.site.database_disk / DATABASE_FILE)
        fill(self._with.site.database_disk)
        self._with.stop.wait(fault.seconds)
        drain(self._with.site.database_disk)
        if self._with.site.postgres is not None:
            self._with.site.postgres.start()
        return lambda: {"outages logged": marks.outages(), **self._with.clients.disturbed(mark)}

    # Connections.

    def _cut(self, fault: ScriptedFault) -> CountEffects:
        ways = self._with.site.ways
        closed = ways.cut(fault.target)
        self._with.stop.wait(fault.seconds)
        refused = ways.heal(fault.target)
        return lambda: {"connections closed": closed, "connections refused": refused}

    def _stall(self, fault: ScriptedFault) -> CountEffects:
        marks, mark = self._with.all_marks(), self._with.clients.mark()
        self._with.site.ways.stall(fault.target)
        self._with.stop.wait(fault.seconds)
        held = self._with.site.ways.go_on(fault.target)
        return lambda: {
            "connections held up": held,
            "outages logged": marks.outages(),
            **self._with.clients.disturbed(mark),
        }
