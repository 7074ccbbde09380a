"""When a worker whose tenants have limits draws again, on a port in memory."""

import pytest
import redis

from support.drawn_jobs import drawn_job
from tether.broker.pools.consumer import PoolConsumer
from tether.broker.pools.draw_limits import DrawLimits
from tether.broker.pools.slots import Slots

WAIT = 5.0
"""What a draw waits at most, where the timeout of a call is longer."""


class Limiter:
    """One slot for each tenant; and what a test adds."""

    def __init__(self):
        self.kept_back = {}

    def on_tightened(self, call):
        self.tell = call

    def limits(self, running):
        left = {tenant: max(1 - count, 0) for tenant, count in running.items()}
        left |= dict.fromkeys(self.kept_back, 0)
        return DrawLimits(1, left, min(self.kept_back.values(), default=None))


@pytest.fixture
def limiter():
    return Limiter()


@pytest.fixture
def slots():
    return Slots(3)


@pytest.fixture
def consumer(port, limiter, slots, attempts):
    return PoolConsumer(
        port, slots, lambda: ["pool"], timeout=100_000, listener=attempts, limiter=limiter, clock=lambda: 0.0
    )


def place(port, *tenants):
    for number, tenant in enumerate(tenants, len(port.draws) + 10 * len(port.waits)):
        port.draws.append(drawn_job(number, tenant=tenant))


def taken(consumer, calls):
    """Whose jobs are handed out."""
    messages = [message for message in (next(consumer) for _ in range(calls)) if message is not None]
    return messages, [message.kwargs["job_id"] for message in messages]


def test_a_draw_is_told_what_each_tenant_may_have(port, consumer):
    place(port, "a", "a", "b", "a", "b")
    messages, job_ids = taken(consumer, 2)
    assert job_ids == ["job-0", "job-2"], "the second of a tenant waits, whoever else comes"
    assert port.limits[0] == DrawLimits(1, {})
    next(consumer)
    assert port.limits[1] == DrawLimits(1, {"a": 0, "b": 0})
    assert port.waits[1] == WAIT, "what it passes over is no reason to draw again"
    consumer.ack(messages[0])
    _, job_ids = taken(consumer, 1)
    assert job_ids == ["job-1"]
    assert port.waits[2] == 0, "but that one of its jobs has ended"


def test_a_slot_that_gets_free_during_the_wait_ends_it(port, consumer):
    place(port, "a", "a")
    messages, _ = taken(consumer, 1)
    port.while_drawing = lambda: consumer.ack(messages[0])
    assert next(consumer) is None, "the draw under way knows the limits of before"
    assert port.calls.count("ring") == 1
    port.while_drawing = lambda: None
    _, job_ids = taken(consumer, 1)
    assert (job_ids, port.waits[-1]) == (["job-1"], 0)


def test_a_tenant_that_reaches_its_share_during_the_wait_ends_it(port, consumer, limiter):
    limiter.tell()
    assert next(consumer) is None
    limiter.tell()
    assert "ring" not in port.calls, "nothing waited"
    port.while_drawing = limiter.tell
    assert next(consumer) is None
    assert port.calls.count("ring") == 1


def test_nobody_rings_for_a_slot_of_others_or_outside_a_draw(port, consumer, limiter):
    limiter.limits = lambda running: DrawLimits(None, {"x": 0})
    place(port, "a", "b")
    messages, _ = taken(consumer, 2)
    port.while_drawing = lambda: consumer.ack(messages[0])
    assert next(consumer) is None
    port.while_drawing = lambda: None
    consumer.ack(messages[1])
    assert "ring" not in port.calls


def test_without_redis_a_slot_is_freed_all_the_same(port, consumer, slots):
    place(port, "a")
    messages, _ = taken(consumer, 1)

    def ring():
        raise redis.ConnectionError("away")

    port.ring = ring
    port.while_drawing = lambda: consumer.ack(messages[0])
    next(consumer)
    assert slots.outstanding == 0


def test_a_slot_that_is_freed_while_limits_are_made_is_not_missed(port, consumer, limiter, slots):
    place(port, "a", "a")
    messages, _ = taken(consumer, 1)
    sound = limiter.limits

    def limits(running):
        made = sound(running)
        if running:
            consumer.ack(messages[0])
        return made

    limiter.limits = limits
    _, job_ids = taken(consumer, 1)
    assert job_ids == ["job-1"]
    assert port.waits[-1] == 0


def test_it_waits_no_longer_than_until_a_tenant_may_have_more(port, consumer, limiter):
    place(port, "a")
    limiter.kept_back = {"a": 0.25}
    assert next(consumer) is None
    assert next(consumer) is None
    assert port.waits[-1] == 0.25
    limiter.kept_back = {}
    _, job_ids = taken(consumer, 1)
    assert (job_ids, port.waits[-1]) == (["job-0"], 0)
    for _ in range(2):
        assert next(consumer) is None
    assert port.waits[-1] == WAIT
