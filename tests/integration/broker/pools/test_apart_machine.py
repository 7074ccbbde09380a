"""The scripts rule on tenants as the pure decisions do, and keep them apart; and bugs in them are seen."""

import pytest

from support.apart_machine import ApartMachine
from support.machines import MachineServer, catches_bug, run_machine
from support.script_clock import with_set_clock
from tether.broker.scripts import BROKER_SCRIPTS

pytestmark = [pytest.mark.timeout(1_800), pytest.mark.usefixtures("quiet_logs")]


@pytest.fixture
def attributes(machine_redis_url):
    return {"server": MachineServer(machine_redis_url), "namespace": "apart"}


def change_scripts(monkeypatch, change):
    sound = BROKER_SCRIPTS.source
    monkeypatch.setattr(BROKER_SCRIPTS, "source", lambda name: change(with_set_clock(sound(name))))


@pytest.mark.parametrize("examples", [12, pytest.param(500, marks=pytest.mark.long)])
def test_tenants_are_kept_apart_as_the_decisions_say(attributes, monkeypatch, examples):
    change_scripts(monkeypatch, lambda text: text)
    run_machine(ApartMachine, attributes, max_examples=examples)


def test_suspects_of_the_death_that_sets_one_apart_leave_with_the_next(attributes, monkeypatch):
    change_scripts(monkeypatch, lambda text: text)
    machine = type("Machine", (ApartMachine,), attributes)()
    machine.begin()
    machine.place(tenant="c", count=2)
    for _ in range(2):
        machine.a_tenants_jobs_kill(others_end=False, rounds=2)
    machine.teardown()


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
    "suspects stay in the quarantine": ("    left = let_out(ids, left, now)\n", ""),
    "jobs of who is apart stay in the quarantine": (
        "    left = let_out(waiting_together(state.pool, record.tenant), left, now)\n",
        "",
    ),
    "suspects of a tenant that is apart wait for trials": (
        "return state and job.held.lone == 0 and is_apart(state, job.tenant)",
        "return false and is_apart(state, job.tenant)",
    ),
    "who is apart is drawn among others": (
        "is_priority(class) and turn_of ~= tenant and is_apart(apart[pool], tenant) then",
        "false then",
    ),
    "others are drawn beside it": (
        "      is_full = true\n      soon(math.min(1000, run.left))",
        "      soon(math.min(1000, run.left))",
    ),
    "many begin at once": ("math.max(0, record.proofs + 1 - running)", "1000"),
    "nobody is set free": ("if record.proofs >= record.needed then", "if false then"),
    "it is set free at once": ("if record.proofs >= record.needed then", "if true then"),
    "many workers have a turn": (
        "    return its.until_ms <= now or",
        "    return true or its.until_ms <= now or",
    ),
    "a turn is over with its process": (
        "    if its.ended > 0 then",
        "    if its.ended > 0 then\n      return true\n    elseif false then",
    ),
    "others need not come first": ("if rest > now and rest <=", "if false and rest <="),
    "nobody else is drawn after a turn": (
        "    state.turn, state.rest = nil, now + rest\n",
        "    state.turn, state.rest = nil, now\n",
    ),
    "a turn goes on until somebody asks": (
        "its.ended > 0 and its.ended + APART.RESTART_MS or its.until_ms)",
        "now)",
    ),
    "who is passed over is owed for it": (
        "'XX', 'GT', floor, record.tenant)",
        "'XX', 'LT', floor, record.tenant)",
    ),
    "jobs that ran for long say nothing": (
        "        if record then\n          note_proofs",
        "        if false then\n          note_proofs",
    ),
    "a good end says nothing": (
        "if run and not run.is_counted and run.pool == pool and run.tenant == tenant then",
        "if false then",
    ),
    "nobody notes that others use the pool": ("if #state.apart > 0 then", "if false then"),
    "others wait without end": ("elseif kept.lost >= kept.patience then", "elseif false then"),
    "what others lose is not counted": ("kept.lost = kept.lost + now - kept.drew_at", "kept.lost = 0"),
    "who waits for a turn is waited for at once again": (
        "local open_for = KEEPING.OTHERS_SHARE * kept.lost",
        "local open_for = 0",
    ),
    "the turn never comes": (
        "stop_keeping(pool, kept, 2 * kept.patience, now)",
        "stop_keeping(pool, kept, kept.patience, now)",
    ),
    "a new turn is given each time": ("goes_on and its.began or now", "now"),
    "what a process ran apart is forgotten": ("      write_run(worker, until_ms, pool, record.tenant)\n", ""),
    "a turn costs nothing": ("    stop_keeping(pool, kept, kept.lost, now)\n", ""),
}
"""Bugs: what stands in the scripts, and what is to stand there."""


@pytest.mark.mutants
@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_caught(bug, attributes, monkeypatch):
    original, planted = PLANTED[bug]
    assert any(original in BROKER_SCRIPTS.source(name) for name in BROKER_SCRIPTS.names())
    change_scripts(monkeypatch, lambda text: text.replace(original, planted))
    assert catches_bug(ApartMachine, attributes, max_examples=40)
