"""Lists of jobs beside everybody else's calls, and over histories that are longer than a call looks at."""

import asyncio
import threading
from types import SimpleNamespace

import pytest
from starlette.datastructures import QueryParams

from support.databases import accept, new_job
from support.waiting import PATIENCE_SECONDS, eventually, join
from tether.client.async_calls import AsyncCalls
from tether.client.lifetime import Lifetime
from tether.core.direct import jobs as direct_jobs
from tether.core.direct.jobs import DirectJobPort
from tether.core.list_reads import MAX_RUNNING, ListReads
from tether.errors import TooManyRequests, Unauthenticated
from tether.gateway.jobs.routes import list_jobs
from tether.gateway.keys.api_keys import Scope, make_key
from tether.gateway.keys.key_ring import KeyRing
from tether.job_filters import EVERY_JOB, JobFilter
from tether.jobs import JobState
from tether.store.engines import READERS

MAX_WAITING_HERE = 8
JOB = "0190c0de-0000-7000-8000-000000000001"


class NoLiveStates:
    """Redis knows of no job."""

    def known(self, job_ids):
        return {}


def plane_of(store, list_reads):
    """As much of a control plane as statuses and lists ask, without workers."""
    scheduler = SimpleNamespace(why_paused=lambda pool: "", jobs_ahead=lambda pool: (0, 0.0))
    fleet = SimpleNamespace(pools=lambda: ())
    return SimpleNamespace(store=store, list_reads=list_reads, scheduler=scheduler, fleet=fleet)


@pytest.fixture
def port(store):
    list_reads = ListReads(max_waiting=MAX_WAITING_HERE, patience_seconds=PATIENCE_SECONDS)
    return DirectJobPort(plane_of(store, list_reads), NoLiveStates(), Lifetime(), "default")


def test_a_status_and_a_key_are_read_while_every_list_hangs(store, port, monkeypatch):
    accept(store, new_job(1, job_id=JOB))
    key, _ = make_key("default", (Scope.READ,), now_ms=1, randomness=lambda size: b"x" * size)
    hanging, release, refused = [], threading.Event(), []

    def hang(connection, *args):
        hanging.append(args)
        assert release.wait(PATIENCE_SECONDS)
        return direct_jobs_scan(connection, *args)

    direct_jobs_scan = direct_jobs.scan_jobs
    monkeypatch.setattr(direct_jobs, "scan_jobs", hang)

    def ask():
        try:
            port.find(EVERY_JOB, None, 50)
        except TooManyRequests as error:
            refused.append(error)

    threads = [threading.Thread(target=ask, name=f"test-list-{n}") for n in range(3 * READERS)]
    for thread in threads:
        thread.start()
    try:
        most = MAX_RUNNING + MAX_WAITING_HERE // 2
        eventually(lambda: len(refused) == len(threads) - most, PATIENCE_SECONDS, "the others are refused")
        eventually(lambda: len(hanging) == MAX_RUNNING, PATIENCE_SECONDS, "two are read")
        assert port.status(JOB).state is JobState.ACCEPTED
        with pytest.raises(Unauthenticated, match="unknown"):
            KeyRing(store).caller(f"Bearer {key}")
    finally:
        release.set()
        for thread in threads:
            join(thread)
    assert len(port.find(EVERY_JOB, None, 50).jobs) == 1


def test_a_status_and_a_key_are_read_on_a_gateways_threads_while_200_lists_wait(store, monkeypatch):
    accept(store, new_job(1, job_id=JOB))
    key, _ = make_key("default", (Scope.READ,), now_ms=1, randomness=lambda size: b"x" * size)
    hanging, release = [], threading.Event()
    direct_jobs_scan = direct_jobs.scan_jobs

    def hang(connection, *args):
        hanging.append(args)
        assert release.wait(PATIENCE_SECONDS)
        return direct_jobs_scan(connection, *args)

    monkeypatch.setattr(direct_jobs, "scan_jobs", hang)
    plane = plane_of(store, ListReads(patience_seconds=PATIENCE_SECONDS))
    ports = {
        tenant: DirectJobPort(plane, NoLiveStates(), Lifetime(), tenant) for tenant in ("default", "other")
    }
    calls = AsyncCalls()
    edge = SimpleNamespace(
        core=lambda: SimpleNamespace(plane=plane),
        backend=lambda caller: SimpleNamespace(job_port=ports[caller.tenant_id]),
        call=calls.call,
    )
    request = SimpleNamespace(query_params=QueryParams("limit=5"))

    async def ask():
        lists = [
            asyncio.create_task(list_jobs(edge, SimpleNamespace(tenant_id=tenant), request))
            for tenant in ("default", "other") * 100
        ]
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while plane.list_reads.waiting() < len(lists) - MAX_RUNNING:
                    await asyncio.sleep(0)
                # Callers that go take no place with them.
                for gone in lists[-20:]:
                    gone.cancel()
                status = await calls.call(ports["default"].status, JOB)
                with pytest.raises(Unauthenticated, match="unknown"):
                    await calls.call(KeyRing(store).caller, f"Bearer {key}")
        finally:
            release.set()
        assert status.state is JobState.ACCEPTED
        answers = await asyncio.gather(*lists, return_exceptions=True)
        assert not [answer for answer in answers[:-20] if isinstance(answer, Exception)]
        assert [answer.status_code for answer in answers[:-20]] == [200] * 180
        assert all(isinstance(answer, asyncio.CancelledError) for answer in answers[-20:])

    try:
        asyncio.run(ask())
    finally:
        calls.close()
    assert len(hanging) == 180
    assert plane.list_reads.waiting() == 0


def test_a_long_history_is_looked_through_call_by_call(store, port, monkeypatch):
    monkeypatch.setattr(direct_jobs, "MAX_SCANNED", 4)
    ids = [JOB[:-2] + f"{number:02}" for number in range(31)]
    # Ten jobs have either label, and two have both: no index finds these.
    labels = [{"third": str(n % 3)} | ({"both": "yes"} if n % 3 == 1 else {}) for n in range(31)]
    labels[0]["both"] = labels[30]["both"] = "yes"
    accept(store, *(new_job(n, job_id=ids[n], labels=labels[n]) for n in range(31)))
    pages, cursor = [], None
    while len(pages) < 5:
        page = port.find(JobFilter(labels={"third": "0", "both": "yes"}), cursor, 50)
        pages.append([job.job_id for job in page.jobs])
        cursor = page.next_cursor
        if cursor is None:
            break
    assert pages == [[ids[30]], [], [ids[0]]]
