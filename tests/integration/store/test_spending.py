"""Quotas of a day and a month are never overrun, however many submit at once; nothing is held for ever."""

import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, text

from support.databases import (
    NOW,
    SETTLE,
    check,
    give_quota,
    make_tenants,
    new_job,
    outcome,
    settle_each,
    write,
)
from support.waiting import join
from tether.outcomes import OutcomeKind
from tether.spending import DAY_MS, NOTHING, Amount, SpendingQuotas, windows_at
from tether.store import Store
from tether.store.admissions import admit
from tether.store.end_requests import Conclusion, Request, conclude, request
from tether.store.settlements import Settlement
from tether.store.spending import spending_in
from tether.store.spending_sweeps import prune_spending, sweep_spending

HELD = Amount(1, 7 + 16)
"""By a job of the tests: a prompt of 7 tokens, and 16 at most for the answer."""

TRUTH = Amount(1, 5 + 2)
DAY, MONTH = windows_at("t", NOW)


@pytest.fixture(autouse=True)
def tenants(store):
    make_tenants(store, "t", "other")


def job(number, **quotas):
    return new_job(number, tenant_id="t", quotas=SpendingQuotas(**quotas))


def kinds(store, *new_jobs):
    return [answer.kind.value for answer in write(store, admit, *new_jobs)]


def in_windows(store, tenant="t", now=NOW):
    found = store.read(spending_in, windows_at(tenant, now))
    return [tuple(state) for state in found.values()]


def test_an_estimate_is_held_and_the_truth_settled(store):
    assert kinds(store, job(1, tokens_per_day=100)) == ["accepted"]
    assert in_windows(store) == [(HELD, NOTHING)] * 2
    check(store)
    settle_each(store, outcome(1))
    assert in_windows(store) == [(NOTHING, TRUTH)] * 2


@pytest.mark.parametrize(
    ("quotas", "unit", "left"),
    [
        ({"requests_per_day": 2}, "requests", 0),
        ({"requests_per_month": 2}, "requests", 0),
        ({"tokens_per_day": 2 * HELD.tokens + 5}, "tokens", 5),
        ({"tokens_per_month": 3 * HELD.tokens - 1}, "tokens", HELD.tokens - 1),
    ],
)
def test_what_has_no_room_is_refused_and_leaves_nothing(store, quotas, unit, left):
    assert kinds(store, *(job(number, **quotas) for number in range(2))) == ["accepted"] * 2
    (answer,) = write(store, admit, job(3, **quotas))
    assert (answer.kind, answer.state) == ("overspent", None)
    assert (answer.overspent.unit, answer.overspent.left) == (unit, left)
    assert kinds(store, new_job(4, tenant_id="other"), job(5)) == ["accepted"] * 2
    check(store)
    # Once one has ended with less than it held, there may be room again; the same keys are free.
    settle_each(store, outcome(0, OutcomeKind.CANCELLED))
    assert kinds(store, job(3, **quotas)) == ["accepted"]


def test_a_refused_one_costs_no_neighbour_in_its_batch(store):
    batch = [job(1, requests_per_day=1), job(2, requests_per_day=1), new_job(3, tenant_id="other")]
    assert kinds(store, *batch, batch[1], batch[0]) == [
        "accepted",
        "overspent",
        "accepted",
        "overspent",
        "known",
    ]
    # A job that is known is never refused, nor held for twice.
    assert kinds(store, batch[0]) == ["known"]
    assert in_windows(store) == [(HELD, NOTHING)] * 2


def test_who_has_too_many_open_jobs_holds_nothing_for_those_refused(store):
    give_quota(store, 1)
    both = [
        new_job(number, tenant_id="small", quotas=SpendingQuotas(requests_per_day=5)) for number in range(2)
    ]
    assert kinds(store, *both) == ["accepted", "over_quota"]
    assert in_windows(store, "small") == [(HELD, NOTHING)] * 2


@pytest.mark.parametrize("kind", [OutcomeKind.POISONED, OutcomeKind.CANCELLED, OutcomeKind.EXPIRED])
def test_nothing_is_spent_by_what_fails_or_never_began(store, kind):
    kinds(store, job(1, tokens_per_day=100))
    settle_each(store, outcome(1, kind))
    assert in_windows(store) == [(NOTHING, NOTHING)] * 2


def test_a_hold_lasts_while_its_job_is_tried_again(store):
    kinds(store, job(1, tokens_per_day=100))
    settle_each(store, outcome(1, OutcomeKind.FAILED))
    assert in_windows(store) == [(HELD, NOTHING)] * 2


def test_what_is_cancelled_spends_what_was_made(store):
    kinds(store, job(1, tokens_per_day=100), job(2, tokens_per_day=100))
    settle_each(store, outcome(1, OutcomeKind.CANCELLED, offset=2, input_tokens=5))
    assert in_windows(store) == [(HELD, TRUTH)] * 2
    write(store, request, Request(None, "job-000002", "cancelled", NOW))
    assert write(store, conclude, Conclusion("job-000002", 1, "cancelled", NOW)) == [True]
    assert in_windows(store) == [(NOTHING, TRUTH)] * 2


