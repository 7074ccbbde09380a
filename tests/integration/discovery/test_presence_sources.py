"""A view of the fleet that follows several sources at once."""

import logging
import threading
import time
from contextlib import ExitStack

import pytest
import redis
from nacl.signing import SigningKey

from support.presences import KEY, OTHER_KEY, envelope, presence
from support.waiting import PATIENCE_SECONDS, eventually, join
from tether.broker.keys import Keys
from tether.discovery.announcements.presence import WorkerState
from tether.discovery.fleet.fleet_view import FleetView
from tether.discovery.over_redis.redis_presence import RedisPresence
from tether.discovery.static import StaticPresence
from tether.telemetry.metrics import REGISTRY

WORKER, OTHER = presence().worker_id, presence(OTHER_KEY).worker_id


class FakeClock:
    def __init__(self):
        self.now = 1_000

    def __call__(self):
        return self.now


class Ledger:
    """What a view tells of announcements that counted."""

    def __init__(self):
        self.told = []

    def __call__(self, source, batch):
        self.told += [(source, one.presence.worker_id, one.presence.sequence, one.life_ms) for one in batch]


@pytest.fixture
def start_view():
    with ExitStack() as stack:

        def start(sources, trusted=lambda key: True, **options):
            view = FleetView(sources, trusted, **options)
            view.start()
            stack.callback(view.stop)
            return view

        yield start


@pytest.fixture
def away(redis_server):
    """A source at a Redis that is not there."""
    with redis.Redis.from_url(redis_server.url) as client:
        port = RedisPresence(client, Keys("away"))
        redis_server.kill()
        yield port
        port.close()


