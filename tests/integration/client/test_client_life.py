"""Clients that are closed, forked or cancelled in the middle of what they do."""

import asyncio
import os
import threading

import pytest

from support.cluster import Cluster
from support.waiting import PATIENCE_SECONDS, eventually, join
from tether import AsyncTether, Tether
from tether.client.async_calls import AsyncCalls
from tether.client.async_handles import AsyncJobHandle
from tether.core.direct import streams as direct_streams
from tether.core.direct.jobs import job_of_tenant
from tether.errors import ClientClosed, InvalidRequest, StoreError


@pytest.fixture(scope="module")
def settings():
    """No worker is there: jobs wait."""
    with Cluster() as cluster:
        yield cluster.settings


@pytest.fixture
def client(settings):
    with Tether.direct(settings) as client:
        yield client


def names():
    return {thread.name for thread in threading.enumerate()}


def async_threads():
    return [name for name in names() if name.startswith("tether-async")]


def outcome_of(call):
    try:
        return call()
    except Exception as error:
        return error


def test_who_waits_for_a_result_is_told_when_the_client_is_closed(settings):
    client = Tether.direct(settings)
    job = client.submit("counter", "one")
    outcomes = []
    waiting = threading.Thread(target=lambda: outcomes.append(outcome_of(job.result)))
    waiting.start()
    eventually(lambda: "tether-streams" in names(), PATIENCE_SECONDS, "the stream is followed")
    client.close()
    join(waiting)
    assert [type(outcome) for outcome in outcomes] == [ClientClosed]


def test_who_waits_on_a_loop_is_told_when_the_client_is_closed(settings):
    async def main():
        client = await AsyncTether.direct(settings)
        job = await client.submit("counter", "one")
        waiting = asyncio.create_task(job.result())
        await asyncio.to_thread(
            eventually, lambda: "tether-streams" in names(), PATIENCE_SECONDS, "the stream is followed"
        )
        await client.close()
        with pytest.raises(ClientClosed):
            await waiting
        with pytest.raises(ClientClosed):
            await job.status()

    asyncio.run(asyncio.wait_for(main(), PATIENCE_SECONDS))
    assert async_threads() == []


def test_every_call_of_a_client_that_was_closed_says_so(settings):
    client = Tether.direct(settings)
    job = client.submit("counter", "one")
    client.close()
    client.close()
    calls = [
        lambda: client.submit("counter", "one"),
        lambda: next(client.jobs()),
        *(client.models, job.status, job.cancel, job.result),
    ]
    assert [type(outcome_of(call)) for call in calls] == [ClientClosed] * len(calls)


def test_who_is_in_the_middle_of_a_call_while_the_client_is_closed_is_told(settings, monkeypatch):
    client = Tether.direct(settings)
    job = client.submit("counter", "one")
    reads, go_on = threading.Event(), threading.Event()

    def slow_read(store, *args):
        row = job_of_tenant(store, *args)
        reads.set()
        assert go_on.wait(PATIENCE_SECONDS)
        return row

    monkeypatch.setattr(direct_streams, "job_of_tenant", slow_read)
    outcomes = []
    waiting = threading.Thread(target=lambda: outcomes.append(outcome_of(job.result)))
    waiting.start()
    assert reads.wait(PATIENCE_SECONDS)
    client.close()
    go_on.set()
    join(waiting)
    assert [type(outcome) for outcome in outcomes] == [ClientClosed]


@pytest.mark.parametrize("offset", [-1, 2**32, "0"])
def test_an_offset_that_no_stream_can_have_is_refused(client, offset):
    job = client.submit("counter", "one")
    with pytest.raises(InvalidRequest):
        next(job.events(offset=offset))


class SlowBackend:
    """Following takes until it is told to go on."""

    def __init__(self):
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.closed = threading.Event()
        self.job_port = self.stream_port = self

    def follow(self, job_id, offset, deliver, *, within=None):
        self.entered.set()
        assert self.go_on.wait(PATIENCE_SECONDS)
        return self

    def status(self, job_id):
        return threading.current_thread().name

    def close(self):
        self.closed.set()


def test_who_is_cancelled_while_it_begins_to_follow_leaves_no_follower(request):
    backend, calls = SlowBackend(), AsyncCalls()
    request.addfinalizer(calls.close)
    request.addfinalizer(backend.go_on.set)

    async def main():
        waiting = asyncio.create_task(AsyncJobHandle("job", backend, calls).result())
        await asyncio.to_thread(backend.entered.wait, PATIENCE_SECONDS)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
    assert not backend.closed.is_set()
    backend.go_on.set()
    assert backend.closed.wait(PATIENCE_SECONDS)


def test_calls_run_on_threads_of_their_own_whatever_the_loop_has_to_do(request):
    backend, calls = SlowBackend(), AsyncCalls()
    request.addfinalizer(calls.close)
    go_on = threading.Event()
    request.addfinalizer(go_on.set)

    async def main():
        loop = asyncio.get_running_loop()
        busy = [loop.run_in_executor(None, go_on.wait, PATIENCE_SECONDS) for _ in range(64)]
        name = await asyncio.wait_for(AsyncJobHandle("job", backend, calls).status(), PATIENCE_SECONDS)
        go_on.set()
        await asyncio.gather(*busy)
        return name

    assert asyncio.run(main()).startswith("tether-async")


def test_in_a_child_of_the_process_every_call_says_to_make_a_client_there(client):
    job = client.submit("counter", "one")
    child = os.fork()
    if child == 0:
        try:
            calls = [lambda: client.submit("counter", "one"), job.status, job.result]
            errors = [outcome_of(call) for call in calls]
            told = [isinstance(error, StoreError) and "in the child" in str(error) for error in errors]
            client._backend._hub.close()
            client._backend._plane.store.close()
            os._exit(7 if all(told) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert job.status().job_id == job.job_id


def test_a_client_that_is_made_in_the_child_works(client, settings):
    child = os.fork()
    if child == 0:
        try:
            with Tether.direct(settings) as own:
                own.submit("counter", "one")
            os._exit(7)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_calls_on_a_loop_in_a_child_say_to_make_a_client_there(request):
    calls = AsyncCalls()
    request.addfinalizer(calls.close)
    calls.begin(int).result(PATIENCE_SECONDS)
    child = os.fork()
    if child == 0:
        try:
            error = outcome_of(lambda: calls.begin(int))
            os._exit(7 if isinstance(error, ClientClosed) and "in the child" in str(error) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
