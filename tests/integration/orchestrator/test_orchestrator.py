"""The loops of the orchestrator, on a real database and a real Redis, without workers."""

import contextlib
import json
import threading
from dataclasses import replace

import pytest
from sqlalchemy import select

from support.cluster import Cluster
from support.hand_worker import HandWorker, growth
from support.tasks import running_task
from support.waiting import PATIENCE_SECONDS, eventually
from tether import Tether
from tether.broker.pools.outcomes import Outcomes
from tether.broker.pools.worker_port import WriteStatus
from tether.broker.redis.connections import OUTAGE_ERRORS
from tether.clocks import wall_clock_ms
from tether.core.control_plane import ControlPlane
from tether.discovery.fleet.pool_views import PoolView
from tether.errors import EpochChanged
from tether.jobs import JobError, JobRequest, JobState, Piece
from tether.models.registry import Registry, pool_name
from tether.orchestrator import deadlines
from tether.orchestrator.loop_lease_keeper import KeepLeases
from tether.orchestrator.orchestrator import Orchestrator
from tether.store import queries
from tether.store.dead_letters import dead_letter
from tether.store.end_requests import Request
from tether.store.epoch import raise_epoch
from tether.store.job_lists import scan_jobs
from tether.store.placements import raise_dispatches
from tether.store.schema import counters, dispatches, loop_leases
from tether.store.tenants import Tenant, create_tenant


@pytest.fixture
def cluster():
    with Cluster(config="[orchestrator]\noutbox_interval = 100\n[jobs]\nretry_base = 1\n") as opened:
        yield opened


@pytest.fixture
def plane(cluster):
    with ControlPlane(cluster.settings) as opened:
        yield opened


class Hands:
    """A worker by hand: what draws and ends jobs, and the pool that the fleet is made to show.

    Each of its writes must count.
    """

    def __init__(self, cluster, plane):
        version = Registry.from_settings(cluster.settings).find("counter")
        self.pool = pool_name("cpu", "local", version)
        view = PoolView(
            name=self.pool,
            model=version.name,
            version=version.version,
            digest=version.digest,
            gpu_class="cpu",
            region="local",
            workers=1,
            slots=8,
            free=8,
        )
        plane.fleet.pools = lambda: (view,)
        self.port = HandWorker(cluster.redis, cluster.keys, "hands.1")

    def draw(self):
        def found():
            try:
                return self.port.draw(1, [self.pool], busy=False).jobs
            except EpochChanged:
                self.port.hello()
            except OUTAGE_ERRORS:
                pass
            return ()

        return eventually(found, PATIENCE_SECONDS, "a job to draw")[0]

    def finish(self, job, count=2):
        self.port.finish(growth(job, count - job.offset), input_tokens=5)

    def fail(self, job, **error):
        self.port.fail(growth(job), kind="failed", error=JobError("engine_failed", "it broke", **error))


@pytest.fixture
def hands(cluster, plane):
    made = Hands(cluster, plane)
    yield made
    made.port.close()


@pytest.fixture
def orchestrator(cluster, plane):
    """One that has begun its first epoch: what was drawn before that would have to be drawn again."""
    with Orchestrator(plane) as running:
        eventually(lambda: cluster.redis.get(cluster.keys.epoch), PATIENCE_SECONDS, "the first epoch")
        yield running


def submit(plane, **changes):
    request = JobRequest(**{"model": "counter", "prompt": "p", **changes})
    (answer,) = plane.broker.enqueue_many([plane.scheduler.envelope(request)])
    if isinstance(answer, Exception):
        raise answer
    return answer.message_id


def row(plane, job_id):
    return plane.store.read(queries.job, job_id)


def wait_for(plane, job_id, state):
    eventually(lambda: row(plane, job_id).state is state, PATIENCE_SECONDS, f"the job is {state}")


def test_an_orchestrator_says_that_redis_may_delete_jobs(cluster, plane, caplog):
    cluster.redis.config_set("maxmemory-policy", "allkeys-lru")
    with Orchestrator(plane):
        found = eventually(lambda: lines_of(caplog, "allkeys-lru"), PATIENCE_SECONDS, "the finding is logged")
    assert [record.levelname for record in found] == ["ERROR"]


def lines_of(caplog, text):
    return [record for record in caplog.records if text in record.getMessage()]


