"""The store under many threads and several writers at once."""

import threading
from collections import Counter

import pytest
from sqlalchemy import text

from support.databases import (
    NOW,
    OTHER_POOL,
    POOL,
    SETTLE,
    accept,
    all_held,
    check,
    give_quota,
    make_tenants,
    new_job,
    outcome,
)
from support.waiting import eventually, join
from tether.jobs import JobState
from tether.outcomes import OutcomeKind
from tether.store import Store
from tether.store.admissions import admit
from tether.store.holds import depths, move_counters
from tether.store.placements import (
    Placement,
    replace,
)
from tether.store.settlements import Settlement


def together(count, function):
    """Run ``function(number)`` in so many threads at once; answers what they answered."""
    barrier = threading.Barrier(count)
    answers, errors = [None] * count, []

    def run(number):
        try:
            barrier.wait(60)
            answers[number] = function(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,), name=f"test-{number}") for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        join(thread)
    assert errors == []
    return answers


def test_eight_threads_with_one_key_make_one_job(store):
    def submit(number):
        return store.write(admit, new_job(1, job_id=f"job-by-{number}")).result(30)

    answers = together(8, submit)
    assert sorted(answer.kind for answer in answers) == ["accepted"] + ["known"] * 7
    assert len({answer.job_id for answer in answers}) == 1


def test_a_quota_is_never_overrun_by_sixteen_threads(store):
    give_quota(store, 10)

    def submit(number):
        jobs = [new_job(number * 10 + i, tenant_id="small") for i in range(5)]
        return [store.write(admit, each).result(30).kind for each in jobs]

    kinds = [kind for answer in together(16, submit) for kind in answer]
    assert kinds.count("accepted") == 10
    assert kinds.count("over_quota") == 70
    assert all_held(store)["quota", "small"] == 10


@pytest.fixture
def stores(store, database_url):
    """Four stores in one database, each with a writer of its own, as in four processes."""
    others = [Store(database_url).open() for _ in range(3)]
    yield [store, *others]
    for other in others:
        other.close()


def test_several_writers_keep_quota_and_keys(stores):
    give_quota(stores[0], 10)

    def submit(number):
        mine = stores[number % 4]
        batch = [new_job(i, tenant_id="small", job_id=f"by-{number}-{i}") for i in range(15)]
        return [future.result(60) for future in mine.write_many(admit, batch[::-1] if number % 2 else batch)]

    answers = [answer for part in together(8, submit) for answer in part]
    accepted = [answer.job_id for answer in answers if answer.kind == "accepted"]
    assert len(accepted) == 10
    assert {answer.job_id for answer in answers if answer.kind == "known"} <= set(accepted)
    assert {answer.kind for answer in answers} <= {"accepted", "known", "over_quota"}
    assert all_held(stores[0])["quota", "small"] == 10


@pytest.fixture
def deadlocks_are_seen(monkeypatch):
    """A transaction that is ended for a deadlock would be begun again: here it fails."""
    monkeypatch.setattr("tether.store.transactions._ATTEMPTS", 1)


def test_writers_with_the_same_keys_and_pools_in_other_orders_do_not_wait_for_each_other(
    stores, deadlocks_are_seen
):
    def work(number):
        mine = stores[number]
        for round_number in range(25):
            batch = [
                new_job(
                    round_number * 100 + i,
                    job_id=f"by-{number}-{round_number}-{i}",
                    pool=f"pool-{(i + number) % 8}",
                )
                for i in range(60)
            ]
            futures = mine.write_many(admit, batch[::-1] if number % 2 else batch)
            assert {future.result(60).kind for future in futures} <= {"accepted", "known"}

    together(4, work)
    assert all_held(stores[0])["quota", "default"] == 25 * 60


def test_many_writers_over_the_same_pools_do_not_lock_each_other_out(stores, deadlocks_are_seen):
    pools = [POOL, OTHER_POOL, "gpu.cpu.local.third-00000000"]

    def work(number):
        mine = stores[number % 4]
        own = [number * 100 + i for i in range(20)]
        batch = [new_job(i, pool=pools[i % 3]) for i in own]
        for future in mine.write_many(admit, batch):
            assert future.result(60).kind == "accepted"
        # Everybody settles everybody's jobs, in an order of their own, while others admit.
        everyone = [n * 100 + i for n in range(8) for i in range(20)]
        order = everyone if number % 2 else everyone[::-1]
        futures = mine.write_many(SETTLE, [Settlement(outcome(i, OutcomeKind.FAILED), NOW) for i in order])
        futures += mine.write_many(SETTLE, [Settlement(outcome(i), NOW) for i in own])
        placements = [Placement(f"job-{i:06}", 1, pools[(i + 1) % 3], NOW) for i in order]
        futures += mine.write_many(replace, placements)
        for future in futures:
            future.result(60)

    together(8, work)
    check(stores[0])


