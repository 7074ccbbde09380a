"""A namespace of pool jobs on a real Redis, with everything that a test does by hand."""

import contextlib

import redis

from support.hand_worker import HandWorker
from tether.broker.keys import Keys
from tether.broker.pools.dispatches import Dispatch, PlaceResult
from tether.broker.pools.pools import Pools
from tether.discovery.over_redis.queue_evidence import QueueEvidence
from tether.jobs import JobState, Priority
from tether.streams.token_log import read_events

POOL = "gpu.cpu.local.model-12345678"
OTHER = "gpu.cpu.local.other-12345678"
LEASE_MS = 600_000
AGE_MS = 600_000


def note_recent_tick(client, keys):
    """Let the next tick take what ran out, however long ago the last one was: after a pause it would extend
    all leases instead."""
    client.hset(keys.lease_tick, "at", 2**53 - 1)


class Stage:
    def __init__(self, server, namespace):
        self.redis = redis.Redis.from_url(server.url)
        self.keys = Keys(namespace)
        for key in self.redis.scan_iter(self.keys.prefix + ":*"):
            self.redis.delete(key)
        self.redis.set(self.keys.epoch, 1)
        self.pools = Pools(self.redis, self.keys)
        self.ports = []
        self.tick()

    def place(self, job_id, **changes):
        self.place_all([job_id], **changes)

    def place_all(self, job_ids, *, dispatch=1, expect=PlaceResult.PLACED, **changes):
        given = {
            "pool": POOL,
            "tenant": "default",
            "priority": Priority.STANDARD,
            "weight": 1.0,
            "deadline": 0,
            "cost": 1,
            "body": b'{"v":1}',
        }
        given |= changes
        placed = self.pools.place([Dispatch(job_id=job_id, dispatch=dispatch, **given) for job_id in job_ids])
        assert placed == [expect] * len(job_ids)

    def worker(self, name):
        port = HandWorker(self.redis, self.keys, name, LEASE_MS)
        assert port.hello() == 1
        self.ports.append(port)
        return port

    def tick(self, age_ms=AGE_MS, standard_age_ms=AGE_MS, standard_share=0.1):
        """A tick of the lease loop, as if the last one had only just been."""
        note_recent_tick(self.redis, self.keys)
        return self.pools.tick(LEASE_MS, age_ms, standard_age_ms, standard_share)

    def cancel(self, job_id):
        (answer,) = self.pools.cancel_many([(job_id, JobState.CANCELLED)])
        return answer

    def lose(self, job_id):
        """Let the lease of a running attempt run out."""
        assert self.redis.zadd(self.keys.leases, {f"j {job_id}": 1}, xx=True, ch=True) == 1
        return self.tick()

    def die(self, worker, how="signal 11"):
        """Its supervisor saw the process of this worker end; it is heard."""
        assert worker.gone(worker.boot_id, worker.process, how)

    def run_for(self, job_id, milliseconds, now_ms=None):
        """The attempt that runs began so long ago, by Redis's clock or the one of the scripts."""
        if now_ms is None:
            seconds, microseconds = self.redis.time()
            now_ms = seconds * 1000 + microseconds // 1000
        self.redis.hset(self.keys.job(job_id), "drawn_at", now_ms - milliseconds)

    def be_patient(self, pool=POOL):
        """The suspects of a pool have waited for long."""
        assert self.redis.hset(f"{self.keys.prefix}:quarantine:{pool}", "since", "1") == 0

    def held_back(self):
        """Who is held back from which pools, as placement reads it."""
        with contextlib.closing(QueueEvidence(self.redis, self.keys)) as evidence:
            return evidence.read().held

    def field(self, job_id, name):
        value = self.redis.hget(self.keys.job(job_id), name)
        return value and value.decode()

    def events(self, job_id):
        return [event.kind for event in read_events(self.redis.xrange(self.keys.stream(job_id)))]

    def outcomes(self):
        return [
            (fields[b"job"].decode(), fields[b"kind"].decode())
            for _, fields in self.redis.xrange(self.keys.outcomes)
        ]

    def close(self):
        for port in self.ports:
            port.close()
        self.pools.close()
        self.redis.close()


def draw(port, count=1, pools=(POOL,), busy=False):
    return list(port.draw(count, pools, busy=busy).jobs)


def ids(jobs):
    return [job.job_id for job in jobs]
