"""Each check of fsck catches a fault that is planted, and none tells of a sound Tether that is busy."""

import contextlib
import json
import threading

import pytest
from sqlalchemy import delete, insert, text, update

from support.cluster import Cluster
from support.core_steps import CoreSteps
from support.databases import POOL, give_quota
from support.hand_worker import HandWorker, growth
from support.paths import ROOT
from support.waiting import PATIENCE_SECONDS, eventually
from tether.broker.letter_copies import LetterCopies
from tether.broker.pools.dispatches import Dispatch
from tether.jobs import JobError, Priority
from tether.loops import IDLE
from tether.orchestrator.fsck import job_look, lane_places
from tether.orchestrator.fsck.fsck import fsck
from tether.orchestrator.fsck.invariants import INVARIANTS, Invariant
from tether.orchestrator.letter_copying import CopyLetters
from tether.store.dead_letters import dead_letter
from tether.store.schema import counters, dead_letters, dispatches, holds, jobs
from tether.store.store import Store

ERROR = JobError("engine_failed", "it broke", retryable=True)


@pytest.fixture
def core(database_url, shared_redis_server, namespace):
    # What is planted in it is what the fixture `store` would complain of.
    with Store(database_url) as store:
        made = CoreSteps(store, shared_redis_server, namespace)
        yield made
        made.close()


def job_id(number):
    return f"job-{number:06}"


def one_of_each(core):
    """Jobs in every state: 0 succeeded, 1 dead, 2 waits for a retry, 3 parked, 4 runs, 5 waits in Redis, 6
    accepted."""
    core.submit(0)
    core.finish(1)
    core.submit(1)
    core.worker.fail(growth(*core.draw()), kind="failed", error=JobError("engine_failed", "x"))
    core.submit(2)
    core.worker.fail(growth(*core.draw()), kind="failed", error=ERROR)
    core.submit(3, pool=None)
    core.submit(4)
    (running,) = core.draw()
    core.submit(5)
    core.submit(6, places=False)
    core.settle()
    assert core.states(*range(7)) == [
        *("succeeded", "dead", "waiting_retry", "parked", "placed", "placed", "accepted"),
    ]
    return running


def look(core, wait=lambda: None):
    return fsck(core.store, core.redis, core.keys, wait=wait)


def found(core):
    return {(each.check, each.subject) for each in look(core).found}


def change(core, number, **values):
    core.sql(update(jobs).where(jobs.c.job_id == job_id(number)).values(**values))


def change_letter(core, **values):
    core.sql(update(dead_letters).where(dead_letters.c.job_id == job_id(1)).values(**values))


def key(core, rest):
    return f"{core.keys.prefix}:{rest}"


def lane(core):
    return core.keys.pool_jobs(POOL, "standard", "default")


def test_a_sound_tether_has_nothing_to_tell(core):
    one_of_each(core)
    report = look(core)
    assert report.found == ()
    assert report.is_sound
    assert report.looked_at > 7
    suspect(core)
    core.redis.hset(core.keys.worker_health("w"), POOL, json.dumps(HELD))
    core.redis.zadd(core.keys.held_workers, {"w": 1})
    assert look(core).found == ()


def calls_of(core, command):
    return core.redis.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"]


@pytest.mark.parametrize("is_in_order", [True, False])
def test_a_long_lane_is_not_read_as_a_whole_for_each_of_its_jobs(core, is_in_order, monkeypatch):
    monkeypatch.setattr(job_look, "BATCH", 10)
    monkeypatch.setattr(lane_places, "AROUND", 20)
    numbers = range(60) if is_in_order else range(59, -1, -1)
    for number in numbers:
        core.submit(number)
    before = calls_of(core, "lpos")
    assert look(core).is_sound
    if is_in_order:
        assert calls_of(core, "lpos") == before
    core.redis.lrem(
        lane(core), 0, f"{job_id(30)} {core.redis.hget(core.keys.job(job_id(30)), 'ticket').decode()}"
    )
    assert found(core) == {(Invariant.LANE_MISSING, job_id(30))}


def place_unknown(core):
    core.pools.place(
        [
            Dispatch(
                job_id="unknown",
                dispatch=1,
                pool=POOL,
                tenant="default",
                priority=Priority.STANDARD,
                weight=1.0,
                deadline=0,
                cost=1,
                max_tokens=16,
                body=b"{}",
                options=b"{}",
            )
        ]
    )


