"""Admission: each job for itself, with its holds and its outbox row."""

import pytest
from sqlalchemy import select

from support.databases import (
    NOW,
    OTHER_POOL,
    POOL,
    accept,
    all_held,
    due,
    give_quota,
    new_job,
    outbox,
    outcome,
    settle_each,
    waiting_at,
    write,
)
from tether.errors import StoreError
from tether.jobs import JobState, Priority
from tether.store.admissions import SUBMITTER_GRACE_MS, AdmissionKind, admit
from tether.store.queries import job
from tether.store.schema import jobs


def test_an_admitted_job_has_its_holds_and_its_outbox_row(store):
    [admission] = write(store, admit, new_job(1, labels={"team": "a"}, deadline=NOW + 9))
    assert admission.kind is AdmissionKind.ACCEPTED
    assert (admission.job_id, admission.state, admission.dispatch) == ("job-000001", JobState.ACCEPTED, 1)
    assert (admission.pool, admission.depth) == (POOL, 1)
    assert outbox(store) == [("job-000001", 1, POOL, NOW + SUBMITTER_GRACE_MS)]
    assert all_held(store) == {("quota", "default"): 1, ("capacity", POOL): 1}
    row = store.read(job, "job-000001")
    assert row.labels == {"team": "a"}
    assert (row.priority, row.cost, row.deadline) == (Priority.STANDARD, 7, NOW + 9)
    assert store.read(lambda c: c.scalar(select(jobs.c.body).where(jobs.c.job_id == row.job_id))) == '{"v":1}'
    assert (row.created_at, row.finished_at, row.error, row.requested) == (NOW, None, None, None)


def test_a_job_that_no_pool_can_serve_is_parked_and_holds_no_capacity(store):
    [admission] = write(store, admit, new_job(1, pool=None, not_before=NOW + 50))
    assert (admission.state, admission.dispatch, admission.pool) == (JobState.PARKED, 0, None)
    assert outbox(store) == []
    assert all_held(store) == {("quota", "default"): 1}
    assert waiting_at(store, NOW + 49) == []
    assert [each.job_id for each in waiting_at(store, NOW + 50)] == ["job-000001"]


def test_a_delayed_job_is_due_when_it_may_run(store):
    accept(store, new_job(1, not_before=NOW + 50))
    assert due(store, NOW + 49) == []
    assert [each.job_id for each in due(store, NOW + 50)] == ["job-000001"]


def test_the_same_key_is_the_same_job_and_another_request_under_it_is_a_conflict(store):
    accept(store, new_job(1))
    again = new_job(1, job_id="job-other")
    other = new_job(1, job_id="job-third", digest="another")
    known, conflict = write(store, admit, again, other)
    assert (known.kind, known.job_id, known.dispatch) == (AdmissionKind.KNOWN, "job-000001", 1)
    assert (conflict.kind, conflict.job_id) == (AdmissionKind.CONFLICT, "job-000001")
    assert all_held(store) == {("quota", "default"): 1, ("capacity", POOL): 1}
    # Even the very same, with its job id.
    [known] = write(store, admit, new_job(1))
    assert known.kind is AdmissionKind.KNOWN


def test_a_job_that_ended_still_answers_for_its_key(store):
    accept(store, new_job(1))
    settle_each(store, outcome(1))
    [known] = write(store, admit, new_job(1, job_id="job-other"))
    assert (known.kind, known.state) == (AdmissionKind.KNOWN, JobState.SUCCEEDED)


def test_of_two_with_one_key_in_one_batch_the_first_counts(store):
    first = new_job(1)
    batch = [first, first, new_job(1, job_id="b"), new_job(1, job_id="c", digest="another"), new_job(2)]
    kinds = [(each.kind, each.job_id, each.depth) for each in write(store, admit, *batch)]
    assert kinds == [
        ("accepted", "job-000001", 1),
        ("known", "job-000001", 0),
        ("known", "job-000001", 0),
        ("conflict", "job-000001", 0),
        ("accepted", "job-000002", 2),
    ]


def test_the_same_correlation_id_with_another_retry_token_is_another_job(store):
    [first, second] = write(
        store, admit, new_job(1), new_job(2, correlation_id="correlation-1", retry_token="second")
    )
    assert first.kind is second.kind is AdmissionKind.ACCEPTED


def test_a_job_over_its_tenants_quota_is_refused_and_the_others_are_not(store):
    give_quota(store, 2)
    batch = [new_job(i, tenant_id="small") for i in range(4)] + [new_job(9)]
    kinds = [each.kind for each in write(store, admit, *batch)]
    assert kinds == ["accepted", "accepted", "over_quota", "over_quota", "accepted"]
    assert all_held(store) == {("quota", "small"): 2, ("quota", "default"): 1, ("capacity", POOL): 3}
    assert store.read(job, "job-000002") is None
    assert [each[0] for each in outbox(store)] == ["job-000000", "job-000001", "job-000009"]
    settle_each(store, outcome(0))
    assert [each.kind for each in write(store, admit, batch[2], batch[3])] == ["accepted", "over_quota"]


def test_a_known_key_is_answered_even_at_the_quota(store):
    give_quota(store, 1)
    mine = new_job(1, tenant_id="small")
    accept(store, mine)
    kinds = [each.kind for each in write(store, admit, new_job(2, tenant_id="small"), mine)]
    assert kinds == ["over_quota", "known"]


def test_depth_counts_the_pools_jobs_in_order(store):
    batch = [new_job(1), new_job(2, pool=OTHER_POOL), new_job(3), new_job(4, pool=None)]
    assert [each.depth for each in write(store, admit, *batch)] == [1, 1, 2, 0]


def test_a_job_of_an_unknown_tenant_fails_alone_in_its_group(store):
    good = [new_job(i) for i in range(20)]
    bad = new_job(99, tenant_id="nobody", payload="its own secret")
    futures = store.write_many(admit, [*good[:7], bad, *good[7:]])
    failed = futures.pop(7)
    assert [future.result().kind for future in futures] == ["accepted"] * 20
    with pytest.raises(StoreError) as caught:
        failed.result()
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert all_held(store) == {("quota", "default"): 20, ("capacity", POOL): 20}
