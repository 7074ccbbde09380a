"""Draws and aging under random heads that a worker may not have, with bounds that few jobs reach."""

import re

import pytest

from support.fairness_machine import SMALL_BOUNDS, FairnessMachine
from support.machines import MachineServer, catches_bug, run_machine
from support.planted_bugs import plant
from tether.broker.scripts import BROKER_SCRIPTS

pytestmark = [pytest.mark.timeout(1_800), pytest.mark.usefixtures("quiet_logs")]


@pytest.fixture
def attributes(machine_redis_url):
    return {"server": MachineServer(machine_redis_url), "namespace": "fairness"}


@pytest.fixture
def small_bounds(monkeypatch):
    changes = []
    for (script, name), value in SMALL_BOUNDS.items():
        line = re.search(rf"local {name} = \d+\n", BROKER_SCRIPTS.source(f"pool/{script}"))
        changes.append((script, line[0], f"local {name} = {value}\n"))
    plant(monkeypatch, *changes)


@pytest.mark.parametrize("examples", [6, pytest.param(300, marks=pytest.mark.long)])
def test_nobodys_heads_hide_anothers(attributes, small_bounds, examples):
    run_machine(FairnessMachine, attributes, max_examples=examples)


PLANTED = {
    "one lane has all of a draw's steps": ("draw", "discarded + MAX_DISCARDED_OF_LANE", "MAX_DISCARDED"),
    "the next draw begins anew": ("draw", "if stopped_at and wants_more() then", "if false then"),
    "hints are obeyed without end": ("draw", "and skipped < MAX_SKIPPED then", "then"),
    "who must run alone stays in front": (
        "draw",
        "if must_be_alone and not priority then\n      pop(list, i, entry)\n",
        "if must_be_alone and not priority then\n      return 'skipped'\n    elseif false then\n",
    ),
    "a worker for each job that must run alone": (
        "draw",
        "local is_trial = not is_trying(pool, now) and has_alone(pool)",
        "local is_trial = has_alone(pool)",
    ),
    "who has its share hides the others": (
        "draw",
        "      ranks[tenants] = limits.pass_over(pool, tenants, rank)\n",
        "      return false\n",
    ),
    "one draw takes any number of one tenant": (
        "draw",
        "      limits.take(tenant)\n    end\n    drawn.totals",
        "    end\n    drawn.totals",
    ),
    "alone beside others": (
        "draw",
        "if busy or #answer > 2 then\n        if (is_trial",
        "if false then\n        if (is_trial",
    ),
    "old lanes are looked at in the same order": (
        "expire",
        "integer(math.max(placed_at, now - age))",
        "integer(placed_at)",
    ),
    "a lane is aged once": ("expire", "  if placed_at then\n", "  if false then\n"),
    "a tenant whose jobs are moved gets no turn": (
        "reprioritise",
        "note_waiting(pool, new_class, tenant, placed_at)\nreturn",
        "return",
    ),
    "a job that is moved stands in both lanes": (
        "reprioritise",
        "leave(job_priority)\nleave(alone_class(job_priority))\nticket = integer(ticket + 1)",
        "ticket = integer(ticket)",
    ),
}
"""Bugs, each of which hides somebody."""

FOUND_SOON = {"the next draw begins anew": 1}
"""Bugs that show soon among the examples with these numbers; the others do so with 0."""


@pytest.mark.mutants
@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_caught(bug, attributes, small_bounds, monkeypatch):
    plant(monkeypatch, PLANTED[bug])
    assert catches_bug(FairnessMachine, attributes, max_examples=60, number=FOUND_SOON.get(bug, 0))