def end_in_redis(core):
    """What runs ends, and its outcome is lost."""
    (drawn,) = core.draw()
    core.worker.finish(growth(drawn, 1))
    core.redis.xtrim(core.keys.outcomes, maxlen=0)


def hash_of(number):
    return lambda core: core.keys.job(job_id(number))


def suspect(core):
    """What waits in Redis has run in two processes that died."""
    for boot_id in ("first.1", "second.1"):
        with contextlib.closing(HandWorker(core.redis, core.keys, boot_id)) as worker:
            worker.hello()
            assert [job.job_id for job in worker.draw(2, [POOL], busy=False).jobs] == [job_id(5)]
            assert worker.gone(boot_id, worker.process, "signal 9")
    assert core.redis.hget(core.keys.job(job_id(5)), "group") == b"second.1"


HELD = {"jobs": ["a"], "tenants": ["one"], "count": 5, "code": "engine_failed", "others": True}
HELD |= {"since": 1, "at": 2**50, "pause": 1_000, "until_ms": 2, "probe": ""}


FAULTS = {
    Invariant.OUTBOX_MISSING: (lambda core: core.sql(delete(dispatches)), job_id(6)),
    Invariant.OUTBOX_EXTRA: (
        lambda core: core.sql(
            insert(dispatches).values(job_id=job_id(5), dispatch=1, pool=POOL, due_at=0, created_at=0)
        ),
        job_id(5),
    ),
    Invariant.HOLD_MISSING: (
        lambda core: core.sql(
            update(holds).where(holds.c.job_id == job_id(5), holds.c.kind == "capacity").values(dispatch=9)
        ),
        job_id(5),
    ),
    Invariant.HOLD_LEAKED: (
        lambda core: (
            core.sql(
                insert(holds).values(
                    job_id=job_id(0), kind="quota", name="default", dispatch=1, amount=1, created_at=0
                )
            ),
            core.sql(update(counters).where(counters.c.kind == "quota").values(held=counters.c.held + 1)),
        ),
        job_id(0),
    ),
    Invariant.COUNTER_WRONG: (
        lambda core: core.sql(update(counters).where(counters.c.kind == "quota").values(held=40)),
        "quota default",
    ),
    Invariant.RESULT_MISSING: (lambda core: change(core, 0, result=None), job_id(0)),
    Invariant.END_TIME_WRONG: (lambda core: change(core, 0, finished_at=None), job_id(0)),
    Invariant.LETTER_MISSING: (lambda core: core.sql(delete(dead_letters)), job_id(1)),
    Invariant.LETTER_EXTRA: (
        lambda core: core.sql(
            insert(dead_letters).values(
                job_id=job_id(0),
                tenant_id="default",
                reason="x",
                retryable=True,
                retry_token="t",
                history="[]",
                created_at=0,
            )
        ),
        job_id(0),
    ),
    Invariant.LETTER_WRONG: (lambda core: change_letter(core, closed="purged"), job_id(1)),
    Invariant.RETRY_UNLINKED: (lambda core: change(core, 5, retry_of=job_id(1)), job_id(5)),
    Invariant.COPY_MISSING: (lambda core: change_letter(core, created_at=1), job_id(1)),
    Invariant.COPY_EXTRA: (
        lambda core: core.redis.hset(key(core, "infer.XQ.msgs"), job_id(0), "{}"),
        job_id(0),
    ),
    Invariant.JOB_LOST: (
        lambda core: (core.redis.delete(core.keys.job(job_id(5))), core.redis.delete(lane(core))),
        job_id(5),
    ),
    Invariant.JOB_AHEAD: (
        lambda core: core.redis.hset(core.keys.job(job_id(5)), "dispatch", 7),
        job_id(5),
    ),
    Invariant.JOB_STALE: (
        lambda core: core.redis.hset(
            core.keys.job(job_id(2)), mapping={"state": "running", "worker": "gone.1"}
        ),
        job_id(2),
    ),
    Invariant.OUTCOME_LOST: (end_in_redis, job_id(5)),
    Invariant.PRIORITY_DIFFERS: (lambda core: change(core, 5, priority="batch"), job_id(5)),
    Invariant.JOB_UNKNOWN: (place_unknown, "unknown"),
    Invariant.JOB_UNREADABLE: (
        lambda core: core.redis.hset(core.keys.job(job_id(5)), "state", "odd"),
        job_id(5),
    ),
    Invariant.LANE_MISSING: (lambda core: core.redis.delete(lane(core)), job_id(5)),
    Invariant.ALONE_MISSING: (
        lambda core: (suspect(core), core.redis.delete(key(core, "core:alone"))),
        f"alone {POOL}",
    ),
    Invariant.SUSPECT_MISSING: (
        lambda core: (suspect(core), core.redis.delete(key(core, f"suspects:{POOL}:second.1"))),
        job_id(5),
    ),
    Invariant.LEASE_MISSING: (lambda core: core.redis.zrem(core.keys.leases, f"j {job_id(4)}"), job_id(4)),
    Invariant.DRAWN_MISSING: (lambda core: core.redis.delete(key(core, "drawn:hands.1")), job_id(4)),
    Invariant.LEASE_EXTRA: (
        lambda core: core.redis.zadd(core.keys.leases, {f"j {job_id(5)}": 2**50}),
        f"lease {job_id(5)}",
    ),
    Invariant.DRAWN_EXTRA: (
        lambda core: core.redis.hset(key(core, "drawn:other.1"), job_id(4), 1),
        f"drawn other.1 {job_id(4)}",
    ),
    Invariant.TENANT_MISSING: (
        lambda core: core.redis.delete(core.keys.pool_tenants(POOL, "standard")),
        f"lane {POOL} standard default",
    ),
    Invariant.POOL_MISSING: (lambda core: core.redis.delete(core.keys.pools), f"class {POOL} standard"),
    Invariant.STREAM_ALONE: (
        lambda core: core.redis.xadd(core.keys.stream("alone"), {"e": "delta", "d": "{}"}),
        "alone",
    ),
    Invariant.LIFE_MISSING: (lambda core: core.redis.persist(core.keys.job(job_id(0))), job_id(0)),
    Invariant.IDLE_EXTRA: (
        lambda core: core.redis.sadd(key(core, f"pool:{POOL}:idle"), "gone.1"),
        f"idle {POOL} gone.1",
    ),
    Invariant.WOKEN_EXTRA: (
        lambda core: core.redis.hset(key(core, "core:woken"), "gone.1", POOL),
        "woken gone.1",
    ),
    Invariant.HELD_MISSING: (
        lambda core: core.redis.hset(core.keys.worker_health("w"), POOL, json.dumps(HELD)),
        "health w",
    ),
    Invariant.SET_ASIDE: (lambda core: core.redis.hset(core.keys.set_aside, "odd", "draw"), "aside odd"),
    Invariant.EPOCH_DIFFERS: (lambda core: core.redis.set(core.keys.epoch, 77), "epoch -"),
}
"""For each check what plants its fault, and of whom it tells then."""

