"""Announcements from a worker's reporter over a real Redis to the view of the fleet."""

import threading
import time

import pytest
import redis

from support.presences import KEY, OTHER_KEY, envelope, presence, public
from support.waiting import PATIENCE_SECONDS, eventually
from tether.broker.keys import Keys
from tether.discovery.announcements.presence import WorkerState
from tether.discovery.announcements.wire import verify_envelope
from tether.discovery.fleet.fleet_view import FleetView
from tether.discovery.over_redis.redis_presence import RedisPresence
from tether.discovery.static import StaticPresence
from tether.discovery.trust.identity import Identity
from tether_workers.presence.health import HealthReporter, WorkerStatus

WORKER, OTHER = presence().worker_id, presence(OTHER_KEY).worker_id


class FakeClock:
    def __init__(self):
        self.now = 1_000

    def __call__(self):
        return self.now


@pytest.fixture
def client(shared_redis_server):
    with redis.Redis.from_url(shared_redis_server.url) as client:
        yield client


@pytest.fixture
def port(client, namespace):
    port = RedisPresence(client, Keys(namespace))
    yield port
    port.close()


@pytest.fixture
def view_of():
    views = []

    def start(source, trusted=lambda key: True, **options):
        view = FleetView(source, trusted, **options)
        views.append(view)
        view.start()
        return view

    yield start
    for view in views:
        view.stop()
        assert not any(follower.loop.is_alive for follower in view._followers.values())


@pytest.fixture
def identity(tmp_path):
    identity = Identity.claim(tmp_path)
    yield identity
    identity.close()


@pytest.fixture
def report(identity):
    reporters = []

    def start(port, interval=PATIENCE_SECONDS, describe=None, start=True):
        status = WorkerStatus(gpu_class="cpu", region="local", slots=2, free=1)
        reporter = HealthReporter(identity, port, describe or (lambda: status), interval)
        reporters.append(reporter)
        if start:
            reporter.start()
        return reporter

    yield start
    for reporter in reporters:
        reporter.stop()
        assert not reporter.loop.is_alive


def now_ms():
    return time.time_ns() // 1_000_000


def announce(port, key=KEY, **changes):
    changes = {"issued_at": now_ms(), **changes}
    return port.announce(envelope(key, **changes), presence(key, **changes))


def next_presences(news, count):
    """The next announcements of a subscription, at least so many."""
    found = []
    while len(found) < count:
        heard = news.next(PATIENCE_SECONDS)
        assert heard, f"only {len(found)} of {count}"
        found += [verify_envelope(one.envelope, lambda key: True) for one in heard]
    return found


def known(port):
    return {
        verify_envelope(heard.envelope, lambda key: True).worker_id: heard.life_ms
        for heard in port.read_all()
    }


@pytest.mark.parametrize("kind", ["redis", "static"])
def test_only_a_strictly_newer_announcement_counts(port, kind):
    port = port if kind == "redis" else StaticPresence()
    assert announce(port, boot=2, sequence=10)
    for boot, sequence in ((2, 10), (2, 9), (1, 99)):
        assert not announce(port, boot=boot, sequence=sequence, free=0)
    assert announce(port, boot=2, sequence=11)
    assert announce(port, boot=3, sequence=1)


@pytest.mark.parametrize("kind", ["redis", "static"])
def test_the_very_same_announcement_is_no_conflict(port, kind):
    port = port if kind == "redis" else StaticPresence()
    for state in (WorkerState.SERVING, WorkerState.STOPPED):
        order = {"sequence": 2 if state is WorkerState.STOPPED else 1, "state": state, "issued_at": 1}
        assert announce(port, **order)
        assert announce(port, **order)
    assert not port.read_all()


def test_an_announcement_has_fifteen_seconds_by_redis_s_clock(port):
    announce(port)
    (life,) = known(port).values()
    assert 0 < life <= 15_000


def test_an_older_announcement_does_not_extend_a_life(port, client):
    announce(port, sequence=5)
    expiry = client.zscore(port._keys.fleet_expiry, WORKER)
    announce(port, sequence=5)
    announce(port, sequence=4)
    assert client.zscore(port._keys.fleet_expiry, WORKER) == expiry


def test_what_is_for_another_topic_is_left_out(port):
    assert announce(port, topic="tether/models/tiny/1/local")
    assert not port.read_all()
    assert announce(port, region="elsewhere")
    assert set(known(port)) == {WORKER}


def test_what_has_expired_is_not_read(client):
    port = RedisPresence(client, Keys("expires"), expiry_ms=1)
    announce(port)
    eventually(lambda: not port.read_all(), within=PATIENCE_SECONDS, what="it has expired")


@pytest.mark.parametrize("kind", ["redis", "static"])
def test_a_goodbye_removes_the_worker_at_once_and_is_told(port, kind):
    port = port if kind == "redis" else StaticPresence()
    news = port.subscribe()
    announce(port)
    announce(port, OTHER_KEY)
    announce(port, sequence=2, state=WorkerState.STOPPED)
    assert set(known(port)) == {OTHER}
    assert [one.state.value for one in next_presences(news, 3)] == ["serving", "serving", "stopped"]
    assert not news.next(0.01)
    assert not announce(port, sequence=1)
    news.close()


def test_a_view_knows_those_from_before_and_hears_of_those_that_come_and_go(port, view_of):
    announce(port)
    view = view_of(port)
    assert view.wait_for(lambda fleet: set(fleet.members) == {WORKER}, PATIENCE_SECONDS)
    announce(port, OTHER_KEY)
    assert view.wait_for(lambda fleet: set(fleet.members) == {WORKER, OTHER}, PATIENCE_SECONDS)
    assert [pool.workers for pool in view.pools()] == [2]
    announce(port, sequence=2, state=WorkerState.STOPPED)
    assert view.wait_for(lambda fleet: set(fleet.members) == {OTHER}, PATIENCE_SECONDS)


