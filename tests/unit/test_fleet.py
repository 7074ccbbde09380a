from hypothesis import given, settings
from hypothesis import strategies as st

from support.presences import KEY, MODEL, OTHER_KEY, presence
from tether.discovery.fleet import Fleet, apply, expire, is_suspect, pools, unroutable
from tether.discovery.wire import ModelState, Order, WorkerState
from tether.scheduling.models import pool_name

POOL = pool_name("cpu", "local", MODEL)
WORKER = presence().worker_id


def live(fleet, now):
    return set(expire(fleet, now).members)


def test_a_worker_lives_for_three_intervals_after_its_last_announcement():
    fleet = apply(Fleet(), presence(), 0)
    assert live(fleet, 14_999) == {WORKER}
    assert live(fleet, 15_000) == set()
    fleet = apply(fleet, presence(sequence=2), 5_000)
    assert live(fleet, 19_999) == {WORKER}
    assert fleet.members[WORKER].first_seen == 0


def test_a_worker_is_suspect_after_one_and_a_half_intervals():
    fleet = apply(Fleet(), presence(), 0)
    assert not is_suspect(fleet, fleet.members[WORKER], 7_499)
    assert is_suspect(fleet, fleet.members[WORKER], 7_500)


def test_an_announcement_that_was_read_late_has_only_the_rest_of_its_life():
    fleet = apply(Fleet(), presence(), 100, life_ms=5_000)
    assert live(fleet, 5_099) == {WORKER}
    assert live(fleet, 5_100) == set()
    assert is_suspect(fleet, fleet.members[WORKER], 100)
    assert not apply(Fleet(), presence(), 100, life_ms=0).members


def test_a_goodbye_ends_a_life_at_once_and_for_good():
    fleet = apply(apply(Fleet(), presence(), 0), presence(sequence=9, state=WorkerState.STOPPED), 1)
    assert not fleet.members
    assert apply(fleet, presence(sequence=8), 2) is fleet
    assert live(apply(fleet, presence(boot=2), 3), 3) == {WORKER}


orders = st.builds(Order, st.integers(1, 3), st.integers(1, 4))
heard = st.tuples(orders, st.booleans(), st.integers(0, 6_000))


@settings(max_examples=200, deadline=None)
@given(st.lists(heard, max_size=20))
def test_a_replayed_or_reordered_announcement_never_extends_a_life(announcements):
    fleet, now, newest, ends = Fleet(), 0, Order(0, 0), 0
    for order, stopped, pause in announcements:
        now += pause
        state = WorkerState.STOPPED if stopped else WorkerState.SERVING
        fleet = apply(fleet, presence(boot=order.boot_counter, sequence=order.sequence, state=state), now)
        if order > newest:
            newest, ends = order, 0 if stopped else now + 15_000
        assert live(fleet, now) == ({WORKER} if ends > now else set())
        assert live(fleet, ends) == set()


def test_a_pool_adds_up_the_workers_that_draw_from_it():
    fleet = apply(Fleet(), presence(queue_depth=2, latency_hops=3, model_state=ModelState.COLD), 0)
    other = presence(OTHER_KEY, slots=2, free=1, queue_depth=1, latency_hops=1, tokens_per_second=2.0)
    (pool,) = pools(apply(fleet, other, 7_499), 7_500)
    assert (pool.name, pool.model, pool.version, pool.digest) == (POOL, "tiny", "1", MODEL.digest)
    assert (pool.workers, pool.suspects, pool.sure) == (2, 1, 1)
    assert (pool.slots, pool.free, pool.queue_depth, pool.latency_hops) == (10, 6, 3, 1)
    assert (pool.tokens_per_second, pool.warm) == (42.0, True)
    assert not pools(fleet, 15_000)


def test_workers_that_drain_or_draw_from_nowhere_make_no_pool():
    assert not pools(apply(Fleet(), presence(state=WorkerState.DRAINING), 0), 1)
    assert not pools(apply(Fleet(), presence(pools=()), 0), 1)
    assert not pools(apply(Fleet(), presence(pools=("gpu.h100.elsewhere.x",)), 0), 1)


def test_a_worker_that_lost_an_attempt_is_unroutable_until_it_is_heard_of_again():
    fleet = unroutable(apply(Fleet(), presence(sequence=3), 0), f"{WORKER}.1")
    assert live(fleet, 1) == {WORKER}
    assert not pools(fleet, 1)
    assert not pools(apply(fleet, presence(sequence=3), 1), 1)
    assert pools(apply(fleet, presence(sequence=4), 1), 1)


def test_a_new_process_is_not_unroutable_for_what_its_forerunner_lost():
    fleet = apply(Fleet(), presence(KEY, boot=2), 0)
    assert unroutable(fleet, f"{WORKER}.1") is fleet
    assert unroutable(fleet, "nobody.1") is fleet