ALSO = {
    Invariant.JOB_STALE: {Invariant.LEASE_MISSING, Invariant.DRAWN_MISSING},
    Invariant.LETTER_EXTRA: {Invariant.COPY_MISSING},
}
"""Checks that the same fault concerns."""


@pytest.mark.parametrize("check", FAULTS)
def test_a_planted_fault_is_told_and_nothing_else(core, check):
    one_of_each(core)
    plant, subject = FAULTS[check]
    plant(core)
    told = found(core)
    assert (check, subject) in told
    assert {each for each, _ in told} - ALSO.get(check, set()) == {check}
    report = look(core)
    assert not report.is_sound
    assert all(each.detail for each in report.found)


def test_a_row_that_cannot_be_read_is_told_and_hides_nobody(core, database_url):
    one_of_each(core)
    if not database_url.startswith("sqlite"):
        # Postgres takes no such text.
        return
    core.sql(text("UPDATE jobs SET pool = CAST(x'ff' AS TEXT) WHERE job_id = 'job-000005'"))
    change(core, 0, finished_at=None)
    assert found(core) == {
        (Invariant.ROW_UNREADABLE, job_id(5)),
        (Invariant.END_TIME_WRONG, job_id(0)),
    }


def test_every_check_has_its_planted_fault():
    assert set(FAULTS) | {Invariant.ROW_UNREADABLE} == set(Invariant) == set(INVARIANTS)