@pytest.mark.parametrize("bound", [1, 7])
def test_no_pool_gets_more_than_it_takes_however_many_gateways_claim_at_once(
    stores, deadlocks_are_seen, bound
):
    make_tenants(stores[0], *(f"tenant-{number}" for number in range(5)))
    pools, most, is_over = [POOL, OTHER_POOL], Counter(), threading.Event()

    def watch():
        while not is_over.is_set():
            for pool, held in stores[0].read(depths).items():
                most[pool] = max(most[pool], held)

    def work(number):
        mine = stores[number % 4]
        own = range(number * 100, number * 100 + 12)
        parked = []
        futures = mine.write_many(
            admit, [new_job(i, pool=pools[i % 2], bound=bound, tenant_id=f"tenant-{i % 5}") for i in own]
        )
        ended = 0
        for i, future in zip(own, futures, strict=True):
            if future.result(60).state is JobState.PARKED:
                parked.append(i)
            else:
                mine.write(SETTLE, Settlement(outcome(i), NOW)).result(60)
                ended += 1
        while parked:
            # What others end makes room: each of them comes in at last.
            asked = [Placement(f"job-{i:06}", 0, pools[(i + 1) % 2], NOW, bound=bound) for i in parked]
            placed = [
                i
                for i, future in zip(parked, mine.write_many(replace, asked), strict=True)
                if future.result(60) == 1
            ]
            for i in placed:
                mine.write(SETTLE, Settlement(outcome(i), NOW)).result(60)
                ended += 1
            parked = [i for i in parked if i not in placed]
        return ended

    watcher = threading.Thread(target=watch, name="test-watcher")
    watcher.start()
    try:
        assert together(8, work) == [12] * 8
    finally:
        is_over.set()
        join(watcher)
    assert 0 < max(most.values()) <= bound
    assert all_held(stores[0]) == {}
    check(stores[0])


class Paused:
    """An operation that, having done its work, waits inside of its transaction until it is let go on."""

    def __init__(self, function):
        self._function = function
        self.has_begun = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, connection, *arguments):
        answer = self._function(connection, *arguments)
        self.has_begun.set()
        assert self.go_on.wait(60)
        return answer


def wait_until_blocked(store):
    """Until a transaction in Postgres waits for a lock that another one has."""
    blocked = text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    eventually(lambda: store.read(lambda connection: connection.scalar(blocked)), 60, "a transaction waits")


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_an_outcome_that_two_writers_settle_at_once_is_settled_once(stores, deadlocks_are_seen):
    first, second, watcher, _ = stores
    accept(first, new_job(1))
    pause = Paused(SETTLE)
    settling = first.write(pause, Settlement(outcome(1, OutcomeKind.FAILED), NOW))
    assert pause.has_begun.wait(60)
    again = second.write(SETTLE, Settlement(outcome(1, OutcomeKind.FAILED), NOW))
    wait_until_blocked(watcher)
    pause.go_on.set()
    assert settling.result(30).kind == "settled"
    assert again.result(30).kind == "repeated"


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_counters_are_locked_in_one_order_whatever_order_they_are_given_in(stores, deadlocks_are_seen):
    first, second, watcher, _ = stores
    low, high = ("capacity", "a"), ("capacity", "b")
    pause = Paused(lambda connection: move_counters(connection, {low: 0}))

    def hold_low_then_move_high(connection):
        pause(connection)
        move_counters(connection, {high: 0})

    holding = first.write_alone(hold_low_then_move_high)
    assert pause.has_begun.wait(60)
    moving = second.write_alone(move_counters, {high: 0, low: 0})
    wait_until_blocked(watcher)
    pause.go_on.set()
    holding.result(30)
    assert moving.result(30) == {low: 0, high: 0}
