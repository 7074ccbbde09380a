"""What one process heard of workers, mirrored over a real Redis to others."""

import itertools
import json
import random
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from support.paths import TESTS
from support.presences import KEY, OTHER_KEY, envelope, presence
from support.waiting import PATIENCE_SECONDS, eventually
from tether.broker.keys import Keys
from tether.broker.redis.connections import OUTAGE_ERRORS
from tether.discovery.announcements.presence import Order, WorkerState
from tether.discovery.announcements.wire import sign, verify_envelope
from tether.discovery.fleet.fleet_view import FleetView
from tether.discovery.over_redis.mirror import FleetMirror
from tether.discovery.over_redis.redis_presence import RedisPresence
from tether.discovery.port import Accepted, Heard, Unroutable
from tether.discovery.static import StaticPresence
from tether_workers.presence.health import parts_by_model

NEVER_MS = 3_600_000
WORKER, OTHER = presence().worker_id, presence(OTHER_KEY).worker_id
NUMBERS = itertools.count()


@pytest.fixture
def opened():
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def connect(opened):
    """Opens the presence of a namespace on a server; by itself each in one of its own."""

    def open_one(server, namespace=None):
        client = opened.enter_context(redis.Redis.from_url(server.url))
        port = RedisPresence(client, Keys(namespace or f"mirror-{next(NUMBERS)}"))
        opened.callback(port.close)
        return port

    return open_one


@pytest.fixture
def port(connect, shared_redis_server):
    return connect(shared_redis_server)


@pytest.fixture
def start_mirror(opened):
    def start(port, interval_ms=NEVER_MS):
        mirror = FleetMirror(port, interval_ms=interval_ms)
        mirror.start()
        opened.callback(mirror.stop)
        return mirror

    return start


@pytest.fixture
def start_view(opened):
    def start(sources, **options):
        view = FleetView(sources, lambda key: True, **options)
        view.start()
        opened.callback(view.stop)
        return view

    return start


