"""The scripts rule on tenants as the pure decisions do, and keep them apart; and bugs in them are seen."""

import pytest

from support.apart_machine import ApartMachine, with_set_clock
from support.machines import MachineServer, catches_bug, run_machine
from tether.broker.scripts import BROKER_SCRIPTS

pytestmark = [pytest.mark.timeout(1_800), pytest.mark.usefixtures("quiet_logs")]


@pytest.fixture
def attributes(machine_redis_url):
    return {"server": MachineServer(machine_redis_url), "namespace": "apart"}


def change_scripts(monkeypatch, change):
    sound = BROKER_SCRIPTS.source
    monkeypatch.setattr(BROKER_SCRIPTS, "source", lambda name: change(with_set_clock(sound(name))))


# The same histories every time, for now: others find the fault that docs/decisions/blame.md has as open.
@pytest.mark.parametrize(
    ("examples", "number"), [(12, 1), pytest.param(500, None, marks=pytest.mark.long)], ids=["12", "500"]
)
def test_tenants_are_kept_apart_as_the_decisions_say(attributes, monkeypatch, examples, number):
    change_scripts(monkeypatch, lambda text: text)
    run_machine(ApartMachine, attributes, max_examples=examples, number=number)


PLANTED = {
    "nobody is set apart": ("DEATHS = 2,", "DEATHS = 1000,"),
    "everybody is set apart": (
        "if record.deaths > first.deaths or record.deaths == first.deaths and record.jobs > first.jobs then",
        "if false then",
    ),
    "deaths in an unshared pool count": (
        "elseif has_suspects and (is_mixed",
        "elseif has_suspects and (true or is_mixed",
    ),
    "trials count as deaths in the open": (
        "is_suspect[job.id] and job.alone ~= '1' and 1",
        "is_suspect[job.id] and 1",
    ),
    "a death apart is no death": (
        "record.seen, record.proofs, record.ran = now, 0,",
        "record.seen, record.proofs, record.ran = now, record.proofs,",
    ),
    "suspects stay in the quarantine": ("  empty_quarantine(state, now)\n", ""),
    "suspects of a tenant that is apart wait for trials": (
        "return state and job.held.lone == 0 and is_apart(state, job.tenant)",
        "return false and is_apart(state, job.tenant)",
    ),
    "who is apart is drawn among others": (
        "is_priority(class) and turn_of ~= tenant and is_apart(apart[pool], tenant) then",
        "false then",
    ),
    "others are drawn beside it": (
        "    is_full = true\n    soon(math.min(1000, run.left))",
        "    soon(math.min(1000, run.left))",
    ),
    "many begin at once": ("return math.max(0, record.proofs + 1 - running)", "return 1000"),
    "nobody is set free": ("if record.proofs >= record.needed then", "if false then"),
    "it is set free at once": ("if record.proofs >= record.needed then", "if true then"),
    "many workers have a turn": (
        "  return turn.until_ms <= now or",
        "  return true or turn.until_ms <= now or",
    ),
    "a turn is over with its process": (
        "  if turn.ended > 0 then",
        "  if turn.ended > 0 then\n    return true\n  elseif false then",
    ),
    "others need not come first": ("if others_wait and rest > now", "if false and rest > now"),
    "nobody else is drawn after a turn": (
        "    state.turn, state.rest = nil, now + rest\n",
        "    state.turn, state.rest = nil, now\n",
    ),
    "who is passed over is owed for it": (
        "'XX', 'GT', floor, record.tenant)",
        "'XX', 'LT', floor, record.tenant)",
    ),
    "jobs that ran for long say nothing": ("if record and running > 0 then", "if false then"),
    "a good end says nothing": ("if run and run.pool == pool and run.tenant == tenant then", "if false then"),
    "nobody notes that others use the pool": ("if #state.apart > 0 then", "if false then"),
}
"""Bugs: what stands in the scripts, and what is to stand there."""


@pytest.mark.mutants
@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_caught(bug, attributes, monkeypatch):
    original, planted = PLANTED[bug]
    assert any(original in BROKER_SCRIPTS.source(name) for name in BROKER_SCRIPTS.names())
    change_scripts(monkeypatch, lambda text: text.replace(original, planted))
    assert catches_bug(ApartMachine, attributes, max_examples=40)
