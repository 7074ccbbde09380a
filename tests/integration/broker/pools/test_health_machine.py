"""Workers are judged by what they and others do, whatever that is."""

import pytest

from support.health_machine import HealthMachine
from support.machines import MachineServer, catches_bug, run_machine
from support.planted_bugs import plant

pytestmark = [pytest.mark.timeout(1_800), pytest.mark.usefixtures("quiet_logs")]


@pytest.fixture
def attributes(machine_redis_url):
    return {"server": MachineServer(machine_redis_url), "namespace": "health"}


@pytest.mark.parametrize("examples", [15, pytest.param(500, marks=pytest.mark.long)])
def test_workers_are_judged_by_what_others_do(attributes, examples):
    run_machine(HealthMachine, attributes, max_examples=examples)


PLANTED = {
    "a success changes nothing": (
        "finish",
        "  if apply('HDEL', health_of(worker_id), pool) == 1 and",
        "  if false and",
    ),
    "others' success does not count": ("fail", "newest[i] ~= worker_id and", "false and"),
    "held from all at once": (
        "draw",
        "(is_held_for_all(record) or is_among(record.tenants, tenant))",
        "true",
    ),
    "held from nobody": ("draw", "    if is_barred(pool, tenant)\n", "    if false\n"),
    "many probes": ("draw", "  note_probe(pool, tenant, id)\n", ""),
    "bad requests count": ("fail", "elseif reason.retryable ~= true then", "elseif false then"),
}
"""Bugs: (script, what stands there once, what is to stand there)."""


@pytest.mark.mutants
@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_in_judging_is_caught(bug, attributes, monkeypatch):
    plant(monkeypatch, PLANTED[bug])
    assert catches_bug(HealthMachine, attributes, max_examples=100, number=0)
