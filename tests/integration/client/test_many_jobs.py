"""Many jobs changed by filter, the same for every kind of client: direct, over HTTP and fake, plain and on a
loop."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from support.clients import OTHER_TENANT, opened_clients
from tether.client import async_many_jobs, many_jobs
from tether.errors import InvalidRequest, JobCancelled, JobEnded, JobNotFound
from tether.jobs import JobState, Priority


@pytest.fixture(params=["http", "http on a loop", "postgres", "fake", "fake on a loop"])
def open_client(request, monkeypatch):
    """Opens clients on one service, by tenant. A batch is of two jobs, so that there are several."""
    monkeypatch.setattr(many_jobs, "JOBS_AT_ONCE", 2)
    monkeypatch.setattr(async_many_jobs, "JOBS_AT_ONCE", 2)
    with opened_clients(request) as opened:
        yield opened


def submit(client, run, **options):
    """A job that does not begin by itself."""
    return client.submit(labels={"run": run}, **{"delay": 500, **options}).job_id


def test_all_that_match_are_cancelled_in_batches_and_no_others(client, open_client):
    run = uuid4().hex
    mine = [submit(client, run) for _ in range(5)]
    beside = submit(client, uuid4().hex)
    theirs = open_client(OTHER_TENANT)
    foreign = submit(theirs, run)
    would_be = client.cancel_where(labels={"run": run}, dry_run=True)
    assert [change.job_id for change in would_be] == mine[::-1]
    assert {client.job(job_id).status().state for job_id in mine}.isdisjoint({JobState.CANCELLED})
    changes = client.cancel_where(labels={"run": run})
    assert [change.job_id for change in changes] == mine[::-1]
    assert {(change.state, change.error, change.tenant_id) for change in changes} == {
        (JobState.CANCELLED, None, "default")
    }
    for job_id in mine:
        assert client.job(job_id).status().state is JobState.CANCELLED
    assert client.job(beside).status().state is not JobState.CANCELLED
    assert theirs.job(foreign).status().state is not JobState.CANCELLED
    assert client.cancel_where(labels={"run": run}) == []
    assert client.cancel_where(labels={"run": run}, tenant=OTHER_TENANT) == []


def test_a_running_job_ends_once_its_worker_has_heard_of_it(client):
    run = uuid4().hex
    job = client.submit("slow", labels={"run": run})
    job.wait_until_running()
    (change,) = client.cancel_where(state="running", labels={"run": run})
    assert change.job_id == job.job_id
    assert change.state in (JobState.RUNNING, JobState.CANCELLED)
    with pytest.raises(JobCancelled):
        job.result()


def test_filters_choose_by_state_model_pool_and_time(client):
    run = uuid4().hex
    counter, slow = submit(client, run), submit(client, run, model="slow")
    running = client.submit("slow", labels={"run": run})
    running.wait_until_running()
    pool = running.status().pool
    now = datetime.now(UTC)

    def chosen(**which):
        found = client.cancel_where(labels={"run": run}, dry_run=True, **which)
        return {change.job_id for change in found}

    assert chosen() == {counter, slow, running.job_id}
    assert chosen(model="slow") == {slow, running.job_id}
    assert chosen(model="counter") == {counter}
    # The fake places whatever is due, by the names of its pools.
    assert running.job_id in chosen(pool=pool)
    assert chosen(pool="gpu.cpu.local.other-00000000") == set()
    assert chosen(state=["running", "waiting_retry"]) == {running.job_id}
    assert chosen(created_before=now - timedelta(hours=1)) == set()
    assert chosen(created_after=now - timedelta(hours=1)) == {counter, slow, running.job_id}
    client.cancel_where(labels={"run": run})


def test_filters_that_are_not_possible_are_refused(client):
    for wrong in ({"state": "dead"}, {"state": "x"}, {"pool": 5}, {"model": "a\0"}, {"created_after": 5}):
        with pytest.raises(InvalidRequest):
            client.cancel_where(**wrong)


def test_all_that_match_get_another_priority_in_batches_and_no_others(client, open_client):
    run = uuid4().hex
    mine = [submit(client, run) for _ in range(3)]
    beside = submit(client, uuid4().hex)
    theirs = open_client(OTHER_TENANT)
    foreign = submit(theirs, run)
    would_be = client.reprioritise_where("batch", labels={"run": run}, dry_run=True)
    assert [change.job_id for change in would_be] == mine[::-1]
    assert {client.job(job_id).status().priority for job_id in mine} == {Priority.STANDARD}
    for _ in range(2):
        changes = client.reprioritise_where("batch", labels={"run": run})
        assert [change.job_id for change in changes] == mine[::-1]
        assert {(change.error, change.tenant_id) for change in changes} == {(None, "default")}
        assert {change.state for change in changes}.isdisjoint({JobState.CANCELLED})
    for job_id in mine:
        assert client.job(job_id).status().priority is Priority.BATCH
        assert client.job(job_id).history().priority is Priority.BATCH
    assert client.job(beside).status().priority is Priority.STANDARD
    assert theirs.job(foreign).status().priority is Priority.STANDARD
    for each in (client, theirs):
        each.cancel_where(labels={"run": run})
    assert client.reprioritise_where("batch", labels={"run": run}) == []


def test_a_job_that_has_another_priority_is_the_same_job_for_its_keys(client):
    options = {"correlation_id": uuid4().hex, "retry_token": "once"}
    job_id = submit(client, "", **options)
    assert client.job(job_id).reprioritise("batch") in (JobState.ACCEPTED, JobState.PARKED)
    again = client.submit(labels={"run": ""}, delay=500, **options)
    assert (again.job_id, again.is_new) == (job_id, False)
    client.job(job_id).cancel()


def test_a_running_job_goes_on_and_one_that_has_ended_is_told_as_such(client):
    job = client.submit("slow")
    job.wait_until_running()
    assert client.job(job.job_id).reprioritise("batch") is JobState.RUNNING
    assert job.status().priority is Priority.BATCH
    job.cancel()
    with pytest.raises(JobCancelled):
        job.result()
    with pytest.raises(JobEnded, match="cancelled"):
        client.job(job.job_id).reprioritise("standard")
    assert job.status().priority is Priority.BATCH


def test_another_tenants_job_and_one_that_is_not_known_get_no_priority(client, open_client):
    foreign = submit(open_client(OTHER_TENANT), "")
    for job_id in (foreign, "01890000-0000-7000-8000-000000000000"):
        with pytest.raises(JobNotFound):
            client.job(job_id).reprioritise("batch")
    assert open_client(OTHER_TENANT).job(foreign).status().priority is Priority.STANDARD
    open_client(OTHER_TENANT).job(foreign).cancel()


def test_priorities_that_are_not_possible_are_refused(client):
    for wrong in ("urgent", "", None, 1):
        with pytest.raises(InvalidRequest, match="priority"):
            client.reprioritise_where(wrong)
        with pytest.raises(InvalidRequest, match="priority"):
            client.job("01890000-0000-7000-8000-000000000000").reprioritise(wrong)
    with pytest.raises(InvalidRequest, match="not ended"):
        client.reprioritise_where("batch", state="dead")
