"""Whose jobs are drawn, held against a pure model of the Virtual Token Counter."""

import pytest

from support.counter_machine import CounterMachine
from support.machines import MachineServer, catches_bug, run_machine
from support.planted_bugs import plant

pytestmark = [pytest.mark.timeout(1_800), pytest.mark.usefixtures("quiet_logs")]


@pytest.fixture
def attributes(machine_redis_url):
    return {"server": MachineServer(machine_redis_url), "namespace": "counters"}


@pytest.mark.parametrize("examples", [15, pytest.param(500, marks=pytest.mark.long)])
def test_the_least_served_tenant_is_next(attributes, examples):
    run_machine(CounterMachine, attributes, max_examples=examples)


PLANTED = {
    "a return is not lifted": ("place", "math.max(counter_of(own) or 0, least)", "counter_of(own) or 0"),
    "a return loses what it owes": ("place", "math.max(counter_of(own) or 0, least)", "least"),
    "who comes to an empty pool is not lifted": (
        "place",
        "    if not least then\n      least = ",
        "    if not least then\n      least = 0 * ",
    ),
    "who comes to an empty pool has credit for what the last one makes": (
        "place",
        "last and counter_of(redis.call('HGET', served, 't:' .. last)) or 0",
        "0",
    ),
    "weights are ignored at the draw": (
        "draw",
        "cost = cost * FAIR.INPUT_PRICE / weight",
        "cost = cost * FAIR.INPUT_PRICE",
    ),
    "weights are ignored as tokens are made": (
        "append_many",
        "made * FAIR.OUTPUT_PRICE / weight",
        "made * FAIR.OUTPUT_PRICE",
    ),
    "output is not charged": ("append_many", "    charge(pool, priority, tenant, tokens)\n", ""),
    "the last tokens are not charged": (
        "finish",
        "ending.made * FAIR.OUTPUT_PRICE / ending.weight)",
        "0)",
    ),
    "who is passed over loses its place": (
        "draw",
        "      ranks[tenants] = limits.pass_over(pool, tenants, rank)\n",
        "      ranks[tenants] = rank + 1\n      redis.call('ZINCRBY', tenants, 1000, tenant)\n",
    ),
    "one draw takes any number of one tenant": (
        "draw",
        "      limits.take(tenant)\n    end\n    drawn.totals",
        "    end\n    drawn.totals",
    ),
    "input is not charged": ("draw", "    charge_draw(pool, class, tenant, cost)\n", ""),
    "output costs as much as input": ("append_many", "  OUTPUT_PRICE = 2,", "  OUTPUT_PRICE = 1,"),
    "who waits is not charged": (
        "append_many",
        "    apply('ZADD', tenants_of(pool, priority), 'XX', 'INCR', tokens, tenant)\n",
        "",
    ),
    "an estimate that was too low stays": ("finish", "  if rest > 0 then\n", "  if false then\n"),
    "an estimate that was too high stays": ("finish", "  elseif rest < 0 then\n", "  elseif false then\n"),
    "counters are lowered by what nobody has": (
        "draw",
        "(counter_of(scores[i + 1]) or base) - base",
        "math.max(0, counter_of(scores[i + 1]) - 2 * base)",
    ),
}
"""Bugs: (script, what stands there, what is to stand there)."""


@pytest.mark.mutants
@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_in_counting_is_caught(bug, attributes, monkeypatch):
    plant(monkeypatch, PLANTED[bug])
    assert catches_bug(CounterMachine, attributes, max_examples=100, number=0)