def test_a_view_takes_no_word_of_strangers_and_no_nonsense(port, client, view_of):
    view = view_of(port, trusted=lambda key: key == public(KEY))
    assert view.wait_until_read(PATIENCE_SECONDS)
    announce(port, OTHER_KEY)
    client.publish(port._keys.fleet_news, b"nonsense")
    announce(port)
    assert view.wait_for(lambda fleet: WORKER in fleet.members, PATIENCE_SECONDS)
    assert set(view.fleet.members) == {WORKER}


def test_a_view_tells_of_changes_and_a_failing_listener_harms_nobody(view_of):
    source = StaticPresence()
    view = view_of(source)
    heard, told = [], threading.Event()
    view.on_change(lambda fleet: 1 / 0)
    view.on_change(lambda fleet: (heard.append(fleet), told.set()))
    announce(source)
    assert told.wait(PATIENCE_SECONDS)
    assert set(heard[0].members) == {WORKER}


def test_a_listener_that_was_taken_off_hears_nothing_more(view_of):
    source = StaticPresence()
    view = view_of(source)
    heard = []
    forget = view.on_change(heard.append)
    later = threading.Event()
    view.on_change(lambda fleet: later.set())
    forget()
    forget()
    announce(source)
    assert later.wait(PATIENCE_SECONDS)
    assert not heard


def test_members_of_a_view_expire_by_themselves(view_of):
    clock = FakeClock()
    source = StaticPresence(expiry_ms=15_000, clock=clock)
    view = view_of(source, clock=clock)
    announce(source)
    assert view.wait_for(lambda fleet: WORKER in fleet.members, PATIENCE_SECONDS)
    gone = threading.Event()
    view.on_change(lambda fleet: gone.set() if not fleet.members else None)
    clock.now += 15_000
    assert not view.fleet.members
    assert gone.wait(PATIENCE_SECONDS)


def test_a_worker_marked_unroutable_makes_no_pool_until_it_is_heard_of_again(view_of):
    source = StaticPresence()
    view = view_of(source)
    announce(source)
    assert view.wait_for(lambda fleet: WORKER in fleet.members, PATIENCE_SECONDS)
    view.distrust_boot(f"{WORKER}.1")
    assert not view.pools()
    announce(source, sequence=2)
    assert view.wait_for(lambda fleet: bool(view.pools()), PATIENCE_SECONDS)


def test_a_view_that_stops_ends_its_thread(view_of):
    view = view_of(StaticPresence())
    view.stop()
    assert "tether-fleet" not in [thread.name for thread in threading.enumerate()]


def test_a_reporter_announces_at_once_on_change_and_says_goodbye(port, view_of, report, identity):
    view = view_of(port)
    free = [2]
    reporter = report(
        port, describe=lambda: WorkerStatus(gpu_class="cpu", region="local", slots=2, free=free[0])
    )
    assert view.wait_for(lambda fleet: identity.worker_id in fleet.members, PATIENCE_SECONDS)
    first = view.fleet.members[identity.worker_id].presence
    free[0] = 1
    reporter.announce_now()
    assert view.wait_for(lambda fleet: fleet.members[identity.worker_id].presence.free == 1, PATIENCE_SECONDS)
    second = view.fleet.members[identity.worker_id].presence
    assert second.order > first.order
    assert second.nonce != first.nonce
    assert second.boot_id == identity.boot_id
    reporter.stop()
    assert view.wait_for(lambda fleet: not fleet.members, PATIENCE_SECONDS)
    assert "tether-health" not in [thread.name for thread in threading.enumerate()]


def test_a_reporter_announces_in_each_interval(report, identity):
    source = StaticPresence()
    news = source.subscribe()
    report(source, interval=0.01)
    sequences = [one.sequence for one in next_presences(news, 5)]
    assert sequences[:5] == [1, 2, 3, 4, 5]


def test_a_reporter_that_cannot_describe_the_worker_goes_on(report):
    source = StaticPresence()
    news = source.subscribe()
    calls = []

    def describe():
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("not now")
        return WorkerStatus(gpu_class="cpu", region="local", slots=1, free=1)

    report(source, interval=0.01, describe=describe)
    assert next_presences(news, 1)


def test_nothing_is_announced_after_a_goodbye(report):
    source = StaticPresence()
    news = source.subscribe()
    reporter = report(source, start=False)
    reporter.goodbye()
    assert [one.state for one in next_presences(news, 1)] == [WorkerState.STOPPED]
    reporter.start()
    reporter.stop()
    assert not news.next(0.01)


def test_reporter_and_view_go_on_after_an_outage(redis_server, view_of, report, identity):
    with redis.Redis.from_url(redis_server.url) as client:
        port = RedisPresence(client, Keys("outage"))
        view = view_of(port)
        reporter = report(port, interval=0.05)
        worker = identity.worker_id
        assert view.wait_for(lambda fleet: worker in fleet.members, PATIENCE_SECONDS)
        redis_server.kill()
        reporter.announce_now()
        assert set(view.fleet.members) == {worker}
        before = view.fleet.members[worker].presence.sequence
        redis_server.start()
        assert view.wait_for(
            lambda fleet: worker in fleet.members and fleet.members[worker].presence.sequence > before,
            PATIENCE_SECONDS,
        )
        redis_server.kill()
        reporter.stop()
        port.close()
