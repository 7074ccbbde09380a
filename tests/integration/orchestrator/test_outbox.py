"""The relay places by class, then by lane, as far as Redis has room."""

import pytest
from sqlalchemy import event, text

from support.core_steps import NOW, CoreSteps
from support.databases import OTHER_POOL, POOL, outbox
from tether.broker.pools.room import RedisRoom
from tether.orchestrator import lane_reader, outbox_relay
from tether.store.placements import states
from tether.store.schema import dispatches
from tether.store.tenants import Tenant, create_tenant


@pytest.fixture
def core(store, shared_redis_server, namespace):
    made = CoreSteps(store, shared_redis_server, namespace)
    yield made
    made.close()


def owe(core, numbers, **changes):
    """Jobs whose submitters died before they placed them."""
    core.submit(*numbers, places=False, **changes)


def add_tenants(core, *names):
    for name in names:
        core.store.write_alone(create_tenant, Tenant(name, name, 1.0, None, NOW)).result()


def placed(core, numbers):
    known = core.store.read(states, [f"job-{number:06}" for number in numbers])
    return [number for number in numbers if known.get(f"job-{number:06}", ("",))[0] == "placed"]


def rest(step, most=50):
    """Step until there is nothing that can be done at once. A step that never rests is a fault."""
    for _ in range(most):
        if (seconds := step()) > 0:
            return seconds
    raise AssertionError(f"no rest after {most} steps")


def set_watermark(core, watermark):
    core.pools.room = RedisRoom(core.redis, watermark=watermark)
    core.pools.room.refresh()


NO_ROOM = 1e-12
"""A watermark that any Redis is above."""


def test_an_interactive_job_comes_before_all_batch_jobs_that_were_due_before_it(core, monkeypatch):
    monkeypatch.setattr(outbox_relay, "BATCH", 8)
    owe(core, range(40), priority="batch")
    owe(core, range(40, 44), now_ms=NOW + 10)
    owe(core, [50], priority="interactive", now_ms=NOW + 20)
    core.later()
    core.relay()
    assert placed(core, [50]) == [50]
    assert placed(core, range(40, 44)) == [40, 41, 42, 43]
    assert placed(core, range(40)) == [0, 1, 2]
    rest(core.relay)
    assert outbox(core.store) == []


def test_no_class_is_passed_over_for_ever_by_more_urgent_ones(core, monkeypatch):
    monkeypatch.setattr(outbox_relay, "BATCH", 2)
    most = outbox_relay.MAX_PASSED_OVER
    owe(core, range(3), priority="batch")
    owe(core, range(10, 12))
    owe(core, range(20, 20 + 2 * (most + 2)), priority="interactive")
    core.later()
    for _ in range(most):
        core.relay()
    assert placed(core, range(20)) == []
    core.relay()
    assert placed(core, range(20)) == [0, 10]
    core.relay()
    assert placed(core, range(20)) == [0, 10]
    rest(core.relay)
    assert outbox(core.store) == []


def test_tenants_take_turns_and_each_ones_jobs_stay_in_order(core, monkeypatch):
    monkeypatch.setattr(outbox_relay, "BATCH", 4)
    add_tenants(core, "late", "later")
    owe(core, range(40))
    owe(core, [50, 51, 52], tenant_id="late", now_ms=NOW + 10)
    owe(core, [60], tenant_id="later", now_ms=NOW + 20)
    core.later()
    core.relay()
    assert placed(core, [*range(40), *range(50, 53), 60]) == [0, 1, 50, 60]
    core.relay()
    assert placed(core, [*range(40), *range(50, 53)]) == [0, 1, 2, 3, 50, 51, 52]
    rest(core.relay)
    assert outbox(core.store) == []


def test_all_of_many_lanes_get_their_turn(core, monkeypatch):
    monkeypatch.setattr(lane_reader, "LANES", 2)
    monkeypatch.setattr(outbox_relay, "BATCH", 2)
    tenants = [f"tenant-{number}" for number in range(7)]
    add_tenants(core, *tenants)
    for number, tenant in enumerate(tenants):
        owe(core, range(10 * number, 10 * number + 3), tenant_id=tenant)
    core.later()
    for _ in range(4):
        core.relay()
    firsts = range(0, 70, 10)
    assert placed(core, firsts) == list(firsts)
    rest(core.relay)
    assert outbox(core.store) == []


