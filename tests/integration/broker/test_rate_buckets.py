"""The script ``charge`` on a real Redis, against the rule."""

from __future__ import annotations

import threading

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.machines import MachineServer
from support.script_clock import BEGINNING_MS, ScriptClock, with_set_clock
from support.waiting import join
from tether.broker.keys import Keys
from tether.broker.rate_buckets import BucketChange, ChargeGroup, RateBuckets
from tether.broker.scripts import BROKER_SCRIPTS
from tether.rate_limits import (
    MAX_BURST_SECONDS,
    MAX_PER_MINUTE,
    UNITS,
    RateLimits,
    TakenUnits,
    full_again_ms,
    give_back_to_buckets,
    owe_to_buckets,
    take_from_buckets,
)

TENANTS = ("one", "two words", "three")
rates = st.one_of(st.just(0), st.integers(1, 200), st.integers(1, MAX_PER_MINUTE))
limits_of_any_kind = st.builds(RateLimits, rates, rates, st.integers(1, MAX_BURST_SECONDS))
groups = st.lists(
    st.tuples(
        st.sampled_from([BucketChange.TAKE, BucketChange.TAKE, BucketChange.OWE, BucketChange.GIVE]),
        st.sampled_from(TENANTS),
        st.lists(st.integers(1, 1_000), min_size=1, max_size=4).map(tuple),
        st.integers(-5_000, 5_000),
    ),
    min_size=1,
    max_size=4,
)


@pytest.fixture
def clock(machine_redis_url, monkeypatch):
    sound = BROKER_SCRIPTS.source
    # Keys end by the server's own clock, which does not stand still.
    life = ", 'PX', string.format('%.0f', life)"
    assert life in sound("charge")
    monkeypatch.setattr(BROKER_SCRIPTS, "source", lambda name: with_set_clock(sound(name)).replace(life, ""))
    opened = ScriptClock(MachineServer(machine_redis_url))
    yield opened
    opened.close()


@pytest.fixture
def client(machine_redis_url):
    with redis.Redis.from_url(machine_redis_url) as opened:
        yield opened


@pytest.fixture
def keys(namespace):
    return Keys(namespace)


@pytest.fixture
def buckets(client, keys):
    opened = RateBuckets(client, keys)
    yield opened
    opened.close()


def one(tenant, limits, *costs):
    return ChargeGroup(BucketChange.TAKE, tenant, limits, costs)


def is_admitted(buckets, limits, *, tenant="one", tokens=1):
    (charged,) = buckets.charge([one(tenant, limits, tokens)])
    return charged.verdicts[0].is_admitted


def by_the_rule(taken, group, now_ms):
    if group.change is BucketChange.TAKE:
        return take_from_buckets(taken, group.limits, group.costs, now_ms)
    if group.change is BucketChange.OWE:
        return owe_to_buckets(taken, group.limits, group.costs, now_ms), ()
    return give_back_to_buckets(taken, group.limits, group.costs, group.taken_at_ms, now_ms), ()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    limits=st.tuples(*[limits_of_any_kind] * len(TENANTS)),
    calls=st.lists(st.tuples(st.integers(-10_000, 90_000), groups), max_size=8),
)
def test_the_script_agrees_with_the_rule_to_the_last_unit(client, keys, buckets, clock, limits, calls):
    of_tenant = dict(zip(TENANTS, limits, strict=True))
    client.delete(*(keys.bucket(tenant) for tenant in TENANTS))
    taken = dict.fromkeys(TENANTS, TakenUnits(at_ms=0))
    for pause, wanted in calls:
        clock.pass_time(pause)
        asked = [
            ChargeGroup(change, tenant, of_tenant[tenant], costs, clock.now + ago)
            for change, tenant, costs, ago in wanted
        ]
        for group, charged in zip(asked, buckets.charge(asked), strict=True):
            expected, verdicts = by_the_rule(taken[group.tenant], group, clock.now)
            assert charged == (expected, verdicts)
            taken[group.tenant] = expected
        for tenant, units in taken.items():
            asked_for = tenant in {group.tenant for group in asked}
            if asked_for and not full_again_ms(units, of_tenant[tenant]):
                assert not client.exists(keys.bucket(tenant))
                taken[tenant] = TakenUnits()