def test_a_job_counts_in_the_windows_in_which_it_was_accepted(store):
    kinds(store, job(1, requests_per_day=1))
    assert kinds(store, job(2, requests_per_day=1)) == ["overspent"]
    tomorrow = new_job(3, tenant_id="t", quotas=SpendingQuotas(requests_per_day=1), now_ms=NOW + DAY_MS)
    assert kinds(store, tomorrow) == ["accepted"]
    settle_each(store, outcome(1), now_ms=NOW + DAY_MS)
    assert in_windows(store)[0] == (NOTHING, TRUTH)
    assert in_windows(store, now=NOW + DAY_MS)[0] == (HELD, NOTHING)


def test_a_sweep_puts_right_what_something_else_changed(store):
    kinds(store, *(job(number, requests_per_day=9) for number in range(3)))
    broken = (
        "UPDATE spending SET held_tokens = 7, held_requests = 70",
        "UPDATE jobs SET state = 'succeeded', finished_at = 1 WHERE job_id = 'job-000000'",
        "DELETE FROM spending_holds WHERE job_id = 'job-000002'",
    )
    for statement in broken:
        store.write_alone(
            lambda connection, statement=statement: connection.execute(text(statement))
        ).result()
    assert store.write_alone(sweep_spending).result() == 3
    assert store.write_alone(sweep_spending).result() == 0
    assert in_windows(store) == [(HELD, NOTHING)] * 2
    undo = "UPDATE jobs SET state = 'accepted', finished_at = NULL WHERE job_id = 'job-000000'"
    store.write_alone(lambda connection: connection.execute(text(undo))).result()


def test_old_windows_go_once_nothing_is_held_in_them(store):
    kinds(store, job(1, requests_per_day=9), job(2, requests_per_day=9))
    settle_each(store, outcome(1))
    later = NOW + 40 * DAY_MS
    assert store.write_alone(prune_spending, later, 10).result() == 0
    settle_each(store, outcome(2))
    assert store.write_alone(prune_spending, NOW, 10).result() == 0
    assert store.write_alone(prune_spending, later, 1).result() == 1
    assert store.write_alone(prune_spending, later, 10).result() == 1
    assert in_windows(store) == [(NOTHING, NOTHING)] * 2


@pytest.fixture
def stores(store, database_url, monkeypatch):
    """Three stores in one database, each with a writer of its own, as in three gateways. One that ends for a
    deadlock would begin again: here it fails."""
    monkeypatch.setattr("tether.store.transactions._ATTEMPTS", 1)
    with Store(database_url) as second, Store(database_url) as third:
        yield [store, second, third]


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    plan=st.lists(
        st.lists(st.sampled_from(["succeeded", "cancelled", "poisoned", "open"]), min_size=4, max_size=12),
        min_size=3,
        max_size=3,
    ),
    limit=st.integers(1, 20),
    case=st.uuids(),
)
def test_concurrent_requests_never_overrun_a_quota_and_leave_no_phantom(stores, plan, limit, case):
    tenant = f"t-{case.hex[:20]}"
    make_tenants(stores[0], tenant)
    day, month = windows_at(tenant, NOW)
    # In tokens, so that room is freed where an answer is shorter than what was held for it.
    quotas = SpendingQuotas(tokens_per_day=limit * HELD.tokens, requests_per_month=10**6)
    barrier, errors, ends = threading.Barrier(3), [], []

    def work(number):
        mine = stores[number]
        try:
            barrier.wait(60)
            for index, end in enumerate(plan[number]):
                name = f"{case.hex[:12]}-{number}-{index}"
                wanted = new_job(
                    tenant_id=tenant, job_id=name, correlation_id=name, digest=name, quotas=quotas
                )
                (answer,) = write(mine, admit, wanted)
                state = mine.read(spending_in, [day])[day]
                assert sum((state.held.tokens, state.spent.tokens)) <= limit * HELD.tokens
                if answer.kind == "accepted" and end != "open":
                    ended = outcome(kind=OutcomeKind(end))
                    ended = type(ended)(**{**vars(ended), "job_id": name})
                    write(mine, SETTLE, Settlement(ended, NOW), Settlement(ended, NOW))
                ends.append((answer.kind.value, end))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,), name=f"spends-{number}") for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        join(thread)
    assert errors == []
    accepted = [end for kind, end in ends if kind == "accepted"]
    state = stores[0].read(spending_in, [day, month])
    still_open, succeeded = accepted.count("open"), accepted.count("succeeded")
    assert state[day] == state[month]
    assert state[day].held == Amount(still_open, still_open * HELD.tokens)
    assert state[day].spent == Amount(succeeded, succeeded * TRUTH.tokens)
    assert accepted or limit == 0
    check(stores[0])


def test_quotas_cost_two_statements_a_commit(store):
    give_quota(store, 10, "t")
    kinds(store, new_job(90, tenant_id="other"), job(91, requests_per_day=99))
    found = []
    event.listen(store._writers, "before_cursor_execute", lambda *call: found.append(call[2]))
    kinds(store, new_job(1, tenant_id="other"))
    without = len(found)
    kinds(store, job(2, requests_per_day=99), job(3, tokens_per_month=10**6))
    assert len(found) - without <= without + 2