def test_a_full_lane_holds_up_no_other_and_costs_no_reading_of_payloads(core):
    core.pools.room.lane_bytes = 8 * 1_024
    owe(core, range(20))
    owe(core, range(30, 33), pool=OTHER_POOL)
    owe(core, range(40, 42), priority="batch")
    core.later()
    assert 0 < rest(core.relay) <= outbox_relay.MAX_PAUSE_SECONDS
    assert placed(core, range(50)) == [*range(8), 30, 31, 32, 40, 41]
    queries = []

    def note(connection, cursor, statement, *_):
        queries.append(statement)

    event.listen(core.store._readers, "before_cursor_execute", note)
    for _ in range(3):
        assert core.relay() > 0
    assert not any("body" in query for query in queries)
    assert not any("due_at <=" in query for query in queries), "a lane that was full is not looked into"
    event.remove(core.store._readers, "before_cursor_execute", note)
    # Lanes take turns at drawing too.
    core.finish(6)
    core.settle()
    rest(core.relay)
    assert len(placed(core, range(20))) == 8


def test_without_room_in_redis_the_less_urgent_waits_and_the_relay_rests(core):
    owe(core, range(8), priority="batch")
    owe(core, range(10, 18))
    owe(core, range(20, 28), priority="interactive")
    core.later()
    use = core.redis.info("memory")
    limit = use["maxmemory"] or use["total_system_memory"] // 2
    # Room for jobs of the most urgent class, and none for the next, though Redis may need less by then.
    set_watermark(core, 0.97 * use["used_memory"] * 8 / 7 / limit)
    assert rest(core.relay) > 0
    # Of the others a few, whatever else is in Redis.
    few = [0, 1, 2, 3, 10, 11, 12, 13]
    assert placed(core, range(30)) == [*few, *range(20, 28)]
    set_watermark(core, NO_ROOM)
    assert rest(core.relay) > 0
    set_watermark(core, 0.8)
    assert rest(core.relay) > 0
    assert outbox(core.store) == []


def test_what_is_submitted_while_redis_has_no_room_is_placed_when_it_has(core):
    set_watermark(core, NO_ROOM)
    core.submit(*range(5))
    assert core.states(*range(5)) == ["accepted"] * 5
    core.later()
    assert rest(core.relay) > 0
    assert core.states(*range(5)) == ["placed"] * 4 + ["accepted"]
    set_watermark(core, 0.8)
    rest(core.relay)
    assert core.states(*range(5)) == ["placed"] * 5


def test_what_is_owed_goes_on_while_new_jobs_come_as_fast_as_others_end(core):
    core.pools.room.lane_bytes = 20 * 1_024
    core.submit(*range(60))
    oldest = [number for number in range(60) if core.states(number) == ["accepted"]][:5]
    assert oldest
    for number in range(100, 160):
        core.later()
        core.finish(1)
        core.settle()
        core.submit(number)
        core.relay()
    assert core.states(*oldest) == ["succeeded"] * 5


def test_jobs_of_a_pool_that_nobody_draws_from_keep_no_others_out(core):
    set_watermark(core, NO_ROOM)
    owe(core, range(20), pool=OTHER_POOL)
    owe(core, range(30, 40))
    owe(core, range(50, 60), priority="batch")
    core.later()
    for _ in range(10):
        rest(core.relay)
        core.finish(len(placed(core, range(30, 60))))
        core.settle()
    assert core.states(*range(30, 40), *range(50, 60)) == ["succeeded"] * 20
    assert len(placed(core, range(20))) == 4


def test_a_large_job_and_what_stands_behind_it_start_beside_small_ones(core):
    core.pools.room.lane_bytes = 100 * 1_024
    core.submit(*range(10))
    owe(core, [50], payload='{"v":1,"p":"' + "x" * 1_900_000 + '"}')
    owe(core, [51], now_ms=NOW + 1)
    core.later()
    rest(core.relay)
    assert core.states(50) == ["placed"]
    core.finish(11)
    core.settle()
    rest(core.relay)
    assert core.states(51) == ["placed"]


