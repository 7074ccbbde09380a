"""What chaos runs there are: their installations, their clients, and how much strikes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from chaos_requests import ClientMix
from chaos_run import RunPlan
from chaos_script import DEATHS, FaultType, ScriptPlan
from chaos_site import ORCHESTRATORS, SiteKind

SQLITE, POSTGRES = "sqlite", "postgres"

_NULL_MODEL = """
[[models]]
name = "counter"
engine = "null"
[models.options]
tokens_per_second = {rate}
"""

_DEMO_MODEL = """
[[models]]
name = "tiny"
source = "demo"
"""

NULL_STAGES, DEMO_STAGES = 8, 2
NULL_SECONDS, DEMO_SECONDS = 720.0, 900.0
"""Of one stage's fault script. A process that has to load a model first is struck less often."""

_ON_SQLITE = SiteKind(
    name=SQLITE,
    is_postgres=False,
    is_swarm=False,
    gateways=1,
    workers=2,
    threads=12,
    models=_NULL_MODEL.format(rate=20),
)
_ON_POSTGRES = replace(_ON_SQLITE, name=POSTGRES, is_postgres=True, is_swarm=True, gateways=2)
_NULL_MIX = ClientMix("counter", 30, 110)
_DEMO_MIX = ClientMix(
    "tiny", 20, 60, "return the value of this function list string object file name class method argument"
)


def targets_of(site: SiteKind) -> Mapping[FaultType, Sequence[str]]:
    """Whom each kind of fault may strike in an installation."""
    workers = tuple(f"worker-{number}" for number in range(1, site.workers + 1))
    gateways = tuple(f"gateway-{number}" for number in range(1, site.gateways + 1))
    doors = tuple(f"client-{name}" for name in gateways)
    ways = (*doors, "worker-redis", "gateway-redis", *(f"{name}-redis" for name in ORCHESTRATORS))
    targets: dict[FaultType, Sequence[str]] = {
        FaultType.WORKER_KILLED: workers,
        FaultType.WORKER_HOST_KILLED: workers,
        FaultType.WORKER_HOST_LOST: workers,
        FaultType.WORKER_STOPPED: workers,
        FaultType.GATEWAY_KILLED: gateways,
        FaultType.GATEWAY_STOPPED: gateways,
        FaultType.ORCHESTRATOR_KILLED: ("leading",),
        FaultType.ORCHESTRATOR_STOPPED: ("leading",),
        FaultType.REDIS_KILLED: ("redis",),
        FaultType.REDIS_STOPPED: ("redis",),
        FaultType.REDIS_FLUSHED: ("redis",),
        FaultType.REDIS_ROLLED_BACK: ("redis",),
        FaultType.REDIS_FULL: ("redis",),
        FaultType.REDIS_DISK_FULL: ("redis",),
        FaultType.DATABASE_DISK_FULL: ("database",),
        FaultType.CONNECTIONS_CUT: (*ways, "database") if site.is_postgres else ways,
        FaultType.CONNECTIONS_STALLED: (*ways, "database") if site.is_postgres else ways,
        FaultType.CLOCK_AHEAD: (*gateways, *workers),
        FaultType.CLOCK_BACK: (*gateways, *workers),
    }
    if site.is_swarm:
        targets |= {FaultType.SIDECAR_KILLED: workers, FaultType.SIDECAR_STOPPED: workers}
    if site.is_postgres:
        targets |= {FaultType.DATABASE_RESTARTED: ("database",)}
    return targets


def quick_plan(name: str) -> RunPlan:
    """A run of a minute and a half on one of the two databases."""
    site = _ON_POSTGRES if name == POSTGRES else _ON_SQLITE
    targets = targets_of(site)
    return RunPlan(
        name=f"quick-{name}",
        model="null",
        site=site,
        mix=_NULL_MIX,
        script=ScriptPlan(seconds=56.0, deaths=12, others=_kinds(targets) + 1, targets=targets),
        jobs=150,
        client_seconds=64.0,
        patience=90.0,
    )


def mutant_plan(environ: Mapping[str, str]) -> RunPlan:
    """A short run of an installation with a planted bug."""
    plan = quick_plan(SQLITE)
    targets = plan.script.targets
    return replace(
        plan,
        name="mutant",
        site=replace(plan.site, environ=environ),
        script=ScriptPlan(seconds=30.0, deaths=8, others=_kinds(targets), targets=targets),
        jobs=90,
        client_seconds=35.0,
        patience=40.0,
    )


def stage_plans() -> dict[str, RunPlan]:
    """The stages of the long run, by name: together 20,000 jobs without a model, and 1,000 with one."""
    stages = {}
    for number in range(1, NULL_STAGES + 1):
        site = _ON_POSTGRES if number % 2 == 0 else _ON_SQLITE
        stages[f"null-{number}-{site.name}"] = _long_plan(
            f"null-{number}-{site.name}",
            "null",
            replace(site, workers=4),
            _NULL_MIX,
            NULL_SECONDS,
            jobs=20_000 // NULL_STAGES,
            deaths=2_000 // NULL_STAGES,
        )
    for number in range(1, DEMO_STAGES + 1):
        site = _ON_POSTGRES if number % 2 == 0 else _ON_SQLITE
        stages[f"demo-{number}-{site.name}"] = _long_plan(
            f"demo-{number}-{site.name}",
            "demo",
            replace(site, models=_DEMO_MODEL, threads=8),
            _DEMO_MIX,
            DEMO_SECONDS,
            jobs=1_000 // DEMO_STAGES,
            deaths=200 // DEMO_STAGES,
        )
    return stages


def _long_plan(
    name: str, model: str, site: SiteKind, mix: ClientMix, seconds: float, *, jobs: int, deaths: int
) -> RunPlan:
    targets = targets_of(site)
    return RunPlan(
        name=name,
        model=model,
        site=site,
        mix=mix,
        script=ScriptPlan(seconds=seconds, deaths=deaths, others=round(seconds / 15), targets=targets),
        # A third each, rounded up.
        jobs=jobs + -jobs % 3,
        client_seconds=seconds + 20.0,
        patience=180.0,
    )


def _kinds(targets: Mapping[FaultType, Sequence[str]]) -> int:
    return len(targets.keys() - DEATHS.keys())
