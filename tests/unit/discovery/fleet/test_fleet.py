from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from support.presences import DIGEST, KEY, MODEL, OTHER_KEY, apply, presence
from tether.discovery.announcements.presence import ModelState, Order, Supported, WorkerState
from tether.discovery.fleet.fleet import (
    Fleet,
    apply_all,
    expire,
    is_suspect,
    judged,
    silent_in,
    unroutable,
    unroutable_up_to,
)
from tether.discovery.fleet.pool_views import pools
from tether.models.registry import pool_name

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
    assert (pool.slot_tokens_per_second, pool.warm) == (1.0, True)
    assert not pools(fleet, 15_000)


def test_workers_that_drain_or_draw_from_nowhere_make_no_pool():
    for state in (WorkerState.CORDONED, WorkerState.DRAINING):
        assert not pools(apply(Fleet(), presence(state=state), 0), 1)
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


def test_a_mark_from_elsewhere_is_lifted_by_something_newer_only():
    marked = unroutable_up_to(Fleet(), WORKER, Order(1, 3))
    assert not pools(apply(marked, presence(sequence=3), 0), 1)
    assert pools(apply(marked, presence(sequence=4), 0), 1)
    assert pools(apply(marked, presence(boot=2), 0), 1)


def test_a_mark_for_what_is_older_than_the_newest_announcement_changes_nothing():
    fleet = apply(Fleet(), presence(sequence=4), 0)
    assert unroutable_up_to(fleet, WORKER, Order(1, 3)) is fleet
    marked = unroutable_up_to(fleet, WORKER, Order(1, 4))
    assert unroutable_up_to(marked, WORKER, Order(1, 4)) is marked


def test_a_heartbeat_that_says_the_same_leaves_the_served_pools_the_same_object():
    fleet = apply(Fleet(), presence(), 0)
    assert dict(fleet.served) == {POOL: 1}
    assert apply(fleet, presence(sequence=2, free=1), 1).served is fleet.served
    assert apply(fleet, presence(sequence=2, model_state=ModelState.COLD), 1).served is not fleet.served
    assert not apply(fleet, presence(sequence=2, state=WorkerState.DRAINING), 1).served
    assert not expire(fleet, 15_000).served


OTHER_POOL = "cpu.local.other.elsewhere"
presences = st.builds(
    presence,
    st.sampled_from([KEY, OTHER_KEY]),
    boot=st.integers(1, 2),
    sequence=st.integers(1, 4),
    state=st.sampled_from(WorkerState),
    model_state=st.sampled_from(ModelState),
    pools=st.sampled_from([(), (POOL,), (POOL, POOL), (OTHER_POOL, POOL)]),
    gpu_class=st.sampled_from(["cpu", "h100"]),
)
news = st.tuples(presences, st.none() | st.integers(-1, 20_000))
marks = st.builds(Order, st.integers(1, 2), st.integers(1, 4))
silence = st.dictionaries(
    st.sampled_from([WORKER, presence(OTHER_KEY).worker_id]),
    st.frozensets(st.sampled_from([POOL, pool_name("h100", "local", MODEL)]), min_size=1),
)


def is_sound(fleet):
    counts = Counter(
        name
        for worker, member in fleet.members.items()
        if worker not in fleet.unroutable
        for name, _ in member.serves
        if name not in silent_in(member, fleet.silent)
    )
    assert dict(fleet.served) == counts
    assert all(member.expires_at >= fleet.next_expiry for member in fleet.members.values())
    return True


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(news, max_size=6), marks | st.none(), silence | st.none(), st.integers(0, 9_000)),
        max_size=5,
    )
)
def test_a_batch_is_worth_as_much_as_its_announcements_one_by_one(batches):
    at_once = one_by_one = Fleet()
    now = 0
    for batch, mark, silent, pause in batches:
        now += pause
        former = dict(at_once.members), dict(at_once.newest), dict(at_once.served)
        changed, counted = apply_all(at_once, batch, now)
        assert former == (dict(at_once.members), dict(at_once.newest), dict(at_once.served))
        accepted = []
        for position, (announcement, life_ms) in enumerate(batch):
            before = one_by_one
            one_by_one = apply(before, announcement, now, life_ms)
            if one_by_one is not before:
                accepted.append(position)
        assert list(counted) == accepted
        # When to look for ends again is a bound, and may differ.
        assert replace(changed, next_expiry=0) == replace(one_by_one, next_expiry=0)
        assert is_sound(one_by_one)
        if mark is not None:
            changed = unroutable_up_to(changed, WORKER, mark)
            one_by_one = unroutable_up_to(one_by_one, WORKER, mark)
        if silent is not None:
            changed = judged(changed, silent)
            one_by_one = judged(one_by_one, silent)
        assert is_sound(changed)
        at_once = expire(changed, now)
        one_by_one = expire(one_by_one, now)
        assert is_sound(at_once)
        assert all(member.expires_at > now for member in at_once.members.values())


def test_time_costs_nothing_while_no_life_ends():
    fleet = apply(apply(Fleet(), presence(), 0), presence(OTHER_KEY), 5_000)
    assert fleet.next_expiry == 15_000
    assert expire(fleet, 14_999) is fleet
    # A life that was extended: the next look is later, and nobody is gone.
    renewed = expire(apply(fleet, presence(sequence=2), 10_000), 15_000)
    assert len(renewed.members) == 2
    assert renewed.next_expiry == 20_000


def test_a_worker_that_names_a_pool_twice_counts_once_in_it():
    (pool,) = pools(apply(Fleet(), presence(pools=(POOL, POOL)), 0), 1)
    assert pool.workers == 1


def test_a_worker_counts_in_each_pool_that_it_draws_from():
    other = Supported("tiny", "2", "cd" * 32, ModelState.WARM)
    draws = pool_name("cpu", "local", other)
    both = presence(supported=(Supported("tiny", "1", DIGEST, ModelState.COLD), other), pools=(POOL, draws))
    found = {pool.name: (pool.version, pool.workers, pool.warm) for pool in pools(apply(Fleet(), both, 0), 1)}
    assert found == {POOL: ("1", 1, False), draws: ("2", 1, True)}
