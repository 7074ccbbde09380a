"""Since when Redis knows workers, over a real one."""

import contextlib

import pytest
import redis

from support.presences import OTHER_KEY, envelope, presence
from tether.broker.keys import Keys
from tether.discovery.announcements.presence import WorkerState
from tether.discovery.over_redis.queue_evidence import QueueEvidence
from tether.discovery.over_redis.redis_presence import RedisPresence

WORKER = presence().worker_id


class Known:
    def __init__(self, client, namespace):
        self.client, self.keys = client, Keys(namespace)
        self.port, self.evidence = RedisPresence(client, self.keys), QueueEvidence(client, self.keys)

    def announce(self, **changes):
        assert self.port.announce(envelope(**changes), presence(**changes))
        return self.evidence.read()

    def move(self, *times):
        """Let it have been known since other times."""
        self.client.hset(f"{self.keys.prefix}:fleet:since", WORKER, " ".join(map(str, times)))

    def close(self):
        self.port.close()
        self.evidence.close()


@pytest.fixture
def known(shared_redis_server, namespace):
    with (
        redis.Redis.from_url(shared_redis_server.url) as client,
        contextlib.closing(Known(client, namespace)) as opened,
    ):
        yield opened


def test_a_worker_is_known_since_its_first_announcement(known):
    seen = known.announce()
    (first, former, latest) = seen.known[WORKER]
    assert first == former == latest
    assert 0 <= seen.now - first < 60_000
    known.move(1, 2, 3)
    assert known.announce(sequence=2).known[WORKER] == (1, 2, 3)


def test_each_start_of_its_process_is_known_and_the_one_before_it(known):
    known.announce()
    known.move(1, 2, 3)
    seen = known.announce(boot=2)
    assert seen.known[WORKER][:2] == (1, 3)
    assert 0 <= seen.now - seen.known[WORKER].latest < 60_000


def test_a_goodbye_makes_no_worker_new(known):
    known.announce()
    known.move(1, 2, 3)
    known.announce(sequence=2, state=WorkerState.STOPPED)
    assert known.announce(boot=2, sequence=1).known[WORKER][:2] == (1, 3)


def test_a_worker_that_was_known_to_an_older_version_is_known_from_now_on(known):
    known.announce()
    known.client.delete(f"{known.keys.prefix}:fleet:since")
    assert WORKER not in known.evidence.read().known
    seen = known.announce(sequence=2)
    assert 0 <= seen.now - seen.known[WORKER].first < 60_000


def test_what_is_known_of_a_worker_goes_with_the_rest(known):
    known.announce()
    known.client.zadd(known.keys.fleet_expiry, {WORKER: 1})
    assert known.port.announce(envelope(OTHER_KEY), presence(OTHER_KEY))
    assert set(known.evidence.read().known) == {presence(OTHER_KEY).worker_id}


def test_a_worker_of_a_former_version_is_seen_by_what_its_draws_leave_behind(known):
    known.announce()
    idle = f"{known.keys.prefix}:idle:{WORKER}.1"
    known.client.set(idle, "pool.a pool.b", px=50_000)
    seen = known.evidence.read()
    assert set(seen.asked) == {(WORKER, "pool.a"), (WORKER, "pool.b")}
    assert all(10_000 <= seen.now - at < 60_000 for at in seen.asked.values())
    known.client.delete(idle)
    known.client.hset(f"{known.keys.prefix}:drawn:{WORKER}.1", "job", 1)
    seen = known.evidence.read()
    assert (dict(seen.asked), set(seen.renewed)) == ({}, {WORKER})
    known.client.hset(known.keys.asked, WORKER, "5 pool.a")
    seen = known.evidence.read()
    assert (dict(seen.asked), dict(seen.renewed)) == ({(WORKER, "pool.a"): 5}, {})


@pytest.mark.parametrize("name", ["presence", "expiry", "order", "since", "unroutable"])
def test_a_key_of_another_type_keeps_no_worker_from_announcing_itself(known, name):
    key = f"{known.keys.prefix}:fleet:{name}"
    known.announce()
    known.client.delete(key)
    known.client.set(key, "x")
    assert known.announce(sequence=2).known.keys() == {WORKER}
    assert known.announce(sequence=3).known.keys() == {WORKER}


@pytest.mark.parametrize("name", ["seen", "asked"])
def test_who_cannot_read_what_workers_did_judges_nobody(known, name):
    known.client.set(getattr(known.keys, name), "x")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        known.evidence.read()


@pytest.mark.parametrize("name", ["fleet:order", "fleet:since", "core:lease_tick"])
def test_what_workers_did_is_read_whatever_stands_beside_it(known, name):
    known.client.hset(known.keys.asked, WORKER, "5 pool.a")
    known.client.set(f"{known.keys.prefix}:{name}", "x")
    assert known.evidence.read().asked == {(WORKER, "pool.a"): 5}
