"""What the gates of admission cost: submissions through one gateway, of a tenant with a policy in which
everything is set, rate limits and quotas among it, and of one without. Run it with
`ops/bench/run admission`."""

from __future__ import annotations

import argparse
import contextlib
import secrets
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from admission_load import Load, submit_for
from bench_queue import percentile, say
from core_databases import POSTGRES, SQLITE, PostgresServer, postgres
from edges_stage import EdgesStage
from report import Figure, describe_machine, table, versions, write_json

from tether.config.loading import load_settings
from tether.gateway.keys.api_keys import Scope, make_key
from tether.ids import TenantId
from tether.local.redis_server import find_redis_server
from tether.policies.document import Policy, PolicyLimits, PolicyQuotas
from tether.policies.reading import policy_text
from tether.requests.fields import Priority
from tether.store.api_keys import add_key
from tether.store.policies import set_policy
from tether.store.store import Store
from tether.store.tenants import Tenant, create_tenant

LIBRARIES = ("tether", "redis", "fastapi", "starlette", "uvicorn", "sqlalchemy", "psycopg")
OFF, ON = "off", "on"
MUCH = 1_000_000_000
ALL_GATES = Policy(
    models=("counter*", "other@1"),
    regions=("local", "eu"),
    gpu_classes=("cpu", "h100"),
    aliases={"fast": "counter"},
    priority_ceiling=Priority.STANDARD,
    limits=PolicyLimits(requests_per_minute=MUCH, tokens_per_minute=MUCH),
    quotas=PolicyQuotas(
        requests_per_day=MUCH, tokens_per_day=MUCH, requests_per_month=MUCH, tokens_per_month=MUCH
    ),
)
"""It asks all, and refuses nothing: no gateway admits as much. There is a quota of open jobs besides."""

MIN_RATIO = 0.9
CLIENTS = (1, 8, 32)
STATEMENT_MS = 1.0
"""Added to each statement in the second half, as where the database is in another building."""

_APPS = Path(__file__).parent / "admission_apps"


@dataclass(frozen=True)
class Plan:
    """How much is measured: so many rounds, each of so many seconds with the gates off and on."""

    rounds: int
    seconds: float


FULL = Plan(9, 5.0)
QUICK = Plan(3, 0.8)


def make_tenant(stage: EdgesStage, name: str, policy: Policy | None) -> str:
    """A tenant with this policy. Return its API key."""
    tenant = TenantId(name)
    key, kept = make_key(tenant, [Scope.SUBMIT], now_ms=1, randomness=secrets.token_bytes)
    with Store(load_settings(environ={}, file=stage.settings_file()).database.url) as store:
        quota = None if policy is None else MUCH
        store.write_alone(create_tenant, Tenant(tenant, name, 1.0, quota, 1)).result()
        store.write_alone(add_key, kept).result()
        if policy is not None:
            store.write_alone(set_policy, tenant, policy_text(policy), "bench", 1).result()
    return key


def measure(
    plan: Plan, database: str, server: PostgresServer | None, statement_ms: float = 0
) -> Iterator[Figure]:
    """Submit with the gates off and on in turn, the first of a round being another one each time.

    Args:
      statement_ms: By how many milliseconds each statement of the gateway takes longer.
    """
    added = f"{statement_ms:g} ms a statement, " if statement_ms else ""
    slower = {"PYTHONPATH": str(_APPS), "BENCH_STATEMENT_MS": str(statement_ms)} if statement_ms else {}
    with EdgesStage(postgres=server) as stage:
        stage.open_epoch()
        keys = {OFF: make_tenant(stage, OFF, None), ON: make_tenant(stage, ON, ALL_GATES)}
        port = int(stage.start_gateway(slower).rpartition(":")[2])
        for key in keys.values():
            submit_for(port, key, clients=8, seconds=plan.seconds)
        for clients in CLIENTS:
            say(f"{database}, {added}{clients} clients")
            loads: dict[str, list[Load]] = {OFF: [], ON: []}
            spent = {OFF: 0.0, ON: 0.0}
            for number in range(plan.rounds):
                for gates in (OFF, ON) if number % 2 else (ON, OFF):
                    before = stage.processor_seconds()["gateway"]
                    loads[gates].append(submit_for(port, keys[gates], clients=clients, seconds=plan.seconds))
                    spent[gates] += stage.processor_seconds()["gateway"] - before
            what = f"{added}{clients} client{'s' if clients > 1 else ''}"
            yield from _figures(database, what, loads, spent)
            if clients == 1:
                yield from _latencies(database, added, loads)


def _figures(
    database: str, what: str, loads: dict[str, list[Load]], spent: dict[str, float]
) -> Iterator[Figure]:
    for gates, rounds in loads.items():
        rates = [load.rate for load in rounds]
        yield Figure(
            f"{what}, gates {gates}",
            statistics.median(rates),
            "/s",
            database,
            spread=(min(rates), max(rates)),
        )
    ratios = [on.rate / off.rate for off, on in zip(loads[OFF], loads[ON], strict=True)]
    ratio = statistics.median(ratios)
    yield Figure(
        f"{what}, on over off",
        ratio,
        "",
        database,
        spread=(min(ratios), max(ratios)),
        goal=f"{database} at least {MIN_RATIO:g}",
        met=ratio >= MIN_RATIO,
    )
    for gates, rounds in loads.items():
        cost = spent[gates] * 1e6 / sum(len(load.milliseconds) for load in rounds)
        yield Figure(f"{what}, processor time of the gateway, a submit, gates {gates}", cost, "µs", database)


def _latencies(database: str, added: str, loads: dict[str, list[Load]]) -> Iterator[Figure]:
    """What one client waits for one submission, and by how much longer with the gates on."""
    taken = {gates: [one for load in rounds for one in load.milliseconds] for gates, rounds in loads.items()}
    for percent, word in ((50, "median"), (95, "p95")):
        off, on = percentile(taken[OFF], percent), percentile(taken[ON], percent)
        yield Figure(f"{added}one submit, gates off, {word}", off, "ms", database)
        # What one client may lose of its rate is what each of its submissions may take longer.
        most = off * (1 / MIN_RATIO - 1)
        yield Figure(
            f"{added}one submit, added, {word}",
            on - off,
            "ms",
            database,
            goal=f"{database} at most {most:.2g} ms",
            met=on - off <= most,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything: two minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to FILE")
    parser.add_argument("--date", default="", help="the date to write into FILE")
    arguments = parser.parse_args()

    plan = QUICK if arguments.quick else FULL
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(postgres())
        figures = [
            figure
            for statement_ms in (0, STATEMENT_MS)
            for database, its_server in ((SQLITE, None), (POSTGRES, server))
            for figure in measure(plan, database, its_server, statement_ms)
        ]
    machine = describe_machine(".".join(map(str, find_redis_server().version)))
    libraries = versions(LIBRARIES)
    print(f"{machine.cpu}, {machine.cores} cores, {machine.memory} GiB; Redis {machine.redis}\n")
    print(table(figures))
    if arguments.json:
        write_json(arguments.json, "admission", arguments.date, machine, libraries, figures)


if __name__ == "__main__":
    main()
