"""The broker's scripts under random interleavings of work, crashes, stalls and lost replies."""

import pytest

from support.broker_machine import BrokerMachine
from support.machines import catches_bug, run_machine
from tether.broker.scripts import BROKER_SCRIPTS

PLANTED = {
    "a message is acknowledged by whoever asks": (
        "ack",
        "if held == 1 then",
        "if true then",
    ),
    "what follows a message is forgotten": (
        "ack",
        "if held == 1 or orphaned then",
        "if false then",
    ),
    "a stale worker's retry is placed": (
        "ack",
        "and redis.call('EXISTS', key('lost:' .. broker)) == 0",
        "",
    ),
    "an acknowledgement sent again places its followers again": (
        "ack",
        "return #ARGV >= first and",
        "return false and",
    ),
    "a message sent again is enqueued again": (
        "enqueue",
        "== ARGV[2] then",
        "== 'never' then",
    ),
    "a new message rings no bell": (
        "enqueue",
        "  ring(queue)\n  return 1",
        "  return 1",
    ),
    "who leaves messages behind wakes nobody": (
        "take",
        "else\n  ring(queue)",
        "else",
    ),
    "who takes messages cannot be found": (
        "take",
        "redis.call('SADD', key('held:' .. broker), queue)",
        "",
    ),
    "dead letters are dropped": (
        "nack",
        "redis.call('HSET', key(canonical .. '.XQ.msgs'), id, data)",
        "",
    ),
    "anybody can give a message back": (
        "requeue",
        "release(queue, broker, ARGV[i]) == 1",
        "true",
    ),
    "a reconnecting worker gives back what it works on": (
        "reclaim",
        "if not kept[id] then",
        "if true then",
    ),
    "a reconnecting worker keeps what it forgot": (
        "reclaim",
        "if not kept[id] then",
        "if false then",
    ),
    "a death is not counted": (
        "recover",
        "redis.call('HINCRBY', key('crashes:' .. queue), id, 1)",
        "",
    ),
    "a dead worker's messages stay with it": (
        "recover",
        "local returned = put_back(queue, ids)",
        "local returned = 0",
    ),
    "a worker taken for dead never learns it": (
        "recover",
        "redis.call('SET', key('lost:' .. dead)",
        "redis.call('SET', key('lots:' .. dead)",
    ),
}
"""Bugs, each in one script: (script, what stands there, what is planted)."""

FOUND_SOON = {
    "a message is acknowledged by whoever asks": 3,
    "who leaves messages behind wakes nobody": 9,
    "dead letters are dropped": 1,
    "anybody can give a message back": 1,
    "a reconnecting worker gives back what it works on": 1,
}
"""Bugs that show soon among the examples with these numbers, and late among those that hypothesis takes."""

assert FOUND_SOON.keys() <= PLANTED.keys()


pytestmark = [pytest.mark.timeout(1_800), pytest.mark.usefixtures("quiet_logs")]


@pytest.mark.parametrize("examples", [40, pytest.param(400, marks=pytest.mark.long)])
def test_no_message_is_lost_or_doubled(machine_redis_url, examples):
    run_machine(BrokerMachine, {"url": machine_redis_url}, max_examples=examples)


@pytest.mark.mutants
@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_caught(bug, machine_redis_url, monkeypatch):
    script, original, planted = PLANTED[bug]
    sound = BROKER_SCRIPTS.source
    assert original in sound(script)
    monkeypatch.setattr(
        BROKER_SCRIPTS,
        "source",
        lambda name: sound(name).replace(original, planted, 1) if name == script else sound(name),
    )
    assert catches_bug(
        BrokerMachine, {"url": machine_redis_url}, max_examples=300, number=FOUND_SOON.get(bug)
    )