def test_a_job_is_settled_with_its_tokens_and_holds_nothing_afterwards(plane, hands, orchestrator):
    job_id = submit(plane)
    hands.finish(hands.draw())
    wait_for(plane, job_id, JobState.SUCCEEDED)
    assert plane.store.read(queries.result_pieces, job_id).pieces == (Piece(0, "t0 "), Piece(1, "t1 "))
    assert row(plane, job_id).input_tokens == 5
    held = plane.store.read(lambda c: [r.held for r in c.execute(select(counters))])
    assert set(held) == {0}
    eventually(lambda: plane.pools.known([job_id])[0].state == "succeeded", PATIENCE_SECONDS, "it is sealed")


def test_a_failed_job_is_tried_again_and_then_dead_with_its_history(plane, hands, orchestrator):
    job_id = submit(plane, max_attempts=4)
    former = 0
    for _ in range(4):
        job = hands.draw()
        assert job.fence.dispatch > former
        former = job.fence.dispatch
        hands.fail(job, retryable=True)
    wait_for(plane, job_id, JobState.DEAD)
    letter = plane.store.read(dead_letter, job_id)
    assert (letter.reason, letter.retryable) == ("attempts_exhausted", True)
    assert len(letter.attempts) >= 4
    assert row(plane, job_id).error.code == "engine_failed"


def test_a_history_tells_what_never_left_redis(cluster, plane, hands, orchestrator):
    job_id = submit(plane)
    hands.port.release(growth(hands.draw(), 1))
    lost = hands.draw()
    cluster.redis.zadd(cluster.keys.leases, {f"j {job_id}": 1}, xx=True)
    running = hands.draw()
    with Tether.direct(cluster.settings) as client:
        handle = client.job(job_id)

        def told():
            return [(each.cause, each.went, each.offset) for each in handle.history().attempts]

        before = [("released", "pool", 1), ("lease_lost", "pool", 1)]
        assert told() == [*before, ("running", None, 1)]
        assert lost.offset == running.offset == 1
        hands.finish(running)
        wait_for(plane, job_id, JobState.SUCCEEDED)
        assert told() == [*before, ("succeeded", "end", 2)]
        cluster.redis.delete(cluster.keys.job(job_id))
        assert told() == [*before, ("succeeded", "end", 2)], "the database has all of it"


def test_what_cannot_be_helped_is_not_tried_again(plane, hands, orchestrator):
    job_id = submit(plane)
    hands.fail(hands.draw(), retryable=False)
    wait_for(plane, job_id, JobState.DEAD)
    letter = plane.store.read(dead_letter, job_id)
    assert (letter.reason, letter.retryable) == ("not_retryable", False)


def test_a_job_accepted_while_redis_is_away_runs_when_it_is_back(cluster, plane, hands, orchestrator):
    first = submit(plane)
    hands.finish(hands.draw())
    wait_for(plane, first, JobState.SUCCEEDED)
    cluster.server.kill()
    job_id = submit(plane)
    assert row(plane, job_id).state is JobState.ACCEPTED
    cluster.server.start()
    hands.finish(hands.draw())
    wait_for(plane, job_id, JobState.SUCCEEDED)


def test_a_delayed_job_waits_in_the_database_until_it_is_due(plane, hands, orchestrator):
    due_at = wall_clock_ms() + 700
    job_id = submit(plane, not_before=due_at)
    assert plane.pools.known([job_id]) == [None]
    job = hands.draw()
    assert wall_clock_ms() >= due_at
    hands.finish(job)
    wait_for(plane, job_id, JobState.SUCCEEDED)


def test_a_job_that_nobody_can_serve_is_parked_and_placed_when_somebody_can(plane, hands, orchestrator):
    served, plane.fleet.pools = plane.fleet.pools, lambda: ()
    job_id = submit(plane)
    assert row(plane, job_id).state is JobState.PARKED
    plane.fleet.pools = served
    seen = replace(plane.fleet.fleet, served={hands.pool: 1})
    for callback in plane.fleet._callbacks:
        callback(seen)
    hands.finish(hands.draw())
    wait_for(plane, job_id, JobState.SUCCEEDED)


def test_a_job_past_its_deadline_expires_wherever_it_is(plane, hands, orchestrator):
    plane.fleet.pools = lambda: ()
    parked = submit(plane, deadline=wall_clock_ms() + 300)
    wait_for(plane, parked, JobState.EXPIRED)


def test_what_a_flushed_redis_lost_is_placed_anew_in_a_new_epoch(cluster, plane, hands, orchestrator):
    job_id = submit(plane)
    former = hands.draw()
    epoch = int(cluster.redis.get(cluster.keys.epoch))
    cluster.redis.flushall()
    eventually(lambda: cluster.redis.get(cluster.keys.epoch), PATIENCE_SECONDS, "a new epoch")
    assert int(cluster.redis.get(cluster.keys.epoch)) > epoch
    job = hands.draw()
    assert job.job_id == former.job_id
    assert job.fence.dispatch > former.fence.dispatch
    assert job.lossy
    hands.finish(job)
    wait_for(plane, job_id, JobState.SUCCEEDED)


