"""Who counts, from the database over Redis to the workers' draws, on real servers."""

import threading

import pytest
import redis
from nacl.signing import SigningKey

from support.cluster import Cluster
from support.databases import NOW, fresh_sqlite
from support.hand_worker import LEASE_MS, HandWorker, growth
from support.presences import KEY, OTHER_KEY, public
from support.waiting import PATIENCE_SECONDS, eventually
from tether.broker.keys import Keys
from tether.broker.pools.dispatches import Dispatch, PlaceResult
from tether.broker.pools.pools import Pools
from tether.broker.pools.redis_port import RedisWorkerPort
from tether.broker.pools.worker_port import Pulse, WriteStatus
from tether.core.control_plane import ControlPlane
from tether.discovery.announcements.presence import worker_id
from tether.discovery.trust.enrolment import RedisEnrolment
from tether.discovery.trust.trusted_keys import TrustSnapshot
from tether.errors import WorkerRevoked
from tether.jobs import JobError, Priority
from tether.local.enrolment import EnrolLocalKeys
from tether.loops import Loop
from tether.orchestrator.trust_mirror import MirrorTrust
from tether.store import Store
from tether.store.fleet_keys import all_fleet_keys, enrol, revoke, trust_version
from tether.streams.token_log import read_events

POOL = "gpu.cpu.local.model-12345678"
ONE, TWO = public(KEY), public(OTHER_KEY)


class Stage:
    """One Redis namespace, two workers by hand, and a step that mirrors a database."""

    def __init__(self, server, namespace, folder):
        self.redis = redis.Redis.from_url(server.url)
        self.keys = Keys(namespace)
        self.clear()
        self.pools = Pools(self.redis, self.keys)
        self.store = Store(fresh_sqlite(folder / "tether.db")).open()
        self.enrolment = RedisEnrolment(self.redis, self.keys)
        self.mirror = MirrorTrust(self.store, self.enrolment, self.pools)
        self.worker = self.port(f"{worker_id(ONE)}.7")
        self.other = self.port(f"{worker_id(TWO)}.1")
        self.pools.tick(LEASE_MS, LEASE_MS)

    def clear(self):
        for key in self.redis.scan_iter(self.keys.prefix + ":*"):
            self.redis.delete(key)
        self.redis.set(self.keys.epoch, 1)

    def port(self, boot_id):
        port = HandWorker(self.redis, self.keys, boot_id)
        assert port.hello() == 1
        return port

    def place(self, *job_ids):
        placed = self.pools.place(
            [
                Dispatch(
                    job_id=job_id,
                    dispatch=1,
                    pool=POOL,
                    tenant="default",
                    priority=Priority.STANDARD,
                    weight=1.0,
                    deadline=0,
                    cost=1,
                    body=b'{"v":1}',
                )
                for job_id in job_ids
            ]
        )
        assert placed == [PlaceResult.PLACED] * len(job_ids)

    def enrol(self, key, name=""):
        return self.store.write_alone(enrol, key, name, NOW).result()

    def revoke(self, key):
        return self.store.write_alone(revoke, key, NOW).result()

    def in_redis(self):
        return (
            {key.decode(): name.decode() for key, name in self.redis.hgetall(self.keys.trust).items()},
            {worker.decode() for worker in self.redis.smembers(self.keys.revoked)},
        )

    def field(self, job_id, name):
        return self.redis.hget(self.keys.job(job_id), name).decode()

    def close(self):
        for port in (self.worker, self.other):
            port.close()
        self.pools.close()
        self.store.close()
        self.redis.close()


@pytest.fixture
def stage(shared_redis_server, namespace, tmp_path):
    opened = Stage(shared_redis_server, namespace, tmp_path)
    yield opened
    opened.close()


def draw(port, count=1):
    return list(port.draw(count, [POOL], busy=False).jobs)


