"""One chaos run: an installation, clients, the fault script, and the judgement when all is quiet again."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import redis
from bench_queue import say
from chaos_accounts import progress, read_snapshot, unfinished
from chaos_checker import check_run, effects_by_type
from chaos_context import CountEffects, EffectCounts
from chaos_failover import Loss, failover_gaps
from chaos_injectors import Injectors
from chaos_log import Accepted, ChaosEntry, ChaosLog, FaultBegan, FaultEnded, Submitting, read_logs
from chaos_results import RunResult
from chaos_script import DEATHS, FaultType, ScriptedFault, ScriptPlan, make_script
from chaos_site import TENANTS, Site, SiteKind
from chaos_undisturbed import undisturbed_runs
from chaos_watch import ClientWatch, RunningAttempt

from tether.errors import TetherError

APPS = Path(__file__).parent / "chaos_apps"
sys.path.append(str(APPS))

from chaos_client import ClientOrders  # noqa: E402
from chaos_requests import ClientMix  # noqa: E402

COUNT_AFTER_SECONDS = 2.5
"""So long after its end the effects of a fault begin to be counted."""
COUNT_BEFORE_SECONDS = 10.0
"""Where none are seen, they are counted again up to here: a busy machine is slow."""
DRIVER = "driver"
ENCORES = 2
"""How often kinds of faults that had no effect strike again."""
LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class RunPlan:
    """What a run is.

    Attributes:
      model: ``null`` or ``demo``.
      jobs: By all clients together, within ``client_seconds``; more where faults take longer.
      patience: Seconds after the last fault without a job that is accepted or ends, after which all must have
        ended, and all be quiet.
    """

    name: str
    model: str
    site: SiteKind
    mix: ClientMix
    script: ScriptPlan
    jobs: int
    client_seconds: float
    patience: float


def run_chaos(plan: RunPlan, seed: int, folder: Path, commit: str = "") -> RunResult:
    """Run it. What the processes log and the clients write stays in the folder.

    Raises:
      TimeoutError: The installation did not start.
    """
    began = time.monotonic()
    script = make_script(seed, plan.script)
    with Site(plan.site, folder) as site:
        driver = _Driver(plan, seed, site, script)
        driver.run()
        logs = driver.logs()
        snapshot = read_snapshot(site.store, site.redis, site.redis_keys)
    undisturbed = undisturbed_runs(_requests_in(logs), plan.site.models)
    violations = check_run(logs, snapshot, undisturbed, {fault.type for fault in script})
    entries = [entry for log in logs.values() for entry in log]
    return RunResult(
        name=plan.name,
        model=plan.model,
        seed=seed,
        seconds=time.monotonic() - began,
        accepted=len({entry.job_id for entry in entries if isinstance(entry, Accepted)}),
        states=dict(Counter(job.state for job in snapshot.jobs.values())),
        faults=dict(Counter(str(fault.type) for fault in script)),
        effects={name: dict(counts) for name, counts in effects_by_type(entries).items()},
        deaths=sum(fault.type in DEATHS for fault in script),
        attempts_lost=snapshot.attempts_lost,
        violations=[(str(one.promise), one.what) for one in violations],
        gaps=failover_gaps(driver.losses, entries),
        commit=commit,
    )


def _requests_in(logs: Mapping[str, Sequence[ChaosEntry]]) -> dict[str, dict[str, object]]:
    return {
        entry.key: entry.request for log in logs.values() for entry in log if isinstance(entry, Submitting)
    }


class _Driver:
    """Drives one run. It owns the clients' processes, a thread a track, and threads that count."""

    def __init__(self, plan: RunPlan, seed: int, site: Site, script: Sequence[ScriptedFault]) -> None:
        self.losses: list[Loss] = []
        self._plan = plan
        self._seed = seed
        self._site = site
        self._script = script
        self._stop = threading.Event()
        self._effective: set[FaultType] = set()
        self._files = [site.folder / f"{tenant}.jsonl" for tenant in TENANTS]
        self._enough = site.folder / "enough"
        self._clients: list[subprocess.Popen[bytes]] = []
        self._log = ChaosLog(site.folder / "faults.jsonl")
        self._injectors = Injectors(site, ClientWatch(self._files), self._stop, self._note_victims)

    def run(self) -> None:
        with self._log:
            try:
                self._start_clients()
                self._strike_all()
                self._enough.touch()
                self._wait_for_quiet()
            finally:
                self._stop.set()
                for client in self._clients:
                    client.kill()
                    client.wait()

    def logs(self) -> Mapping[str, Sequence[ChaosEntry]]:
        return read_logs([*self._files, self._site.folder / "faults.jsonl"])

    def _start_clients(self) -> None:
        for tenant, file in zip(TENANTS, self._files, strict=True):
            orders = ClientOrders(
                client=tenant,
                tenant=tenant,
                api_key=self._site.keys[tenant],
                ports=self._site.ports,
                seed=f"{self._plan.name}-{self._seed}",
                jobs=self._plan.jobs // len(TENANTS),
                seconds=self._plan.client_seconds,
                stop=str(self._enough),
                mix=self._plan.mix,
                log=str(file),
            )
            told = file.with_suffix(".orders")
            told.write_bytes(msgspec.json.encode(orders))
            with open(file.with_suffix(".err"), "ab") as errors:
                client = subprocess.Popen(
                    [sys.executable, str(APPS / "chaos_client.py"), str(told)],
                    stdin=subprocess.DEVNULL,
                    stderr=errors,
                    env={**_environ(), "PYTHONPATH": str(APPS.parent)},
                )
            self._clients.append(client)

    def _strike_all(self) -> None:
        """All faults, each track on a thread of its own; those of kinds that had no effect once more."""
        began = time.monotonic()
        tracks = sorted({fault.track for fault in self._script})
        self._strike(began, [[one for one in self._script if one.track == track] for track in tracks])
        for again in range(1, ENCORES + 1):
            idle = [self._of_kind(kind) for kind in {fault.type for fault in self._script} - self._effective]
            now = time.monotonic()
            encore = [
                replace(fault, number=len(self._script) * again + fault.number, at=now - began)
                for fault in idle
            ]
            self._strike(began, [sorted(encore, key=lambda fault: fault.number)])

    def _of_kind(self, kind: FaultType) -> ScriptedFault:
        return next(fault for fault in self._script if fault.type == kind)

    def _strike(self, began: float, tracks: Sequence[Sequence[ScriptedFault]]) -> None:
        with (
            ThreadPoolExecutor(8, "chaos-count") as counting,
            ThreadPoolExecutor(4, "chaos-track") as striking,
        ):
            struck = [striking.submit(self._strike_track, began, track, counting) for track in tracks]
            for future in struck:
                for counted in future.result():
                    counted.result()

    def _strike_track(
        self, began: float, faults: Sequence[ScriptedFault], counting: ThreadPoolExecutor
    ) -> list[Future[None]]:
        counted = []
        for fault in faults:
            self._stop.wait(max(began + fault.at - time.monotonic(), 0.0))
            if self._stop.is_set():
                break
            fault = self._injectors.wait_for_moment(fault)
            said = {"client": DRIVER, "type": str(fault.type), "target": fault.target}
            self._log.write(FaultBegan(at=time.monotonic(), number=fault.number, **said))
            count = self._injectors.strike(fault)
            counted.append(counting.submit(self._count, fault, count))
        return counted

    def _count(self, fault: ScriptedFault, count: CountEffects) -> None:
        deadline = time.monotonic() + COUNT_BEFORE_SECONDS
        effects: EffectCounts = {}
        while not any(effects.values()) and time.monotonic() < deadline:
            self._stop.wait(COUNT_AFTER_SECONDS)
            try:
                effects = count()
            except (redis.RedisError, TetherError) as error:
                say(f"  {fault.type} {fault.target}: its effects cannot be counted: {error}")
        if any(effects.values()):
            self._effective.add(fault.type)
        self._log.write(
            FaultEnded(
                at=time.monotonic(),
                client=DRIVER,
                number=fault.number,
                type=str(fault.type),
                target=fault.target,
                effects=effects,
            )
        )

    def _note_victims(self, fault: ScriptedFault, victims: Sequence[RunningAttempt]) -> None:
        at = time.monotonic()
        self.losses += [Loss(fault.number, str(fault.type), at, victim.job_id) for victim in victims]

    def _wait_for_quiet(self) -> None:
        """Wait until all is over, for as long as there is progress: how fast the machine is decides nothing.
        The judgement says what is not as it should be."""
        patience = self._plan.patience
        deadline, before = time.monotonic() + patience, (0, 0)
        while time.monotonic() < deadline:
            counts = progress(self._site.store)
            if counts != before:
                deadline, before = time.monotonic() + patience, counts
            have_ended = all(one.poll() is not None for one in self._clients)
            if have_ended and unfinished(self._site.store) == 0 and self._is_quiet():
                return
            self._stop.wait(LOOK_SECONDS)

    def _is_quiet(self) -> bool:
        snapshot = read_snapshot(self._site.store, self._site.redis, self._site.redis_keys)
        return not (snapshot.outbox or snapshot.holds or snapshot.counters or snapshot.redis)


def _environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("TETHER_")}
