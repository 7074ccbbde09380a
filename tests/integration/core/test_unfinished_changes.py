"""The database goes away after a change was written: that it was is what the caller is told."""

import pytest

from support.cluster import Cluster
from tether import Tether
from tether.errors import ChangeUnfinished, StoreUnavailable
from tether.jobs import JobState, Priority
from tether.store import Store


@pytest.fixture
def client(tmp_path):
    with Cluster(models={"counter": (0, 8)}) as cluster, Tether.direct(cluster.settings) as made:
        yield made


def away(*_args):
    raise StoreUnavailable("it went away")


def test_a_priority_that_was_written_stands_and_the_same_call_again_ends_what_was_begun(client, monkeypatch):
    job_ids = [client.submit("counter", "hello").job_id for _ in range(2)]
    with monkeypatch.context() as patched:
        patched.setattr(Store, "read_each", away)
        with pytest.raises(ChangeUnfinished, match="was written"):
            client.job(job_ids[0]).reprioritise("batch")
        with pytest.raises(ChangeUnfinished, match="was written"):
            list(client.many_jobs.reprioritise("batch", model="counter"))
    assert [client.job(job_id).status().priority for job_id in job_ids] == [Priority.BATCH] * 2
    assert client.job(job_ids[0]).reprioritise("batch") in (JobState.ACCEPTED, JobState.PARKED)


def test_a_cancellation_that_was_written_stands(client, monkeypatch):
    job = client.submit("counter", "hello")
    write_each = Store.write_each

    def first_alone(store, *args):
        monkeypatch.setattr(Store, "write_each", away)
        return write_each(store, *args)

    monkeypatch.setattr(Store, "write_each", first_alone)
    with pytest.raises(ChangeUnfinished, match="was written"):
        job.cancel()
    monkeypatch.setattr(Store, "write_each", write_each)
    assert job.cancel() is JobState.CANCELLED