def test_redis_gets_what_the_database_has_and_gets_it_again_after_a_loss(stage):
    stage.mirror()
    assert stage.in_redis() == ({}, set())
    stage.enrol(ONE, "one")
    stage.enrol(TWO)
    stage.revoke(TWO)
    held = ({ONE: "one"}, {worker_id(TWO)})
    for harm in (
        lambda: None,
        stage.clear,
        lambda: stage.redis.delete(stage.keys.revoked),
        lambda: stage.redis.hset(stage.keys.trust, TWO, "sneaked in"),
        lambda: stage.redis.set(stage.keys.trust_version, 1),
        lambda: stage.redis.set(stage.keys.trust_version, "no number"),
        lambda: stage.redis.set(stage.keys.trust, "of another type"),
        lambda: stage.redis.set(stage.keys.revoked, "of another type"),
    ):
        harm()
        stage.mirror()
        assert stage.in_redis() == held


def test_a_revocation_reaches_a_redis_that_is_full(redis_server, tmp_path):
    stage = Stage(redis_server, "full", tmp_path)
    try:
        stage.enrol(ONE, "one")
        stage.enrol(TWO)
        stage.mirror()
        stage.place("a")
        assert [job.job_id for job in draw(stage.worker)] == ["a"]
        stage.redis.config_set("maxmemory", 1)
        stage.revoke(ONE)
        stage.mirror()
        assert stage.in_redis() == ({TWO: ""}, {worker_id(ONE)})
        assert stage.field("a", "state") == "placed", "its job is taken from it"
        with pytest.raises(WorkerRevoked):
            draw(stage.worker)
    finally:
        stage.redis.config_set("maxmemory", 0)
        stage.close()


def test_nothing_is_written_while_nothing_differs(stage):
    stage.enrol(ONE)
    stage.mirror()
    before = stage.redis.info("commandstats").get("cmdstat_hset", {"calls": 0})["calls"]
    stage.mirror()
    assert stage.redis.info("commandstats")["cmdstat_hset"]["calls"] == before


def test_a_reader_without_a_database_sees_each_change_and_keeps_what_it_knows_where_redis_lost_it(stage):
    reader = RedisEnrolment(stage.redis, stage.keys)
    assert reader.look().enrolled == {}
    stage.enrol(ONE, "ä")
    stage.mirror()
    seen = reader.look()
    assert (seen.enrolled, seen.revoked) == ({ONE: "ä"}, frozenset())
    assert reader.look() is seen
    stage.clear()
    assert reader.look() is seen
    stage.redis.set(stage.keys.trust_version, "no number")
    assert reader.look() is None
    stage.revoke(ONE)
    stage.mirror()
    assert reader.look() == TrustSnapshot({}, frozenset({worker_id(ONE)}), seen.version + 1)


def test_a_reader_whose_redis_is_away_knows_nothing_new(redis_server):
    with redis.Redis.from_url(redis_server.url) as client:
        reader = RedisEnrolment(client, Keys("away"))
        redis_server.close()
        assert reader.look() is None


def test_a_revoked_worker_draws_nothing_and_others_go_on(stage):
    stage.place("a")
    stage.revoke(ONE)
    stage.mirror()
    for _ in range(2):
        with pytest.raises(WorkerRevoked, match=rf"{worker_id(ONE)}\.7 was revoked"):
            draw(stage.worker)
    assert [job.job_id for job in draw(stage.other)] == ["a"]


def test_every_life_of_a_revoked_worker_is_refused_until_it_is_trusted_again(stage):
    stage.place("a")
    stage.revoke(ONE)
    stage.mirror()
    next_life = stage.port(f"{worker_id(ONE)}.8")
    with pytest.raises(WorkerRevoked):
        draw(next_life)
    stage.store.write_alone(enrol, ONE, None, NOW, lifts_revocation=True).result()
    stage.mirror()
    assert [job.job_id for job in draw(next_life)] == ["a"]
    next_life.close()


def test_who_is_woken_and_was_revoked_leaves_the_job_to_the_next(stage):
    assert draw(stage.worker) == []
    stage.revoke(ONE)
    stage.place("a")
    assert stage.redis.llen(stage.keys.wake(stage.worker.boot_id)) == 1
    assert draw(stage.other, count=0) == []
    stage.redis.sadd(f"{stage.keys.prefix}:pool:{POOL}:idle", stage.other.boot_id)
    stage.redis.set(f"{stage.keys.prefix}:idle:{stage.other.boot_id}", POOL)
    stage.mirror()
    with pytest.raises(WorkerRevoked):
        draw(stage.worker)
    assert stage.redis.llen(stage.keys.wake(stage.other.boot_id)) == 1
    idle = stage.redis.smembers(f"{stage.keys.prefix}:pool:{POOL}:idle")
    assert stage.worker.boot_id.encode() not in idle