def test_what_the_script_refuses_makes_no_step_come_at_once(core, monkeypatch):
    core.submit(*range(8))
    owe(core, [20])
    owe(core, [30], pool=OTHER_POOL)
    core.later()
    monkeypatch.setattr(outbox_relay, "max_waiting", lambda lane_bytes: 8)
    assert rest(core.relay, most=3) > 0
    assert (core.states(20), core.states(30)) == (["accepted"], ["placed"])
    for _ in range(5):
        assert core.relay() > 0


def test_what_has_aged_into_the_next_class_counts_in_the_lane_that_it_came_from(core):
    core.pools.room.lane_bytes = 8 * 1_024
    core.submit(*range(6))
    owe(core, range(10, 30), priority="batch")
    core.later()
    rest(core.relay)
    assert placed(core, range(10, 30)) == [10, 11, 12, 13]


def test_a_step_is_bounded_by_bytes(core, monkeypatch):
    monkeypatch.setattr(outbox_relay, "STEP_BYTES", 20_000)
    owe(core, range(12), priority="batch", payload='{"v":1,"p":"' + "x" * 5_000 + '"}')
    core.later()
    core.relay()
    assert placed(core, range(12)) == [0, 1, 2]


def test_what_was_placed_between_two_reads_is_no_failure(core, monkeypatch):
    owe(core, range(3))
    core.later()
    sound = outbox_relay.due_dispatches

    def read(connection, job_ids):
        return [row for row in sound(connection, job_ids) if row.job_id != "job-000001"]

    monkeypatch.setattr(outbox_relay, "due_dispatches", read)
    before = core.failures("outbox")
    core.relay()
    assert core.states(0, 2) == ["placed"] * 2
    assert core.failures("outbox") == before


def test_an_outbox_row_without_a_job_holds_up_nobody(core):
    owe(core, range(3))
    row = {"job_id": "job-000000x", "dispatch": 1, "pool": POOL, "due_at": NOW, "created_at": NOW}
    core.store.write_alone(
        lambda connection: (
            connection.execute(dispatches.insert().values(**row, rank=1, lane=f"{POOL} default")) and None
        )
    ).result()
    core.later()
    rest(core.relay)
    assert core.states(*range(3)) == ["placed"] * 3
    assert [job_id for job_id, *_ in outbox(core.store)] == ["job-000000x"]


@pytest.mark.parametrize("size", [-1_024, -1, 2**31 - 1])
def test_a_size_that_is_wrong_holds_up_nobody(core, size):
    owe(core, range(3))
    owe(core, range(10, 13), pool=OTHER_POOL)
    core.sql(dispatches.update().where(dispatches.c.job_id == "job-000000").values(body_bytes=size))
    core.later()
    rest(core.relay)
    assert core.states(*range(3), *range(10, 13)) == ["placed"] * 6


def test_a_row_that_cannot_be_fetched_or_placed_holds_up_no_other(core):
    owe(core, range(6))
    if core.store.place.startswith("sqlite"):
        # Its columns hold whatever was written to them.
        for number, change in enumerate(
            (
                "jobs SET body = x'78'",
                "jobs SET options = x'ff'",
                "jobs SET weight = 'heavy'",
                "jobs SET body = CAST(x'ff' AS TEXT)",
                "dispatches SET body_bytes = 'abc', due_at = 'x', lane = x'ff00'",
            )
        ):
            core.sql(text(f"UPDATE {change} WHERE job_id = 'job-00000{number}'"))
    core.later()
    rest(core.relay)
    assert core.states(5) == ["placed"]
    core.sql(text("UPDATE jobs SET body = '{}', options = '{}', weight = 1"))


@pytest.mark.parametrize("stray", [{"rank": 1, "lane": " "}, {"rank": 7}, {"rank": -1}, {"lane": ""}])
def test_rows_that_stand_in_no_lane_get_into_that_of_their_job(core, stray):
    owe(core, range(3), priority="interactive")
    core.sql(dispatches.update().values(**stray, body_bytes=0))
    core.sql(dispatches.insert().values(job_id="gone", dispatch=1, pool=POOL, due_at=NOW, created_at=NOW))
    core.later()
    rest(core.relay)
    assert core.states(*range(3)) == ["placed"] * 3
    (kept,) = core.store.read(lambda connection: connection.execute(dispatches.select()).all())
    assert (kept.job_id, kept.rank, kept.lane) == ("gone", 2, "? ?")
