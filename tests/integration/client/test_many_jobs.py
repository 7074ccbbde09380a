"""Many jobs changed by filter, the same for every kind of client: direct, over HTTP and fake, plain and on a
loop."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from support.clients import OTHER_TENANT, opened_clients
from tether.client import async_many_jobs, many_jobs
from tether.errors import InvalidRequest, JobCancelled
from tether.jobs import JobState


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
    pool = client.job(counter).status().pool
    now = datetime.now(UTC)

    def chosen(**which):
        found = client.cancel_where(labels={"run": run}, dry_run=True, **which)
        return {change.job_id for change in found}

    assert chosen() == {counter, slow}
    assert chosen(model="slow") == {slow}
    assert chosen(pool=pool) == {counter}
    assert chosen(state=["running", "waiting_retry"]) == set()
    assert chosen(created_before=now - timedelta(hours=1)) == set()
    assert chosen(created_after=now - timedelta(hours=1)) == {counter, slow}
    client.cancel_where(labels={"run": run})


def test_filters_that_are_not_possible_are_refused(client):
    for wrong in ({"state": "dead"}, {"state": "x"}, {"pool": 5}, {"model": "a\0"}, {"created_after": 5}):
        with pytest.raises(InvalidRequest):
            client.cancel_where(**wrong)