def test_what_a_revoked_worker_ran_goes_on_elsewhere_and_its_writes_are_fenced(stage):
    stage.place("a", "b", "c")
    (mine, too) = draw(stage.worker, 2)
    (others,) = draw(stage.other)
    stage.worker.append(growth(mine, 0))
    stage.revoke(ONE)
    stage.mirror()
    stage.worker.beat([Pulse("a", mine.fence, True)], expect=WriteStatus.FENCED)
    stage.worker.append(growth(mine, 1), expect=WriteStatus.FENCED)
    stage.worker.finish(growth(mine, 1), input_tokens=1, reason="stop", expect=WriteStatus.FENCED)
    error = JobError("x", "x", retryable=True)
    stage.worker.fail(growth(too), kind="failed", error=error, expect=WriteStatus.FENCED)
    stage.other.beat([Pulse("c", others.fence, True)])
    again = draw(stage.other, 2)
    assert {job.job_id: job.fence.attempt for job in again} == {"a": 2, "b": 2}
    assert [job.deaths for job in again] == [0, 0]
    assert stage.redis.hgetall(f"{stage.keys.prefix}:drawn:{stage.worker.boot_id}") == {}


def test_what_a_revoked_worker_writes_counts_no_more_even_before_its_jobs_are_taken(stage):
    stage.place("a", "b", "c", "d")
    mine = draw(stage.worker, 3)
    (others,) = draw(stage.other)
    stage.revoke(ONE)
    stage.redis.sadd(stage.keys.revoked, worker_id(ONE))
    error = JobError("x", "x", retryable=True)
    first, second, third = mine
    # Whatever stands before it in the call.
    both = [Pulse(others.job_id, others.fence, True), Pulse(first.job_id, first.fence, True)]
    assert RedisWorkerPort.beat(stage.worker, both) == [WriteStatus.OK, WriteStatus.FENCED]
    written = RedisWorkerPort.append_many(stage.worker, [growth(others, 1), growth(first, 1)])
    assert [one.answer for one in written] == [WriteStatus.OK, WriteStatus.FENCED]
    stage.worker.finish(growth(first, 1), expect=WriteStatus.FENCED)
    stage.worker.fail(growth(second, 1), kind="failed", error=error, expect=WriteStatus.FENCED)
    stage.worker.release(growth(third, 1))
    events = [
        event.kind for job in mine for event in read_events(stage.redis.xrange(stage.keys.stream(job.job_id)))
    ]
    assert events == ["started"] * 3
    assert not stage.redis.exists(stage.keys.outcomes)
    stage.mirror()
    again = draw(stage.other, 3)
    assert {(job.job_id, job.offset, job.fence.attempt) for job in again} == {
        (job.job_id, 0, 2) for job in mine
    }


def test_jobs_of_revoked_workers_are_found_among_many(stage):
    names = [f"job-{number}" for number in range(1_100)]
    stage.place(*names)
    mine = draw(stage.worker, 1_000)
    assert len(draw(stage.other, 100)) == 100
    stage.revoke(ONE)
    stage.mirror()
    states = [stage.field(job.job_id, "state") for job in mine]
    assert states == ["placed"] * 1_000
    assert stage.redis.zcard(stage.keys.leases) == 100


def test_another_workers_job_is_never_taken_whoever_asks(stage):
    """Between a look and the script a job may become another worker's."""
    stage.place("a")
    (job,) = draw(stage.other)
    stage.revoke(ONE)
    stage.mirror()
    assert stage.pools._lines.run("pool/revoke", "a", "no-such-job") == []
    stage.other.beat([Pulse("a", job.fence, True)])


def test_a_mirror_that_begins_takes_what_the_one_before_it_left(stage):
    stage.place("a")
    assert len(draw(stage.worker)) == 1
    stage.revoke(ONE)
    stage.enrolment.write(TrustSnapshot({}, frozenset({worker_id(ONE)}), stage.store.read(trust_version)))
    assert stage.field("a", "state") == "running"
    stage.mirror()
    assert stage.field("a", "state") == "placed"


