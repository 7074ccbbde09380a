"""No pool gets more jobs than it takes, whoever claims, and however many claim at once."""

import pytest
from sqlalchemy import select, text

from support.databases import (
    NOW,
    OTHER_POOL,
    POOL,
    all_held,
    fresh_sqlite,
    make_tenants,
    new_job,
    outbox,
    outcome,
    settle_each,
    state_of,
    write,
)
from tether.outcomes import OutcomeKind
from tether.store import Store
from tether.store.admissions import admit
from tether.store.capacity import share_name
from tether.store.holds import CAPACITY, SHARE, depths, move_counters, shares, sweep_holds
from tether.store.placements import NotPlaced, Placement, replace
from tether.store.schema import counters

BOUND = 4


@pytest.fixture(autouse=True)
def tenants(store):
    make_tenants(store, *(f"t{number}" for number in range(9)), "other", "urgent")


def admitted(store, *new_jobs):
    return [answer.state.value for answer in write(store, admit, *new_jobs)]


def held_in(store, pool=POOL):
    return all_held(store).get((CAPACITY, pool), 0)


def test_what_a_pool_has_no_room_for_is_accepted_and_parked(store):
    tenants = [f"t{number}" for number in range(6)]
    some = [new_job(number, bound=BOUND, tenant_id=tenant) for number, tenant in enumerate(tenants)]
    assert admitted(store, *some) == ["accepted"] * 4 + ["parked"] * 2
    assert held_in(store) == BOUND
    assert state_of(store, 5) == ("parked", 0)
    assert [job_id for job_id, *_ in outbox(store)] == [f"job-{number:06}" for number in range(4)]
    # The same again is the same jobs.
    assert admitted(store, *some) == ["accepted"] * 4 + ["parked"] * 2
    assert admitted(store, new_job(9, pool=OTHER_POOL, bound=BOUND)) == ["accepted"]


def test_a_tenant_leaves_room_for_others(store):
    many = [new_job(number, bound=10) for number in range(12)]
    assert admitted(store, *many).count("accepted") == 8
    assert admitted(store, new_job(50, bound=10, tenant_id="other")) == ["accepted"]
    assert store.read(shares, [share_name(POOL, "default"), share_name(POOL, "nobody")]) == {
        share_name(POOL, "default"): 8
    }


def test_a_class_fills_only_its_part(store):
    assert admitted(store, *[new_job(n, bound=3, tenant_id=f"t{n}") for n in range(4)]).count("accepted") == 3
    assert admitted(store, new_job(9, bound=4, tenant_id="urgent", priority="interactive")) == ["accepted"]


def test_a_waiting_job_stays_as_it_is_where_its_pool_has_no_room(store):
    admitted(store, *[new_job(number, bound=BOUND, tenant_id=f"t{number}") for number in range(5)])
    assert write(store, replace, Placement("job-000004", 0, POOL, NOW, bound=BOUND)) == [NotPlaced.NO_ROOM]
    assert state_of(store, 4) == ("parked", 0)
    settle_each(store, outcome(0))
    assert write(store, replace, Placement("job-000004", 0, POOL, NOW, bound=BOUND)) == [1]
    assert held_in(store) == BOUND


def test_a_job_that_waits_for_its_next_attempt_keeps_nobody_out(store):
    admitted(store, *[new_job(number, bound=BOUND, tenant_id=f"t{number}") for number in range(4)])
    settle_each(store, outcome(0, OutcomeKind.FAILED))
    assert state_of(store, 0) == ("waiting_retry", 1)
    assert admitted(store, new_job(8, bound=BOUND, tenant_id="t8")) == ["accepted"]
    assert write(store, replace, Placement("job-000000", 1, POOL, NOW, bound=BOUND)) == [NotPlaced.NO_ROOM]


def test_shares_that_are_used_up_do_not_pile_up(store):
    admitted(store, *[new_job(number, tenant_id=f"t{number}") for number in range(4)])
    settle_each(store, *[outcome(number) for number in range(3)])
    assert counted_shares(store) == {share_name(POOL, f"t{number}"): int(number == 3) for number in range(4)}
    assert store.write_alone(sweep_holds).result() == 0
    assert counted_shares(store) == {share_name(POOL, "t3"): 1}
    assert admitted(store, new_job(9, tenant_id="t0")) == ["accepted"]
    assert counted_shares(store) == {share_name(POOL, "t0"): 1, share_name(POOL, "t3"): 1}


def test_a_share_that_is_claimed_just_now_is_not_deleted(store, database_url):
    admitted(store, new_job(0, tenant_id="t0"), new_job(1, tenant_id="t1"))
    settle_each(store, outcome(0), outcome(1))
    name = share_name(POOL, "t0")

    def claim(connection):
        move_counters(connection, {(SHARE, name): 0})
        if database_url.startswith("postgresql"):
            with Store(database_url) as other:
                assert other.write_alone(sweep_holds).result(30) == 0

    store.write_alone(claim).result(60)
    if database_url.startswith("postgresql"):
        assert counted_shares(store) == {name: 0}


def test_shares_of_any_number_of_pools_and_tenants_are_read(store):
    admitted(store, *[new_job(number, tenant_id=f"t{number}") for number in range(4)])
    names = [share_name(POOL, f"t{number}") for number in range(70_000)]
    assert store.read(shares, names) == dict.fromkeys(names[:4], 1)


@pytest.mark.parametrize("change", ["name = CAST(x'ff' AS TEXT)", "name = x'ff'", "held = 'many'"])
def test_a_counter_that_cannot_be_read_costs_no_other(tmp_path, change):
    with Store(fresh_sqlite(tmp_path / "tether.db")) as opened:
        make_tenants(opened, "a")
        admitted(opened, new_job(0, tenant_id="a"), new_job(1, tenant_id="a", pool=OTHER_POOL))
        sql = text(f"UPDATE counters SET {change} WHERE name LIKE '{OTHER_POOL}%'")
        opened.write_alone(lambda connection: connection.execute(sql) and None).result()
        found = opened.read(depths)
        assert found.pop(POOL) == 1
        assert all(isinstance(held, int) for held in found.values())
        mine, others = share_name(POOL, "a"), share_name(OTHER_POOL, "a")
        assert opened.read(shares, [mine, others]).get(others, 0) == 0
        assert opened.read(shares, [mine, others])[mine] == 1


def counted_shares(store):
    query = select(counters.c.name, counters.c.held).where(counters.c.kind == SHARE)
    return store.read(lambda connection: {row.name: row.held for row in connection.execute(query)})