def test_a_retried_letter_and_its_job_must_name_each_other_and_its_token(core):
    one_of_each(core)
    token = core.store.read(dead_letter, job_id(1)).retry_token
    change_letter(core, closed="retried", closed_at=5, retried_as=job_id(5))
    assert found(core) == {(Invariant.RETRY_UNLINKED, job_id(1))}
    change(core, 5, retry_of=job_id(1))
    assert found(core) == {(Invariant.RETRY_UNLINKED, job_id(1))}
    change(core, 5, retry_token=token)
    assert look(core).is_sound
    # A second job from one token.
    change(core, 0, retry_of=job_id(1))
    assert found(core) == {(Invariant.RETRY_UNLINKED, job_id(0))}
    change(core, 0, retry_of=None)
    # What it made was deleted since.
    change_letter(core, retried_as=job_id(99))
    change(core, 5, retry_of=None)
    assert look(core).is_sound
    change_letter(core, retried_as=None)
    assert found(core) == {(Invariant.LETTER_WRONG, job_id(1))}


def test_a_letter_of_another_tenant_than_its_job_is_told(core):
    one_of_each(core)
    give_quota(core.store, None, "small")
    change_letter(core, tenant_id="small")
    assert found(core) == {(Invariant.LETTER_WRONG, job_id(1))}


def test_copies_are_looked_at_once_the_orchestrator_had_time_to_make_them(core):
    one_of_each(core)
    change_letter(core, created_at=1)
    copies = LetterCopies(core.redis, core.keys)
    assert CopyLetters(core.store, copies, lambda job_ids: [])() == IDLE
    assert look(core).is_sound
    core.redis.zadd(key(core, "infer.XQ"), {b"\xff stray": 1, b"a\0b": 1})
    core.redis.zrem(key(core, "infer.XQ"), job_id(1))
    assert found(core) == {(Invariant.COPY_MISSING, job_id(1))}
    change_letter(core, closed="purged", closed_at=2)
    assert found(core) == {(Invariant.COPY_EXTRA, job_id(1))}
    change_letter(core, closed_at=2**45)
    assert look(core).is_sound
    core.redis.set(key(core, "infer.XQ"), "of another type")
    change_letter(core, closed=None, closed_at=None)
    assert found(core) == {(Invariant.COPY_MISSING, job_id(1))}


def test_what_changes_between_the_two_looks_was_under_way(core):
    one_of_each(core)
    core.redis.zrem(core.keys.leases, f"j {job_id(4)}")
    change(core, 0, finished_at=None)

    def goes_on():
        core.redis.zadd(core.keys.leases, {f"j {job_id(4)}": 2**50})
        change(core, 0, updated_at=5)

    assert look(core, goes_on).is_sound


def test_an_outcome_that_is_not_settled_yet_is_not_lost(core):
    core.submit(0)
    core.finish(1)
    assert look(core).is_sound
    core.settle()
    assert look(core).is_sound


def test_nothing_is_written(core):
    one_of_each(core)
    before = all_keys(core)
    look(core)
    assert all_keys(core) == before


def all_keys(core):
    return {name: core.redis.type(name) for name in core.redis.scan_iter(f"{core.keys.prefix}:*")}


def test_more_than_are_kept_are_counted(core, monkeypatch):
    monkeypatch.setattr("tether.orchestrator.fsck.fsck.MAX_TOLD", 2)
    core.submit(*range(5))
    core.redis.delete(lane(core))
    report = look(core)
    assert [each.check for each in report.found] == [Invariant.LANE_MISSING] * 2
    assert report.unconfirmed == {Invariant.LANE_MISSING: 3}
    assert not report.is_sound


def test_a_busy_tether_is_sound():
    pause = threading.Event()
    with Cluster(models={"counter": (400, 12)}) as cluster, Store(cluster.settings.database.url) as store:
        cluster.orchestrator()
        cluster.start_worker()
        client = cluster.client()
        stopping = threading.Event()

        def submit():
            while not stopping.is_set():
                handles = [client.submit("counter", "x") for _ in range(8)]
                handles[0].cancel()
                for handle in handles[1:]:
                    handle.result(PATIENCE_SECONDS)

        busy = threading.Thread(target=submit, name="test-busy")
        busy.start()
        try:
            eventually(lambda: cluster.redis.zcard(cluster.keys.leases), PATIENCE_SECONDS, "something runs")
            reports = [
                fsck(store, cluster.redis, cluster.keys, wait=lambda: pause.wait(2.0)) for _ in range(4)
            ]
        finally:
            stopping.set()
            busy.join(PATIENCE_SECONDS)
        assert [report.found for report in reports] == [()] * 4
        assert reports[-1].looked_at > reports[0].looked_at


def test_the_page_lists_every_check():
    page = (ROOT / "docs" / "reference" / "fsck.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    told = [f"| `{check}` | {text.wrong} | {text.mend} |" for check, text in INVARIANTS.items()]
    assert rows == told
