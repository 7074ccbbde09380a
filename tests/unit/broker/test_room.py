"""How much more may be placed in Redis."""

import math

import pytest
import redis

from tether.broker.pools.room import (
    FEW_JOBS,
    FULL_SECONDS,
    LANE_BYTES,
    LANE_JOB_BYTES,
    MIN_LIFE_MS,
    READING_SECONDS,
    MemoryUse,
    RedisRoom,
    bytes_in_redis,
    life_of_ended,
    max_waiting,
    max_waiting_at_submit,
    memory_use,
    room_for_few,
    room_left,
)
from tether.jobs import Priority
from tether.orchestrator.lane_reader import REFILL_SHARE
from tether.telemetry import metrics

LIFE_MS = 60_000


class FakeRedis:
    """Answers INFO as it is told."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = 0

    def info(self, section):
        assert section == "memory"
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def room_of(answer, clock):
    client = FakeRedis(answer)
    return client, RedisRoom(client, watermark=0.8, clock=clock)


def test_the_limit_is_that_of_redis_else_half_of_the_machine():
    assert memory_use({"used_memory": 5, "maxmemory": 100, "total_system_memory": 900}) == MemoryUse(5, 100)
    assert memory_use({"used_memory": 5, "maxmemory": 0, "total_system_memory": 900}) == MemoryUse(5, 450)
    assert memory_use({}) == MemoryUse(0, 0)


def test_the_more_urgent_the_more_may_be_filled_and_submitters_stop_first():
    use = MemoryUse(0, 1_000)
    left = [
        room_left(use, 0.8, priority, for_submitter=for_submitter)
        for priority in (Priority.INTERACTIVE, Priority.STANDARD, Priority.BATCH)
        for for_submitter in (False, True)
    ]
    assert left == pytest.approx([800, 720, 700, 630, 600, 540])
    assert room_left(MemoryUse(900, 1_000), 0.8, Priority.INTERACTIVE, for_submitter=False) < 0
    assert room_left(MemoryUse(900, 0), 0.8, Priority.BATCH, for_submitter=True) == math.inf


def test_the_first_few_of_a_lane_have_a_reserve_whatever_fills_redis():
    assert room_for_few(MemoryUse(900, 1_000)) == pytest.approx(50)
    assert room_for_few(MemoryUse(900, 0)) == math.inf
    assert room_for_few(MemoryUse(990, 1_000)) < 0


def test_submitters_fill_less_of_a_lane_than_the_relay_whatever_the_size():
    for size in (-5, 0, 100, 20_000, 2_000_000):
        at_submit = max_waiting_at_submit(LANE_BYTES, size)
        by_relay = max(FEW_JOBS, LANE_BYTES * REFILL_SHARE / (LANE_JOB_BYTES + max(size, 0)))
        assert 0 < at_submit < by_relay <= max_waiting(LANE_BYTES)


def test_what_ended_is_forgotten_sooner_the_less_memory_is_left():
    lives = [life_of_ended(MemoryUse(used, 1_000), 0.8, LIFE_MS) for used in range(0, 1_001, 50)]
    assert lives[0] == lives[3] == LIFE_MS
    assert lives == sorted(lives, reverse=True)
    assert lives[8] == lives[-1] == MIN_LIFE_MS
    assert MIN_LIFE_MS < lives[5] < LIFE_MS
    assert life_of_ended(MemoryUse(999, 1_000), 0.8, 1_000) == 1_000
    assert life_of_ended(MemoryUse(999, 0), 0.8, LIFE_MS) == LIFE_MS


def test_what_is_placed_counts_until_the_next_reading(clock):
    client, room = room_of({"used_memory": 0, "maxmemory": 1_000_000}, clock)
    before = room.left(Priority.INTERACTIVE)
    room.note_placed(10_000)
    assert room.left(Priority.INTERACTIVE) == before - bytes_in_redis(10_000)
    assert client.asked == 1
    clock.now += READING_SECONDS
    client.answer = {"used_memory": 12_000, "maxmemory": 1_000_000}
    assert room.left(Priority.INTERACTIVE) == before - 12_000
    assert client.asked == 2


def test_who_submits_does_not_wait_for_a_reading_unless_there_seems_to_be_no_room(clock):
    client, room = room_of({"used_memory": 990_000, "maxmemory": 1_000_000}, clock)
    assert room.left_at_submit(Priority.BATCH) == math.inf
    assert client.asked == 0
    room.refresh()
    clock.now += 3_600
    client.answer = {"used_memory": 0, "maxmemory": 1_000_000}
    assert room.left_at_submit(Priority.BATCH) == pytest.approx(540_000)
    assert client.asked == 2
    clock.now += 3_600
    assert room.left_at_submit(Priority.BATCH) == pytest.approx(540_000)
    assert client.asked == 2
    room.refresh()
    assert client.asked == 3


def test_how_much_room_is_left_is_a_metric(clock):
    _, room = room_of({"used_memory": 300, "maxmemory": 1_000}, clock)
    room.left(Priority.BATCH)
    shown = [
        metrics.REGISTRY.value_of("tether_redis_room_bytes", {"priority": priority})
        for priority in (Priority.INTERACTIVE, Priority.STANDARD, Priority.BATCH)
    ]
    assert shown == pytest.approx([500, 400, 300])


def test_a_refused_placement_shortens_what_is_remembered_for_a_while(clock):
    _, room = room_of({"used_memory": 0, "maxmemory": 1_000_000}, clock)
    room.note_refused()
    assert room.life_of_ended(LIFE_MS) == MIN_LIFE_MS
    clock.now += FULL_SECONDS
    assert room.life_of_ended(LIFE_MS) == LIFE_MS


def test_an_outage_is_the_callers_and_a_redis_that_tells_nothing_has_room(clock):
    client, room = room_of(redis.ConnectionError("away"), clock)
    with pytest.raises(redis.ConnectionError):
        room.left(Priority.BATCH)
    clock.now += READING_SECONDS
    client.answer = redis.ResponseError("NOPERM this user has no permissions to run the 'info' command")
    assert room.left(Priority.BATCH) == math.inf
