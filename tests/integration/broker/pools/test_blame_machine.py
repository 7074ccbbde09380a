"""The scripts rule on random deaths as the pure decisions do; and bugs in them are seen."""

import pytest

from support.blame_machine import BlameMachine
from support.machines import MachineServer, catches_bug, run_machine
from support.script_clock import with_set_clock
from tether.broker.scripts import BROKER_SCRIPTS

pytestmark = [pytest.mark.timeout(1_800), pytest.mark.usefixtures("quiet_logs")]


@pytest.fixture
def attributes(machine_redis_url):
    return {"server": MachineServer(machine_redis_url), "namespace": "blame"}


def change_scripts(monkeypatch, change):
    sound = BROKER_SCRIPTS.source
    monkeypatch.setattr(BROKER_SCRIPTS, "source", lambda name: change(name, with_set_clock(sound(name))))


@pytest.mark.parametrize("examples", [15, pytest.param(500, marks=pytest.mark.long)])
def test_the_scripts_rule_as_the_decisions_do(attributes, monkeypatch, examples):
    change_scripts(monkeypatch, lambda name, text: text)
    run_machine(BlameMachine, attributes, max_examples=examples)


PLANTED = {
    "a machine that vanishes is blamed": ("gone", "if how ~= 'ended' and how ~= 'host' then", "if true then"),
    "anybody may tell": ("gone", "registered ~= process and (registered or not leads)", "false"),
    "a word counts twice": ("gone", "if registered == GONE then", "if false then"),
    "who runs for long is still a suspect": ("gone", "job.ran <= proof_of(job.held.ran) then", "true then"),
    "the other half stays": ("gone", "if job.alone == '1' and is_name(job.group) then", "if false then"),
    "beside others is alone": ("gone", "if #dead == 1 and is_poison(job) then", "if is_poison(job) then"),
    "nobody has to survive": (
        "gone",
        "if held.lone == 0 or has_survivors(held, job.pool) then",
        "if true then",
    ),
    "a deadly worker is believed": (
        "gone",
        "local has_died_without = died_without(job)",
        "local has_died_without = false",
    ),
    "a process that was killed is believed": (
        "gone",
        "local more = (how == 'signal 9' or how == 'unknown') and WEAK_DEATHS or 0",
        "local more = 0",
    ),
    "a whole group is tried": ("draw", "math.ceil((#others + 1) / 2) - 1", "#others"),
    "suspects are tried one by one": ("draw", "math.ceil((#others + 1) / 2) - 1", "0"),
    "many workers try": ("8_suspects", "if state == RUNNING and alone == '1' then", "if false then"),
    "others come at any time": ("8_suspects", "if not held or held.lone == 0 or", "if true or"),
    "who is handed over stays a suspect": (
        "8_suspects",
        "now - drawn_at > proof_of(held.ran) then",
        "false then",
    ),
}
"""Bugs: (script, what stands there, what is to stand there)."""


@pytest.mark.mutants
@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_caught(bug, attributes, monkeypatch):
    where, original, planted = PLANTED[bug]
    sound = BROKER_SCRIPTS.source
    names = [name for name in BROKER_SCRIPTS.names() if original in sound(name)]
    assert names, f"{original} stands nowhere"
    assert where == "8_suspects" or names == [f"pool/{where}"]

    def change(name, text):
        return text.replace(original, planted) if name in names else text

    change_scripts(monkeypatch, change)
    assert catches_bug(BlameMachine, attributes, max_examples=40)
