"""The doctor's check of the workers that announce themselves: whether they do what they announce."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import redis

from tether.config.loading import load_settings
from tether.config.settings import Settings
from tether.core.fleet_reading import open_fleet
from tether.core.pool_backlogs import owed_where_known, pools_without_workers, waiting_jobs
from tether.discovery.announcements.presence import WorkerState
from tether.discovery.fleet.fleet import Fleet, silent_in
from tether.discovery.fleet.liveness import copied_keys
from tether.errors import BrokerUnavailable
from tether.ids import PoolName, WorkerId
from tether.local.doctor import Check, CheckStatus
from tether.local.running import Running
from tether.local.settings import local_overrides

NAME = "fleet"

MAX_NAMED = 5
"""Workers that a finding names."""


def check_fleet(
    settings: Settings, running: Running | None, environ: Mapping[str, str], *, is_apart: bool = False
) -> Check:
    """
    Args:
      running: The `tether up` whose Redis is meant where ``redis.url`` is not set.
      is_apart: Whether parts are run by verbs of their own, which use ``redis.url`` also where it is not set.
    """
    if settings.is_default("redis.url") and not is_apart:
        if running is None:
            return Check(NAME, CheckStatus.OK, "not running: tether up starts it")
        overrides = local_overrides(settings, running.folder, running.redis_socket, None)
        settings = load_settings(environ={**environ, **overrides})
    try:
        with open_fleet(settings) as reading:
            evidence = reading.view.evidence
            copied = () if evidence is None else copied_keys(evidence)
            return fleet_verdict(
                *(reading.view.fleet, reading.names),
                copied=copied,
                strangers=reading.strangers,
                wrong_clocks=reading.view.wrong_clocks,
                failing=reading.load_failures(),
                held=reading.held_pools(),
                deserted=pools_without_workers(
                    reading.view.fleet,
                    Counter(waiting_jobs(reading.client, reading.keys)) + Counter(owed_where_known(settings)),
                ),
            )
    except (BrokerUnavailable, redis.RedisError) as error:
        return Check(NAME, CheckStatus.WARN, str(error))


def fleet_verdict(
    fleet: Fleet,
    names: Mapping[WorkerId, str],
    *,
    copied: Sequence[WorkerId] = (),
    strangers: Sequence[WorkerId] = (),
    wrong_clocks: Mapping[WorkerId, int] = MappingProxyType({}),
    failing: Mapping[WorkerId, Mapping[str, str]] = MappingProxyType({}),
    held: Mapping[WorkerId, Mapping[PoolName, str]] = MappingProxyType({}),
    deserted: Mapping[PoolName, int] = MappingProxyType({}),
) -> Check:
    """What is wrong with the workers of a fleet.

    Args:
      names: By worker id.
      copied: Those whose keys several processes use.
      strangers: Those that announce themselves with keys that do not count.
      wrong_clocks: How many milliseconds the clocks of others that are ignored are ahead.
      failing: Why workers cannot load models, by the models' names.
      held: Why workers are held from pools, by the pools' names.
      deserted: Pools without a live worker, and how many jobs wait in each.
    """
    cut_off, silent, out = [], [], []
    for worker, member in sorted(fleet.members.items()):
        if member.presence.state is WorkerState.DISCONNECTED:
            cut_off.append(_shown(worker, names))
        elif member.presence.state in (WorkerState.CORDONED, WorkerState.DRAINING):
            out.append(_shown(worker, names))
        elif silent_in(member, fleet.silent):
            silent.append(_shown(worker, names))
    findings, remedies = [], []
    if cut_off:
        findings.append(f"{_listed(cut_off)} cannot reach Redis, and {_gets(cut_off)} no jobs")
        remedies.append("look at the worker's log, and at the way from its host to redis.url")
    if silent:
        findings.append(
            f"{_listed(silent)} announced, but {_draws(silent)} no jobs, and {_gets(silent)} none"
        )
        remedies.append(
            "look at the worker's log, and whether its redis.url and redis.namespace are those of the others"
        )
    if out:
        takes, whom = ("takes", "it") if len(out) == 1 else ("take", "them")
        findings.append(f"{_listed(out)} {takes} no new jobs: an operator cordoned or drained {whom}")
        remedies.append("tether fleet uncordon, unless the worker is to be stopped")
    if copied:
        keys = _listed([_shown(worker, names) for worker in copied])
        findings.append(f"several processes use the key of {keys}, of which one gets the jobs")
        remedies.append("give each host an identity folder of its own")
    if strangers:
        findings.append(
            f"{_listed(list(strangers))} announced with a key that is not trusted, or was revoked"
        )
        remedies.append(
            "trust the key with tether fleet trust (a revoked one with --again), or stop the worker"
        )
    if wrong_clocks:
        clocks = _listed(
            [f"{_shown(one, names)} by {clock_text(wrong_clocks[one])}" for one in sorted(wrong_clocks)]
        )
        findings.append(f"clocks differ too much from this machine's: of {clocks}; no jobs go there")
        remedies.append("synchronize the clocks of the workers' machines, or this one's (NTP)")
    if failing:
        lines = [
            f"{_shown(worker, names)} cannot load {model}: {why}"
            for worker, reasons in sorted(failing.items())
            for model, why in sorted(reasons.items())
        ]
        findings.append(_listed(lines))
        remedies.append("the worker's log has the traceback; it tries again by itself")
    if held:
        lines = [
            f"{_shown(worker, names)} is held from pool {pool}: {why}"
            for worker, reasons in sorted(held.items())
            for pool, why in sorted(reasons.items())
        ]
        findings.append(_listed(lines))
        remedies.append(
            "look at the worker's log and its device; it comes back by itself once a job succeeds"
        )
    if deserted:
        counts = [f"{_jobs_wait(count)} in pool {pool}" for pool, count in sorted(deserted.items())]
        findings.append(f"{_listed(counts)}, from which no live worker draws")
        remedies.append(
            "start a worker of that GPU class and region, or uncordon one; without one, other pools that "
            "serve the model get the jobs after scheduling.lost_pool_grace, or they are parked until one does"
        )
    if findings:
        return Check(NAME, CheckStatus.WARN, "; ".join(findings), "; ".join(remedies))
    count = len(fleet.members)
    return Check(NAME, CheckStatus.OK, f"{count} worker{'s' if count != 1 else ''} announced")


def clock_text(ahead_ms: int) -> str:
    """By how much a clock is off."""
    return f"{abs(ahead_ms) / 1000:.0f} s {'ahead' if ahead_ms > 0 else 'behind'}"


def _jobs_wait(count: int) -> str:
    return f"{count} job{' waits' if count == 1 else 's wait'}"


def _shown(worker: WorkerId, names: Mapping[WorkerId, str]) -> str:
    return f"{worker} ({names[worker]})" if names.get(worker) else worker


def _listed(workers: list[str]) -> str:
    return ", ".join(workers[:MAX_NAMED]) + (
        f" and {len(workers) - MAX_NAMED} more" if len(workers) > MAX_NAMED else ""
    )


def _gets(workers: list[str]) -> str:
    return "gets" if len(workers) == 1 else "get"


def _draws(workers: list[str]) -> str:
    return "draws" if len(workers) == 1 else "draw"
