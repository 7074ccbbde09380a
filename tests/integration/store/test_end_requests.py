"""Requests to end a job, kept on its row until it has ended."""

from support.databases import (
    NOW,
    POOL,
    accept,
    all_held,
    due,
    new_job,
    outbox,
    outcome,
    settle_each,
    state_of,
    write,
)
from tether.jobs import JobState
from tether.store.admissions import SUBMITTER_GRACE_MS
from tether.store.end_requests import (
    Conclusion,
    Request,
    conclude,
    overdue,
    request,
    requested,
    requested_rows,
)
from tether.store.queries import job


def test_a_request_is_kept_and_the_first_one_counts(store):
    accept(store, new_job(1))
    rows = write(
        store,
        request,
        Request("default", "job-000001", "cancelled", NOW + 1),
        Request(None, "job-000001", "expired", NOW + 2),
        Request("another", "job-000001", "cancelled", NOW),
        Request(None, "nobody", "cancelled", NOW),
    )
    assert [row and row.requested for row in rows] == ["cancelled", "cancelled", None, None]
    assert state_of(store, 1) == ("accepted", 1)
    assert store.read(requested, NOW + 1, 10) == []
    [found] = store.read(requested_rows, store.read(requested, NOW + 2, 10))
    assert (found.job_id, found.requested, found.pool) == ("job-000001", JobState.CANCELLED, POOL)
    assert due(store, NOW + SUBMITTER_GRACE_MS)[0].requested is JobState.CANCELLED


def test_a_final_job_takes_no_request(store):
    accept(store, new_job(1))
    settle_each(store, outcome(1))
    [row] = write(store, request, Request(None, "job-000001", "cancelled", NOW))
    assert (row.state, row.requested) == (JobState.SUCCEEDED, None)


def test_a_job_is_concluded_only_at_its_dispatch_and_with_a_request(store):
    accept(store, new_job(1))
    right = Conclusion("job-000001", 1, "cancelled", NOW + 3)
    assert write(store, conclude, right) == [False]
    assert None not in write(store, request, Request(None, "job-000001", "cancelled", NOW))
    assert write(store, conclude, right._replace(dispatch=2)) == [False]
    assert write(store, conclude, right, right) == [True, False]
    row = store.read(job, "job-000001")
    assert (row.state, row.finished_at) == (JobState.CANCELLED, NOW + 3)
    assert all_held(store) == {}
    assert outbox(store) == []
    assert store.read(requested, NOW + 99, 10) == []


def test_overdue_jobs_are_found_until_they_are_final(store):
    accept(store, new_job(1, deadline=NOW + 5), new_job(2), new_job(3, deadline=NOW + 9))
    assert store.read(overdue, NOW + 4, 10) == []
    assert store.read(overdue, NOW + 5, 10) == ["job-000001"]
    settle_each(store, outcome(1))
    assert store.read(overdue, NOW + 9, 10) == ["job-000003"]