def test_a_bucket_lives_until_it_is_full_again(buckets, client, keys):
    limits = RateLimits(requests_per_minute=60, tokens_per_minute=60)
    buckets.charge([one("one", limits, 30)])
    assert 25_000 < client.pttl(keys.bucket("one")) <= 30_000


@pytest.mark.parametrize(
    "value",
    [b"", b"\xff\x00", b"1 2 3", b"2 1 1 1", b"1 1.5 2 3", b"1 -1 0 0", b"1 " + b"9" * 400 + b" 0 0"],
)
def test_what_cannot_be_read_is_full_and_is_put_right(buckets, client, keys, value):
    client.set(keys.bucket("one"), value)
    other, limits = RateLimits(requests_per_minute=60), RateLimits(requests_per_minute=60)
    broken, sound = buckets.charge([one("one", limits, 1), one("two", other, 1)])
    assert broken.verdicts[0].is_admitted
    assert sound.verdicts[0].is_admitted
    assert client.get(keys.bucket("one")) == b"1 %d %d 0" % (broken.taken.at_ms, UNITS)


@pytest.mark.parametrize("units", [b"9" * 15, b"9" * 400])
def test_more_than_a_bucket_holds_is_an_empty_bucket(buckets, client, keys, clock, units):
    client.set(keys.bucket("one"), b"1 %d %b 0" % (clock.now, units))
    limits = RateLimits(requests_per_minute=60, burst_seconds=2)
    (charged,) = buckets.charge([one("one", limits, 1)])
    assert charged.verdicts[0].requests_wait_ms == 1_000
    clock.pass_time(1_000)
    assert is_admitted(buckets, limits)


def test_a_key_of_another_type_is_put_right(buckets, client, keys):
    client.sadd(keys.bucket("one"), "x")
    assert is_admitted(buckets, RateLimits(requests_per_minute=60))
    assert client.type(keys.bucket("one")) == b"string"


def test_a_clock_that_is_set_back_locks_nobody_out(buckets, clock):
    limits = RateLimits(requests_per_minute=60, burst_seconds=1)
    assert is_admitted(buckets, limits)
    clock.pass_time(-BEGINNING_MS // 2)
    assert not is_admitted(buckets, limits)
    clock.pass_time(1_000)
    assert is_admitted(buckets, limits)


def test_a_full_redis_counts_on(redis_server, keys):
    with redis.Redis.from_url(redis_server.url) as client:
        client.config_set("maxmemory", 1)
        buckets = RateBuckets(client, keys)
        limits = RateLimits(requests_per_minute=1, burst_seconds=1)
        assert is_admitted(buckets, limits)
        assert not is_admitted(buckets, limits)
        buckets.close()


def test_several_gateways_at_once_admit_what_one_would(client, keys, buckets):
    """Tenants whose buckets do not fill again while the test runs, asked for by many at once."""
    limits, gateways, rounds = RateLimits(requests_per_minute=1, burst_seconds=3_000), 4, 40
    assert limits.request_capacity == 50 * UNITS
    admitted: list[int] = []

    def ask(mine):
        for _ in range(rounds):
            charged = mine.charge([one("one", limits, 1), one("two", limits, 1, 1, 1)])
            admitted.extend(
                number
                for number, group in enumerate(charged)
                for verdict in group.verdicts
                if verdict.is_admitted
            )

    opened = [RateBuckets(client, keys) for _ in range(gateways)]
    threads = [threading.Thread(target=ask, args=(mine,)) for mine in opened]
    (before,) = buckets.charge([ChargeGroup(BucketChange.GIVE, "one", limits, ())])
    for thread in threads:
        thread.start()
    for thread in threads:
        join(thread)
    (after,) = buckets.charge([ChargeGroup(BucketChange.GIVE, "one", limits, ())])
    most = 50 + (after.taken.at_ms - before.taken.at_ms) // 60_000 + 1
    for number in range(2):
        assert 50 <= admitted.count(number) <= most
    for each in opened:
        each.close()