def tell(source, key=KEY, **changes):
    changes = {"issued_at": time.time_ns() // 1_000_000, **changes}
    return source.announce(envelope(key, **changes), presence(key, **changes))


def counted(source, outcome):
    labels = {"source": source, "outcome": outcome}
    return REGISTRY.value_of("tether_presence_announcements_total", labels) or 0


def test_each_source_has_a_thread_of_its_own_that_ends(start_view):
    view = start_view({"left": StaticPresence(), "right": StaticPresence()})
    names = {"tether-fleet-left", "tether-fleet-right"}
    assert names <= {thread.name for thread in threading.enumerate()}
    view.stop()
    assert not names & {thread.name for thread in threading.enumerate()}


def test_what_both_sources_say_counts_once_and_is_told_once(start_view):
    left, right, told = StaticPresence(), StaticPresence(), Ledger()
    view = start_view({"left": left, "right": right}, on_accepted=told, expiry_ms=15_000)
    issued_at = time.time_ns() // 1_000_000
    tell(left, issued_at=issued_at)
    assert view.wait_for(lambda fleet: WORKER in fleet.members, PATIENCE_SECONDS)
    # The same, something as new, and something newer.
    tell(right, issued_at=issued_at)
    tell(right, sequence=2)
    assert view.wait_for(lambda fleet: fleet.members[WORKER].presence.sequence == 2, PATIENCE_SECONDS)
    tell(left, sequence=2, free=0)
    tell(left, OTHER_KEY)
    assert view.wait_for(lambda fleet: OTHER in fleet.members, PATIENCE_SECONDS)
    eventually(lambda: len(told.told) == 3, PATIENCE_SECONDS, "all are told")
    assert told.told == [
        ("left", WORKER, 1, 15_000),
        ("right", WORKER, 2, 15_000),
        ("left", OTHER, 1, 15_000),
    ]


def test_bytes_that_are_known_are_neither_looked_at_nor_counted_again(start_view):
    asked = []
    source, again = StaticPresence(), StaticPresence()
    view = start_view({"one": source}, trusted=lambda key: asked.append(key) or True)
    before = counted("one", "duplicate"), counted("one", "accepted"), counted("one", "old")
    same = {"issued_at": time.time_ns() // 1_000_000}
    tell(source, **same)
    assert view.wait_for(lambda fleet: WORKER in fleet.members, PATIENCE_SECONDS)
    view._followers["one"]._listener.hear("one", [*again.read_all(), *source.read_all()])
    assert len(asked) == 1
    view._followers["one"]._listener.hear("one", [])
    # What is new bytes, but no newer announcement, is looked at.
    tell(again, **same, free=0)
    view._followers["one"]._listener.hear("one", again.read_all())
    assert len(asked) == 2
    assert counted("one", "duplicate") >= before[0] + 1
    eventually(
        lambda: (counted("one", "accepted"), counted("one", "old")) == (before[1] + 1, before[2] + 1),
        PATIENCE_SECONDS,
        "one is accepted, one is old",
    )


def test_refusals_are_counted_by_their_reason(start_view):
    source = StaticPresence()
    before = counted("strange", "untrusted")
    start_view({"strange": source}, trusted=lambda key: False)
    tell(source)
    eventually(lambda: counted("strange", "untrusted") > before, PATIENCE_SECONDS, "it is counted")


def test_what_is_of_another_network_or_for_another_topic_does_not_count(start_view):
    source = StaticPresence()
    presence_topic = "tether/presence/local"
    view = start_view({"one": source}, network="ab" * 16, topics=lambda topic: topic == presence_topic)
    assert view.wait_until_read(PATIENCE_SECONDS)
    before = counted("one", "network"), counted("one", "topic")
    tell(source)
    tell(source, sequence=2, network="ab" * 16, topic="tether/models/tiny/1/local")
    tell(source, OTHER_KEY, network="ab" * 16)
    assert view.wait_for(lambda fleet: OTHER in fleet.members, PATIENCE_SECONDS)
    assert set(view.fleet.members) == {OTHER}
    assert counted("one", "network") > before[0]
    assert counted("one", "topic") > before[1]


def test_a_worker_counts_as_soon_as_it_is_trusted_without_announcing_itself_anew(start_view):
    trusted = threading.Event()
    clock = FakeClock()
    source = StaticPresence()
    tell(source)
    view = start_view({"one": source}, trusted=lambda key: trusted.is_set(), clock=clock)
    assert view.wait_until_read(PATIENCE_SECONDS)
    assert not view.fleet.members
    trusted.set()
    clock.now += 5_000
    assert view.wait_for(lambda fleet: WORKER in fleet.members, PATIENCE_SECONDS)


def test_a_worker_whose_clock_is_wrong_does_not_count_and_is_named_once(start_view, caplog):
    clock = [2_000_000_000_000]
    source = StaticPresence()
    view = start_view({"one": source}, wall_clock=lambda: clock[0])
    with caplog.at_level(logging.WARNING, "tether.fleet"):
        for sequence, off in enumerate((600_001, -600_001), 1):
            tell(source, sequence=sequence, issued_at=clock[0] + off)
        tell(source, OTHER_KEY, issued_at=clock[0] + 600_000)
        assert view.wait_for(lambda fleet: OTHER in fleet.members, PATIENCE_SECONDS)
    assert set(view.fleet.members) == {OTHER}
    complaints = [record for record in caplog.records if "clock" in record.getMessage()]
    assert len(complaints) == 1
    assert WORKER in complaints[0].getMessage()
    # It counts once its clock is right.
    tell(source, sequence=3, issued_at=clock[0])
    assert view.wait_for(lambda fleet: WORKER in fleet.members, PATIENCE_SECONDS)


def test_a_listener_of_announcements_that_fails_harms_nobody(start_view):
    source = StaticPresence()
    view = start_view({"one": source}, on_accepted=lambda source, batch: 1 / 0)
    tell(source)
    assert view.wait_for(lambda fleet: WORKER in fleet.members, PATIENCE_SECONDS)
    tell(source, OTHER_KEY)
    assert view.wait_for(lambda fleet: OTHER in fleet.members, PATIENCE_SECONDS)


def test_who_waits_for_the_first_look_does_not_wait_for_a_source_that_is_away(start_view, away):
    source = StaticPresence()
    tell(source)
    view = start_view({"near": source, "away": away})
    assert not view.wait_until_read(PATIENCE_SECONDS)
    assert view.wait_for(lambda fleet: WORKER in fleet.members, PATIENCE_SECONDS)
    assert view._followers["away"].is_away


def test_who_waits_for_the_first_look_is_told_that_the_only_source_is_away(start_view, away):
    view = FleetView(away, lambda key: True)
    answers = []
    waiter = threading.Thread(target=lambda: answers.append(view.wait_until_read(3_600)), daemon=True)
    waiter.start()
    view.start()
    join(waiter)
    assert answers == [False]
    view.stop()


def test_how_long_ago_a_source_was_in_touch_is_known(start_view, away):
    clock = FakeClock()
    source = StaticPresence()
    view = FleetView({"near": source, "away": away}, lambda key: True, clock)
    assert view.staleness_ms() is None
    view.start()
    try:
        view.wait_until_read(PATIENCE_SECONDS)
        eventually(lambda: view.staleness_ms("near") == 0, PATIENCE_SECONDS, "all was read")
        clock.now += 4_000
        assert view.staleness_ms("near") == view.staleness_ms() == 4_000
        assert view.staleness_ms("away") is None
        tell(source)
        assert view.wait_for(lambda fleet: WORKER in fleet.members, PATIENCE_SECONDS)
        assert view.staleness_ms() == 0
    finally:
        view.stop()


def test_a_fleet_whose_source_is_away_runs_out_by_itself(redis_server, start_view):
    clock = FakeClock()
    with redis.Redis.from_url(redis_server.url) as client:
        port = RedisPresence(client, Keys("away"))
        tell(port)
        view = start_view({"redis": port}, clock=clock)
        assert view.wait_for(lambda fleet: WORKER in fleet.members, PATIENCE_SECONDS)
        redis_server.kill()
        eventually(lambda: view._followers["redis"].is_away, PATIENCE_SECONDS, "the outage is noticed")
        assert WORKER in view.fleet.members
        clock.now += 15_000
        assert not view.fleet.members
        assert not view.pools()
        redis_server.start()
        eventually(lambda: not view._followers["redis"].is_away, PATIENCE_SECONDS, "it is back")
        assert tell(port, sequence=2)
        assert view.wait_for(lambda fleet: WORKER in fleet.members, PATIENCE_SECONDS)
        view.stop()
        port.close()


def test_many_workers_come_and_go_in_batches(start_view):
    keys = [SigningKey(bytes([7]) * 30 + number.to_bytes(2, "big")) for number in range(300)]
    source, calls = StaticPresence(), []
    for key in keys[:150]:
        tell(source, key)
    view = start_view({"one": source})
    view.on_change(lambda fleet: calls.append(len(fleet.members)))
    for key in keys[150:]:
        tell(source, key)
    assert view.wait_for(lambda fleet: len(fleet.members) == 300, PATIENCE_SECONDS)
    assert [pool.workers for pool in view.pools()] == [300]
    for key in keys[::2]:
        tell(source, key, sequence=2, state=WorkerState.STOPPED)
    assert view.wait_for(lambda fleet: len(fleet.members) == 150, PATIENCE_SECONDS)
    eventually(lambda: calls and calls[-1] == 150, PATIENCE_SECONDS, "the last change is told")
    assert list(view.fleet.served.values()) == [150]


def test_a_listener_hears_of_the_newest_fleet_last_whatever_source_it_came_from(start_view):
    sources = {f"source-{number}": StaticPresence() for number in range(4)}
    heard = []
    view = start_view(sources)
    view.on_change(heard.append)
    for sequence in range(1, 101):
        for number, source in enumerate(sources.values()):
            tell(source, KEY if number % 2 else OTHER_KEY, sequence=4 * sequence + number)
    assert view.wait_for(
        lambda fleet: {member.presence.sequence for member in fleet.members.values()} == {402, 403},
        PATIENCE_SECONDS,
    )
    eventually(lambda: heard and heard[-1] is view._fleet, PATIENCE_SECONDS, "the last change is told")
    for worker in (WORKER, OTHER):
        orders = [fleet.newest[worker] for fleet in heard if worker in fleet.newest]
        assert orders == sorted(orders)