def test_what_a_revoked_worker_drew_while_redis_had_lost_everything_is_taken_from_it(stage):
    stage.revoke(ONE)
    stage.mirror()
    stage.clear()
    stage.place("a")
    assert len(draw(stage.worker)) == 1
    stage.mirror()
    assert stage.field("a", "state") == "placed"


def test_local_keys_are_enrolled_when_they_come_and_a_revoked_one_stays_so(stage, tmp_path):
    folder = tmp_path / "identity"
    step = EnrolLocalKeys(stage.store, folder, now_ms=lambda: NOW)
    step()
    folder.mkdir()
    (folder / "worker-1.pub").write_text(ONE)
    (folder / "operator.pub").write_text(public(SigningKey(b"3" * 32)))
    step()
    stage.revoke(ONE)
    (folder / "worker-2.pub").write_text(TWO)
    step()
    EnrolLocalKeys(stage.store, folder, now_ms=lambda: NOW + 1)()
    assert {key.name: key.revoked_at for key in stage.store.read(all_fleet_keys)} == {
        "worker-1": NOW,
        "worker-2": None,
    }


def test_the_loop_that_enrols_local_keys_ends_with_its_thread(stage, tmp_path):
    (tmp_path / "worker-1.pub").write_text(ONE)
    loop = Loop("enrol-local", EnrolLocalKeys(stage.store, tmp_path, now_ms=lambda: NOW))
    loop.start()
    try:
        eventually(lambda: stage.store.read(all_fleet_keys), PATIENCE_SECONDS, "the key is enrolled")
    finally:
        loop.stop()
    assert not any(thread.name == "tether-enrol-local" for thread in threading.enumerate())


def test_an_orchestrator_mirrors_what_is_enrolled_counts_it_and_mends_a_redis_that_lost_all():
    with Cluster() as cluster:
        orchestrator = cluster.orchestrator()
        assert "trust-mirror" in orchestrator.loops
        reader = RedisEnrolment(cluster.redis, cluster.keys)
        with Store(cluster.settings.database.url) as store:
            store.write_alone(enrol, ONE, "one", NOW).result()
            store.write_alone(revoke, TWO, NOW).result()
        eventually(lambda: ONE in reader.look().enrolled, PATIENCE_SECONDS, "Redis has the keys")
        cluster.redis.flushall()
        eventually(
            lambda: cluster.redis.hgetall(cluster.keys.trust), PATIENCE_SECONDS, "Redis has the keys again"
        )
        assert cluster.redis.smembers(cluster.keys.revoked) == {worker_id(TWO).encode()}


def test_the_gateway_s_side_trusts_what_the_database_has():
    with Cluster() as cluster, ControlPlane(cluster.settings) as plane:
        assert not plane.trusted(ONE)
        plane.store.write_alone(enrol, ONE, "", NOW).result()
        eventually(lambda: plane.trusted(ONE), PATIENCE_SECONDS, "the key counts")
        plane.store.write_alone(revoke, ONE, NOW).result()
        eventually(lambda: not plane.trusted(ONE), PATIENCE_SECONDS, "the key counts no longer")
    assert not any(thread.name == "tether-trust" for thread in threading.enumerate())


def test_a_revoked_worker_process_says_so_and_its_job_goes_on_at_another_one():
    with Cluster(models={"counter": (40, 400)}) as cluster:
        cluster.orchestrator()
        first = cluster.start_worker(threads=1)
        (revoked,) = (file.read_text().strip() for file in (cluster.folder / "identity").glob("*.pub"))
        handle = cluster.client().submit("counter", "count")
        running = f"{worker_id(revoked)}.1".encode()
        eventually(
            lambda: cluster.redis.hget(cluster.keys.job(handle.job_id), "worker") == running,
            PATIENCE_SECONDS,
            "the first worker runs the job",
        )
        with Store(cluster.settings.database.url) as store:
            store.write_alone(revoke, revoked, NOW).result()
        first.wait_for_line("was revoked: it gets no more jobs", within=PATIENCE_SECONDS)
        second = cluster.start_worker(threads=1)
        eventually(
            lambda: cluster.redis.hget(cluster.keys.job(handle.job_id), "worker") != running,
            PATIENCE_SECONDS,
            "the second worker runs the job",
        )
        assert sum("was revoked" in line for line in first.lines) == 1
        assert (first.stop(), second.stop()) == (0, 0)