def test_what_redis_lost_alone_is_put_back(cluster, plane, hands):
    job_id = submit(plane)

    def is_placed():
        return row(plane, job_id).state is JobState.PLACED

    eventually(is_placed, PATIENCE_SECONDS, "the placement is noted")
    for key in cluster.redis.scan_iter(f"{cluster.keys.prefix}:*"):
        if job_id.encode() in key or b":pool:" in key:
            cluster.redis.delete(key)
    # Redis lost these keys alone: both know the same epoch.
    cluster.redis.set(cluster.keys.epoch, plane.store.write_alone(raise_epoch, 0).result())
    with Orchestrator(plane):
        hands.finish(hands.draw())
        wait_for(plane, job_id, JobState.SUCCEEDED)


def test_jobs_that_a_worker_asks_for_are_admitted_once(cluster, plane, hands, orchestrator):
    request = json.dumps({"model": "counter", "prompt": "from a task", "tenant": "default"}).encode()
    task = running_task(hands.port, cluster.redis, cluster.keys)
    for token, asked in (("1", request), ("1", request), ("2", b"not JSON"), ("3", request)):
        assert hands.port.submit(task.job_id, task.fence, f"token-{token}", asked) is WriteStatus.OK
    done = {hands.draw(): None for _ in range(2)}
    for job in done:
        hands.finish(job)
    rows = eventually(
        lambda: [r for r in plane.store.read(scan_jobs, "default").rows if r.state.is_final][1:],
        PATIENCE_SECONDS,
        "both end",
    )
    assert {r.retry_token for r in [*rows, *plane.store.read(scan_jobs, "default").rows]} == {
        "token-1",
        "token-3",
    }


def test_settled_outcomes_are_removed(cluster, plane, hands, orchestrator):
    jobs = [submit(plane) for _ in range(3)]
    for _ in jobs:
        hands.finish(hands.draw())
    for job_id in jobs:
        wait_for(plane, job_id, JobState.SUCCEEDED)
    with contextlib.closing(Outcomes(cluster.redis, cluster.keys, "trims")) as outcomes:
        outcomes.trim()
    # Redis trims whole blocks of a stream only; that nothing is pending is what lets it.
    assert cluster.redis.xpending(cluster.keys.outcomes, "settle")["pending"] == 0


def test_of_two_orchestrators_one_holds_each_lease_and_the_other_takes_over(plane):
    clock = {"now": 0.0}
    keepers = [
        KeepLeases(
            plane.store,
            ["a", "b"],
            holder,
            now_ms=lambda: int(clock["now"] * 1000),
            clock=lambda: clock["now"],
        )
        for holder in ("first", "second")
    ]
    for keeper in keepers:
        keeper()
    assert [keeper.holds("a") for keeper in keepers] == [True, False]
    clock["now"] = 2.6
    assert not keepers[0].holds("a"), "it stops before another may begin"
    keepers[1]()
    assert not keepers[1].holds("a")
    clock["now"] = 3.1
    keepers[1]()
    assert keepers[1].holds("a")
    keepers[0]()
    assert not keepers[0].holds("a")
    keepers[1].give_up()
    keepers[0]()
    assert keepers[0].holds("b")


def test_an_orchestrator_leaves_no_thread_and_no_lease_behind(plane):
    before = set(threading.enumerate())
    for _ in range(3):
        with Orchestrator(plane):
            eventually(
                lambda: plane.store.read(lambda c: c.execute(select(loop_leases)).all()),
                PATIENCE_SECONDS,
                "leases are taken",
            )
        assert plane.store.read(lambda c: c.execute(select(loop_leases)).all()) == []
    assert set(threading.enumerate()) <= before


def test_the_outbox_is_empty_when_all_is_placed(plane, hands, orchestrator):
    submit(plane)
    eventually(
        lambda: not plane.store.read(lambda c: c.execute(select(dispatches)).all()),
        PATIENCE_SECONDS,
        "no hand-over is owed",
    )


def test_entries_that_nobody_can_read_hold_up_nobody(cluster, plane, hands, orchestrator):
    first, second = submit(plane), submit(plane)
    job = hands.draw()
    # A stream with a delta that no worker of ours wrote, and outcomes without sense or of another age.
    cluster.redis.xadd(cluster.keys.stream(job.job_id), {"e": "delta", "d": b"[1, 2"}, id="1-50")
    cluster.redis.hset(cluster.keys.job(job.job_id), mapping={"offset": 1, "n": 60})
    cluster.redis.xadd(cluster.keys.outcomes, {"v": 1, "job": "nobody"})
    cluster.redis.xadd(cluster.keys.outcomes, {"v": 99, "job": job.job_id})
    hands.finish(hands.draw())
    hands.finish(replace(job, offset=1), count=1)
    for job_id in (first, second):
        wait_for(plane, job_id, JobState.SUCCEEDED)


