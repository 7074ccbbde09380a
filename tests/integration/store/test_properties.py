"""Whatever is done to jobs in whatever order, holds, counters, outbox and states go together."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from support.databases import NOW, OTHER_POOL, POOL, SETTLE, check, give_quota, new_job, outcome, write
from tether.jobs import NEXT, JobState, Priority
from tether.outcomes import OutcomeKind
from tether.spending import SpendingQuotas
from tether.store.admissions import admit
from tether.store.end_requests import Conclusion, Request, conclude, request
from tether.store.holds import depths
from tether.store.outbox import RANKS
from tether.store.placements import (
    PlacedDispatch,
    Placement,
    raise_dispatches,
    record_placed,
    replace,
    states,
)
from tether.store.priorities import PriorityChange, change_priorities
from tether.store.schema import dispatches, jobs, metadata
from tether.store.settlements import Settlement
from tether.store.waiting_jobs import Postponement, postpone

JOBS = 4
BOUND = 3
"""Jobs that a pool takes."""

QUOTAS = SpendingQuotas(requests_per_day=3, tokens_per_month=60)

numbers = st.integers(0, JOBS - 1)
dispatch_numbers = st.integers(0, 3)
pools = st.sampled_from([POOL, OTHER_POOL, None])
kinds = st.sampled_from(list(OutcomeKind))
ends = st.sampled_from(["cancelled", "expired"])
steps = st.one_of(
    st.tuples(st.just("admit"), numbers, pools),
    st.tuples(st.just("placed"), numbers, dispatch_numbers, st.sampled_from(Priority)),
    st.tuples(st.just("prioritise"), numbers, st.sampled_from(Priority)),
    st.tuples(st.just("settle"), numbers, dispatch_numbers, kinds, st.integers(0, 2)),
    st.tuples(st.just("replace"), numbers, dispatch_numbers, st.sampled_from([POOL, OTHER_POOL])),
    st.tuples(st.just("postpone"), numbers, dispatch_numbers),
    st.tuples(st.just("request"), numbers, ends),
    st.tuples(st.just("conclude"), numbers, dispatch_numbers, ends),
    st.tuples(st.just("raise"), numbers),
)


def name(number):
    return f"job-{number:06}"


def run(store, step):
    match step:
        case "admit", number, pool:
            job = new_job(number, tenant_id="small", pool=pool, bound=BOUND, quotas=QUOTAS)
            write(store, admit, job, job)
        case "placed", number, dispatch, priority:
            write(store, record_placed, PlacedDispatch(name(number), dispatch, priority))
        case "prioritise", number, priority:
            change = PriorityChange("small", name(number), priority, NOW)
            write(store, change_priorities, change, change._replace(tenant_id="default", priority="batch"))
        case "settle", number, dispatch, kind, attempt:
            ended = outcome(number, kind, dispatch=dispatch, attempt=attempt)
            write(store, SETTLE, Settlement(ended, NOW), Settlement(ended, NOW))
        case "replace", number, dispatch, pool:
            write(store, replace, Placement(name(number), dispatch, pool, NOW, bound=BOUND))
        case "postpone", number, dispatch:
            write(store, postpone, Postponement(name(number), dispatch, NOW + 9, NOW))
        case "request", number, end:
            write(store, request, Request(None, name(number), end, NOW))
        case "conclude", number, dispatch, end:
            write(store, conclude, Conclusion(name(number), dispatch, end, NOW))
        case "raise", number:
            store.write_alone(raise_dispatches, [name(number)], NOW).result(30)


# In Redis a job runs without the database hearing of it. A hand-over may be settled before it is recorded.
REACHABLE = {state: set(following) for state, following in NEXT.items()}
for state in (JobState.ACCEPTED, JobState.PLACED):
    REACHABLE[state] |= NEXT[JobState.RUNNING] | NEXT[JobState.PLACED] | {JobState.PARKED}
for state in (JobState.PARKED, JobState.WAITING_RETRY):
    # A waiting job goes to Redis by way of an outbox row; a success of its last hand-over still counts.
    REACHABLE[state] |= {JobState.ACCEPTED, JobState.SUCCEEDED}


def try_all(store, done):
    def empty(connection):
        for table in reversed(metadata.sorted_tables):
            if table.name != "tenants":
                connection.execute(table.delete())

    store.write_alone(empty).result(30)
    give_quota(store, JOBS - 1)
    before = {}
    for step in done:
        run(store, step)
        after = store.read(states, [name(number) for number in range(JOBS)])
        assert sum(not state.is_final for state, _ in after.values()) < JOBS
        assert max(store.read(depths).values(), default=0) <= BOUND
        for job_id, (state, dispatch) in after.items():
            former, former_dispatch = before.get(job_id, (state, dispatch))
            assert dispatch >= former_dispatch
            assert state is former or state in REACHABLE[former], (step, former, state)
        before = after
    check(store)
    store.read(check_ranks)


def check_ranks(connection):
    """What is owed stands in the lanes of its job's priority."""
    owed = select(jobs.c.priority, dispatches.c.rank).join(dispatches, dispatches.c.job_id == jobs.c.job_id)
    for row in connection.execute(owed):
        assert row.rank == RANKS[Priority(row.priority)]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, min_size=5, max_size=40))
def test_holds_counters_outbox_and_states_go_together_in_sqlite(store, done):
    try_all(store, done)


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, min_size=5, max_size=25))
def test_holds_counters_outbox_and_states_go_together_in_postgres(store, done):
    try_all(store, done)