def accepted(key=KEY, life_ms=15_000, **changes):
    changes = {"issued_at": time.time_ns() // 1_000_000, **changes}
    return Accepted(presence(key, **changes), envelope(key, **changes), life_ms)


def tell(source, key=KEY, **changes):
    made = accepted(key, **changes)
    return source.announce(made.envelope, made.presence)


def living(port):
    return {
        found.worker_id: found.order
        for found in (verify_envelope(heard.envelope, lambda key: True) for heard in port.read_all())
    }


def test_what_is_mirrored_is_the_newest_and_is_told_in_one_message(port):
    news = port.subscribe()
    assert port.mirror([accepted(sequence=2), accepted(sequence=1), accepted(OTHER_KEY)]) == 2
    assert port.mirror([accepted(sequence=2), accepted(OTHER_KEY)]) == 0
    assert living(port) == {WORKER: (1, 2), OTHER: (1, 1)}
    assert len(news.next(PATIENCE_SECONDS)) == 2
    assert not news.next(0.01)
    news.close()


def test_more_than_one_call_s_worth_is_mirrored_in_order(port):
    batch = [accepted(sequence=sequence) for sequence in range(1, 601)]
    assert port.mirror(batch) == 600
    assert living(port) == {WORKER: (1, 600)}
    assert not port.mirror([])


def test_more_news_than_is_handed_out_at_once_is_handed_out_in_order(port):
    news = port.subscribe()
    batch = [accepted(sequence=sequence) for sequence in range(1, 1_101)]
    port.mirror(batch[:100])
    port.mirror(batch[100:])
    parts = []
    while sum(map(len, parts)) < len(batch):
        parts.append(news.next(PATIENCE_SECONDS))
        assert 0 < len(parts[-1]) <= 1_024
    assert [one.envelope for part in parts for one in part] == [one.envelope for one in batch]
    news.close()


def test_what_is_mirrored_has_what_is_left_of_its_life_by_redis_s_clock(port):
    news = port.subscribe()
    port.mirror([accepted(life_ms=4_000)])
    (told,) = news.next(PATIENCE_SECONDS)
    assert told.life_ms == 4_000
    (heard,) = port.read_all()
    assert 0 < heard.life_ms <= 4_000
    port.mirror([accepted(OTHER_KEY, life_ms=0)])
    assert set(living(port)) == {WORKER}
    news.close()


def test_a_reader_is_given_what_is_newer_than_it_knows(port):
    port.mirror([accepted(sequence=2), accepted(OTHER_KEY)])
    (found,) = port.read_newer({WORKER: Order(1, 2)})
    assert verify_envelope(found.envelope, lambda key: True).worker_id == OTHER
    assert not port.read_newer({WORKER: Order(1, 2), OTHER: Order(2, 1)})
    assert len(port.read_newer({WORKER: Order(1, 1)})) == 2
    assert port.orders() == {WORKER: (1, 2), OTHER: (1, 1)}


moments = st.tuples(st.integers(1, 2), st.integers(1, 3))


@settings(max_examples=15, deadline=None)
@given(
    goodbyes=st.frozensets(st.tuples(st.sampled_from([0, 1]), moments)),
    seed=st.integers(0, 1_000),
)
def test_mirrors_and_workers_that_race_keep_the_strictly_newest(shared_redis_server, goodbyes, seed):
    keys = (KEY, OTHER_KEY)
    made = [
        accepted(
            keys[which],
            boot=boot,
            sequence=sequence,
            issued_at=1_000,
            state=WorkerState.STOPPED if (which, (boot, sequence)) in goodbyes else WorkerState.SERVING,
        )
        for which in (0, 1)
        for boot in (1, 2)
        for sequence in (1, 2, 3)
    ]
    namespace = f"race-{next(NUMBERS)}"
    with ExitStack() as stack:
        ports = []
        for _ in range(3):
            client = stack.enter_context(redis.Redis.from_url(shared_redis_server.url))
            ports.append(RedisPresence(client, Keys(namespace)))
            stack.callback(ports[-1].close)
        news = ports[0].subscribe()
        stack.callback(news.close)
        begin = threading.Barrier(3)
        failures = []

        def write(number):
            chance = random.Random(seed + number)
            order = chance.sample(made, len(made))
            try:
                begin.wait(PATIENCE_SECONDS)
                if number == 0:
                    for one in order:
                        ports[0].announce(one.envelope, one.presence)
                else:
                    while order:
                        size = chance.randint(1, 4)
                        ports[number].mirror(order[:size])
                        order = order[size:]
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert ports[0].orders() == {WORKER: (2, 3), OTHER: (2, 3)}
        assert set(living(ports[0])) == {
            worker for which, worker in enumerate((WORKER, OTHER)) if (which, (2, 3)) not in goodbyes
        }
        told = {WORKER: [], OTHER: []}
        while heard := news.next(0.05):
            for one in heard:
                found = verify_envelope(one.envelope, lambda key: True)
                told[found.worker_id].append(found.order)
        for orders in told.values():
            assert orders == sorted(set(orders))
            assert orders[-1] == (2, 3)


def test_a_reader_in_another_process_sees_who_comes_and_goes(
    shared_redis_server, connect, start_mirror, start_view
):
    namespace = f"mirror-{next(NUMBERS)}"
    mirror = start_mirror(connect(shared_redis_server, namespace))
    swarm = StaticPresence()
    start_view({"swarm": swarm}, on_accepted=mirror.offer)
    program = TESTS / "support" / "fleet_reader.py"
    with subprocess.Popen(
        [sys.executable, str(program), shared_redis_server.url, namespace],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        try:
            assert reader.stdout.readline() == "ready\n"
            tell(swarm)
            assert json.loads(reader.stdout.readline()) == [WORKER]
            tell(swarm, sequence=2, state=WorkerState.STOPPED)
            assert json.loads(reader.stdout.readline()) == []
        finally:
            reader.stdin.close()
            reader.wait(PATIENCE_SECONDS)
    assert reader.returncode == 0


def test_what_came_over_redis_is_not_written_again(port, start_mirror):
    mirror = start_mirror(port)
    mirror.offer("redis", [accepted()])
    mirror.offer("swarm", [accepted(OTHER_KEY)])
    eventually(lambda: OTHER in living(port), PATIENCE_SECONDS, "the other is mirrored")
    assert set(living(port)) == {OTHER}


def test_a_part_of_what_a_worker_announces_is_not_written(port, start_mirror):
    (part,) = parts_by_model(presence())
    mirror = start_mirror(port)
    mirror.offer("swarm", [Accepted(part, sign(part, KEY), NEVER_MS)])
    other = presence(OTHER_KEY)
    mirror.offer("swarm", [Accepted(other, envelope(OTHER_KEY), NEVER_MS)])
    eventually(lambda: port.orders(), PATIENCE_SECONDS, "what is whole is written")
    assert set(port.orders()) == {OTHER}


def test_a_redis_that_lost_its_data_has_it_back(port, start_mirror):
    mirror = start_mirror(port, interval_ms=10)
    mirror.offer("swarm", [accepted()])
    # Also what another process had written.
    mirror.offer("redis", [accepted(OTHER_KEY, sequence=7)])
    eventually(lambda: set(living(port)) == {WORKER, OTHER}, PATIENCE_SECONDS, "both are mirrored")
    # All at once: what the mirror has written back meanwhile shall not go again.
    port._client.delete(*port._client.keys(f"{port._keys.prefix}:*"))
    eventually(lambda: living(port) == {WORKER: (1, 1), OTHER: (1, 7)}, PATIENCE_SECONDS, "both are back")
    # As after a restart from an old snapshot.
    port._client.hdel(port._keys.fleet_presence, OTHER)
    port._client.hset(port._keys.fleet_order, OTHER, "1:3")
    eventually(
        lambda: living(port) == {WORKER: (1, 1), OTHER: (1, 7)}, PATIENCE_SECONDS, "the newest is back"
    )


def test_a_goodbye_keeps_its_place_in_a_redis_that_lost_its_data(port, start_mirror):
    mirror = start_mirror(port, interval_ms=10)
    mirror.offer("swarm", [accepted(sequence=2, state=WorkerState.STOPPED)])
    eventually(lambda: port.orders() == {WORKER: (1, 2)}, PATIENCE_SECONDS, "the goodbye is written")
    port._client.delete(port._keys.fleet_order)
    eventually(lambda: port.orders() == {WORKER: (1, 2)}, PATIENCE_SECONDS, "the goodbye is written again")
    assert not port.mirror([accepted(sequence=1)])


def test_while_redis_is_away_the_newest_of_each_worker_is_kept_for_it(redis_server, connect, start_mirror):
    port = connect(redis_server)
    mirror = start_mirror(port)
    mirror.offer("swarm", [accepted(OTHER_KEY)])
    eventually(lambda: OTHER in living(port), PATIENCE_SECONDS, "one is mirrored")
    redis_server.kill()
    for file in redis_server.folder.rglob("*"):
        if file.is_file():
            file.unlink()
    for sequence in (2, 9, 5):
        mirror.offer("swarm", [accepted(sequence=sequence)])
    eventually(lambda: mirror._outage.is_on, PATIENCE_SECONDS, "the outage is noticed")
    redis_server.start()

    def found():
        try:
            return living(port) == {WORKER: (1, 9), OTHER: (1, 1)}
        except OUTAGE_ERRORS:
            return False

    eventually(found, PATIENCE_SECONDS, "the empty Redis has all of them")


def test_what_has_run_out_meanwhile_is_not_mirrored(port, start_mirror):
    mirror = start_mirror(port)
    mirror.offer("swarm", [accepted(life_ms=0), accepted(OTHER_KEY)])
    eventually(lambda: port.orders(), PATIENCE_SECONDS, "something is written")
    assert set(port.orders()) == {OTHER}


def test_a_mirror_that_stops_writes_what_waits_and_ends_its_thread(port):
    mirror = FleetMirror(port, interval_ms=NEVER_MS)
    mirror.offer("swarm", [accepted(sequence=sequence) for sequence in range(1, 4)])
    # Asked to stop before it has written anything.
    mirror.stop()
    mirror.start()
    mirror.stop()
    assert living(port) == {WORKER: (1, 3)}
    assert "tether-mirror" not in [thread.name for thread in threading.enumerate()]


def test_a_mirror_that_stops_while_redis_is_away_ends_too(redis_server, connect):
    mirror = FleetMirror(connect(redis_server), interval_ms=NEVER_MS)
    redis_server.kill()
    mirror.offer("swarm", [accepted()])
    mirror.start()
    mirror.stop()
    assert not mirror.loop.is_alive


def test_an_announcement_that_redis_does_not_take_does_not_hold_up_others(port, start_mirror):
    mirror = start_mirror(port)
    broken = accepted()._replace(envelope=object())
    with capture_logs() as logs:
        mirror.offer("swarm", [broken])
        eventually(lambda: not mirror._waiting, PATIENCE_SECONDS, "it is given up")
        mirror.offer("swarm", [accepted(OTHER_KEY)])
        eventually(lambda: OTHER in living(port), PATIENCE_SECONDS, "the other is mirrored")
    assert [entry["event"] for entry in logs] == ["A worker cannot be mirrored."]


def test_an_announcement_that_redis_does_not_take_costs_its_batch_nothing(port, start_mirror):
    mirror = start_mirror(port)
    with capture_logs() as logs:
        mirror.offer("swarm", [accepted()._replace(envelope=object()), accepted(OTHER_KEY)])
        eventually(lambda: OTHER in living(port), PATIENCE_SECONDS, "the other is mirrored")
    assert [entry["event"] for entry in logs] == ["A worker cannot be mirrored."]


def test_a_lost_attempt_is_told_to_all_until_the_worker_is_heard_of_again(port, start_view):
    port.mirror([accepted()])
    finder = start_view({"redis": port}, tell_distrust=port.distrust)
    reader = start_view({"redis": port})
    for view in (finder, reader):
        assert view.wait_for(lambda fleet: WORKER in fleet.members, PATIENCE_SECONDS)
        assert view.pools()
    finder.distrust_boot(f"{WORKER}.1")
    assert not finder.pools()
    assert reader.wait_for(lambda fleet: WORKER in fleet.unroutable, PATIENCE_SECONDS)
    assert not reader.pools()
    late = start_view({"redis": port})
    assert late.wait_until_read(PATIENCE_SECONDS)
    assert set(late.fleet.members) == {WORKER}
    assert not late.pools()
    port.mirror([accepted(sequence=2)])
    for view in (finder, reader, late):
        assert view.wait_for(lambda fleet: not fleet.unroutable, PATIENCE_SECONDS)
        assert view.pools()
    assert not port._client.exists(port._keys.fleet_unroutable)


def test_a_lost_attempt_of_before_the_newest_announcement_is_told_to_nobody(port):
    port.mirror([accepted(sequence=5)])
    news = port.subscribe()
    assert not port.distrust(WORKER, Order(1, 4))
    assert port.distrust(WORKER, Order(1, 5))
    assert not port.distrust(WORKER, Order(1, 5))
    assert [tuple(one) for one in news.next(PATIENCE_SECONDS)] == [(WORKER, (1, 5))]
    assert not port.mirror([accepted(sequence=5, free=0)])
    assert [one for one in port.read_newer({}) if not isinstance(one, Heard)] == [(WORKER, (1, 5))]
    news.close()


def test_while_redis_is_away_a_lost_attempt_is_known_to_its_finder(redis_server, connect, start_view):
    port = connect(redis_server)
    port.mirror([accepted()])
    view = start_view({"redis": port}, tell_distrust=port.distrust)
    assert view.wait_for(lambda fleet: WORKER in fleet.members, PATIENCE_SECONDS)
    redis_server.kill()
    view.distrust_boot(f"{WORKER}.1")
    assert not view.pools()


def test_of_a_worker_that_is_gone_nothing_is_left_after_an_hour(port):
    client, keys = port._client, port._keys
    unknown, former = "f" * 16, "e" * 16
    sequences = itertools.count(1)

    def left():
        hashes = (keys.fleet_presence, keys.fleet_order, keys.fleet_unroutable)
        names = [name for key in hashes for name in client.hkeys(key)]
        return {name.decode() for name in (*names, *client.zrange(keys.fleet_expiry, 0, -1))}

    def let_pass(minutes):
        for worker in (WORKER, unknown, former):
            client.zincrby(keys.fleet_expiry, -minutes * 60_000, worker)

    # A former version has left an order alone.
    client.hset(keys.fleet_order, former, "1:1")
    assert port.mirror([accepted(), accepted(OTHER_KEY, sequence=next(sequences))]) == 2
    assert port.mirror([accepted(sequence=2, state=WorkerState.STOPPED)]) == 1
    assert port.distrust(WORKER, Order(1, 2))
    assert port.distrust(unknown, Order(1, 1))
    let_pass(59)
    # As long as anybody would accept what is old, it is known to be that.
    assert port.mirror([accepted(OTHER_KEY, sequence=next(sequences)), accepted(sequence=1)]) == 1
    assert left() == {WORKER, OTHER, unknown, former}
    let_pass(1)
    assert port.mirror([accepted(OTHER_KEY, sequence=next(sequences))]) == 1
    assert left() == {OTHER}
    assert set(living(port)) == {OTHER}


def test_a_worker_that_one_does_not_follow_is_distrusted_up_to_what_was_written_of_it(port):
    port.mirror([Accepted(told, sign(told, KEY), NEVER_MS) for told in [presence(boot=2, sequence=5)]])
    assert not port.distrust_newest(f"{WORKER}.1"), "another run of it lost the attempt"
    assert not port.distrust_newest(f"{OTHER}.1")
    assert not port.distrust_newest(f"{WORKER}.x")
    assert port.distrust_newest(f"{WORKER}.2")
    assert Unroutable(WORKER, Order(2, 5)) in port.read_newer({})


def test_a_redis_that_is_full_learns_whom_to_distrust(connect, redis_server):
    port = connect(redis_server, "full")
    with redis.Redis.from_url(redis_server.url) as client:
        client.config_set("maxmemory", 1)
        assert port.distrust(WORKER, Order(1, 2))
        assert client.hget(Keys("full").fleet_unroutable, WORKER) == b"1:2"