def test_a_task_submits_for_the_tenant_of_its_own_job_alone(cluster, plane, hands, orchestrator):
    for name in ("mine", "theirs"):
        plane.store.write_alone(create_tenant, Tenant(name, "", 1.0, None, 1)).result()
    task = running_task(hands.port, cluster.redis, cluster.keys, tenant="mine")

    def ask(token, expect=WriteStatus.OK, fence=task.fence, **named):
        request = json.dumps({"model": "counter", "prompt": "p", **named}).encode()
        assert hands.port.submit(task.job_id, fence, token, request) is expect

    ask("foreign", tenant="theirs")
    ask("named", tenant="mine")
    ask("old", WriteStatus.FENCED, replace(task.fence, attempt=2))
    forged = {"model": "counter", "prompt": "p", "tenant": "theirs"}
    cluster.redis.xadd(cluster.keys.submits, {"v": 1, "token": "forged", "request": json.dumps(forged)})
    cluster.redis.sadd(cluster.keys.revoked, "hands")
    ask("revoked", WriteStatus.FENCED)
    cluster.redis.srem(cluster.keys.revoked, "hands")
    ask("last")
    eventually(lambda: len(plane.store.read(scan_jobs, None).rows) >= 2, PATIENCE_SECONDS, "they are jobs")
    rows = plane.store.read(scan_jobs, None).rows
    assert {(row.tenant_id, row.retry_token) for row in rows} == {("mine", "named"), ("mine", "last")}


def test_hostile_requests_of_workers_hold_up_nobody(cluster, plane, hands, orchestrator):
    task = running_task(hands.port, cluster.redis, cluster.keys)
    for token, request in (
        ("deep", b"[" * 100_000),
        ("huge", json.dumps({"model": "counter", "prompt": "p", "max_tokens": 10**400}).encode()),
        ("x" * 512, json.dumps({"model": "counter", "prompt": "p"}).encode()),
        ("unknown", json.dumps({"model": "counter", "prompt": "p", "tenant": "nobody"}).encode()),
    ):
        assert hands.port.submit(task.job_id, task.fence, token, request) is WriteStatus.OK
    longer = hands.port.submit(task.job_id, task.fence, "x" * 10_000, b"{}")
    assert longer is WriteStatus.INVALID
    hands.port.submit(
        task.job_id, task.fence, "good", json.dumps({"model": "counter", "prompt": "p"}).encode()
    )
    hands.finish(hands.draw())
    rows = eventually(lambda: plane.store.read(scan_jobs, None).rows, PATIENCE_SECONDS, "it is admitted")
    assert [found.retry_token for found in rows] == ["good"]


def test_a_version_of_a_model_can_be_asked_for_by_name(plane, hands, orchestrator):
    job_id = submit(plane, model="counter@1")
    found = row(plane, job_id)
    assert (found.model, found.model_version) == ("counter", "1")


def test_many_jobs_that_cannot_end_yet_hold_up_no_other_deadline(plane, hands, orchestrator, monkeypatch):
    monkeypatch.setattr(deadlines, "BATCH", 2)
    late = wall_clock_ms() + 2_000
    for _ in [submit(plane, deadline=late) for _ in range(3)]:
        hands.draw()
    plane.fleet.pools = lambda: ()
    parked = submit(plane, deadline=wall_clock_ms() + 300)
    wait_for(plane, parked, JobState.EXPIRED)


def test_a_request_is_concluded_where_redis_has_only_the_end_of_an_earlier_hand_over(plane, hands):
    """As after Redis was set back, and ended there what the database had handed over anew."""
    job_id = submit(plane)
    name = plane.keys.job(job_id)
    wait_for(plane, job_id, JobState.PLACED)
    assert plane.store.write_alone(raise_dispatches, [job_id], 5).result() == [2]
    plane.client.hset(name, mapping={"state": "expired", "fence": ""})
    assert plane.client.hget(name, "dispatch") == b"1"
    request = Request(None, job_id, JobState.CANCELLED, 6)
    assert plane.ending.end([request]) == [JobState.CANCELLED]
    assert row(plane, job_id).state is JobState.CANCELLED
    assert plane.client.hget(name, "state") == b"cancelled"
