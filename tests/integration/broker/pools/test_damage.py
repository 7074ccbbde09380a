"""Arguments that no program of ours sends, and keys that none of ours wrote: they cost one job at most."""

import json
from collections import Counter

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.hand_worker import growth
from support.pieces import read_pieces
from support.pool_stage import AGE_MS, LEASE_MS, POOL, Stage, draw, ids
from tether.broker.pools.carried_job import CarriedJob, FieldReader
from tether.broker.pools.dispatches import PlaceResult
from tether.broker.pools.known_jobs import KnownJob
from tether.broker.pools.outcomes import Outcomes
from tether.broker.pools.worker_port import Pulse, WriteStatus
from tether.broker.redis.raw_connections import RawConnections
from tether.core.live_states import LiveStates
from tether.jobs import JobError, JobState, Piece
from tether.streams.events import EVENT_KINDS
from tether.streams.token_log import encode_pieces, read_events

FIELDS = FieldReader(CarriedJob, but=("job_id",)).names


@pytest.fixture
def stage(shared_redis_server, namespace):
    opened = Stage(shared_redis_server, namespace)
    yield opened
    opened.close()


def dump(stage):
    # A large hash has no order: its fields are compared. What is known for seconds only may expire meanwhile.
    return {
        key: stage.redis.hgetall(key) if stage.redis.type(key) == b"hash" else stage.redis.dump(key)
        for key in stage.redis.scan_iter(f"{stage.keys.prefix}:*")
        if not key.startswith(f"{stage.keys.prefix}:drawing:".encode())
    }


def run(stage, script, *arguments):
    lines = RawConnections.like(stage.redis, stage.keys.leases)
    try:
        return lines.run(f"pool/{script}", *arguments)
    finally:
        lines.close()


def identity(job):
    return (job.job_id, job.fence.dispatch, job.fence.attempt, job.fence.draw_id)


def tokens(count):
    return encode_pieces([Piece(i, f"t{i} ") for i in range(count)])


def running(stage, job_id="a", **changes):
    """A job that runs, with two tokens, beside one that waits."""
    stage.place(job_id, **changes)
    worker = stage.worker("w")
    (job,) = draw(worker)
    worker.append(growth(job, 2))
    stage.place("waiting")
    return worker, job


def answer_of(stage, script, *arguments):
    """What a script answers; ``INVALID`` where it refuses the whole call. Any other error fails the test."""
    try:
        return run(stage, script, *arguments)
    except redis.ResponseError as error:
        if str(error).startswith("INVALID "):
            return "INVALID"
        raise


def refused(stage, script, *arguments):
    """Run a script that must refuse: nothing may have changed."""
    before = dump(stage)
    answer = answer_of(stage, script, *arguments)
    assert dump(stage) == before, "what is refused has no effect"
    return answer


NUMBERS = ["-3", "nan", "inf", "", "1e30", "x", "0.5", "9007199254740992"]


@pytest.mark.parametrize("count", NUMBERS)
@pytest.mark.parametrize("script", ["finish", "fail", "release"])
def test_an_end_with_an_impossible_count_has_no_effect(stage, script, count):
    worker, job = running(stage)
    more = {"finish": (3, "stop"), "fail": ("failed", "{}"), "release": ()}[script]
    answer = refused(stage, script, 1, *identity(job), 0, 2, count, tokens(3), *more)
    assert answer[0] == b"invalid"
    worker.finish(growth(job, 1, offset=2))
    assert stage.outcomes() == [("a", "succeeded")]


@pytest.mark.parametrize("input_tokens", NUMBERS)
def test_impossible_input_tokens_do_not_finish_a_job(stage, input_tokens):
    _, job = running(stage)
    end = (1, *identity(job), 0, 2, 1, tokens(1))
    assert refused(stage, "finish", *end, input_tokens, "stop")[0] == b"invalid"


@pytest.mark.parametrize("reason", ["", 'stop","input_tokens":"9', "a b", "x" * 33])
def test_a_reason_that_is_none_does_not_finish_a_job(stage, reason):
    _, job = running(stage)
    end = (1, *identity(job), 0, 2, 1, tokens(1))
    assert refused(stage, "finish", *end, 3, reason)[0] == b"invalid"


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("odd", "{}"),
        ("succeeded", "{}"),
        ("", "{}"),
        ("failed", "no json"),
        ("failed", json.dumps("x" * 65_536)),
    ],
)
def test_a_job_cannot_fail_in_an_unknown_way(stage, kind, error):
    _, job = running(stage)
    assert refused(stage, "fail", 1, *identity(job), 0, 2, 0, "{}", kind, error)[0] == b"invalid"


@pytest.mark.parametrize(
    ("run_number", "offset", "count", "kind", "data"),
    [
        (0, 2, 1, "finished", '{"reason":"stop"}'),
        (0, 2, 0, "failed", '{"state":"dead"}'),
        (0, 2, 0, "started", "{}"),
        (0, 2, 0, "odd", "{}"),
        (2**31, 0, 0, "restarted", "{}"),
        (300, 0, 0, "restarted", "{}"),
        (1, 3, 0, "restarted", "{}"),
        (1, 0, 1, "restarted", tokens(1)),
        (1, 0, 0, "restarted", "no json"),
        (0, 2, 9, "delta", tokens(9)),
        (0, 2, 500, "delta", tokens(500)),
        (0, 2, 2**53, "delta", tokens(1)),
        (0, 2, 2, "delta", tokens(1)),
        (0, 2, 1, "delta", "no json"),
        (0, 2, 1, "delta", '{"t":["x"],"s":["x"]}'),
        (0, 2, 1, "delta", '{"t":[1],"s":[null]}'),
        (0, 2, 1, "delta", '{"t":[1.5],"s":["x"]}'),
        (0, 2, 1, "delta", '{"t":[NaN],"s":["x"]}'),
        (0, 2, 1, "delta", '{"t":[1e400],"s":["x"]}'),
        (0, 2, 1, "delta", '{"t":[1e30],"s":["x"]}'),
        (0, 2, 1, "delta", '{"t":[0x10],"s":["x"]}'),
        (0, 2, 1, "delta", '{"t":[-01],"s":["x"]}'),
        (0, 2, 1, "delta", '{"t":[1.],"s":["x"]}'),
        (0, 2, 1, "delta", '{"t":[-.5e1],"s":["x"]}'),
        (0, 2, 1, "delta", '{"t":[1],"s":["x"],"more":[-nan]}'),
        (0, 2, 1, "delta", '{"t":[1],"s":["x"],"more":Inf}'),
        (0, 2, 1, "delta", '{"t":[1],"s":["x"]}\0 and more'),
        (0, 2, 1, "delta", '{"t":[1],"s":["a\nb"]}'),
        (0, 2, 1, "delta", '{"t":[1],"texts":["x"]}'),
        (0, 2, 1, "delta", '{"ids":[1],"s":["x"],"texts":[]}'),
        (0, 2, 1, "delta", '{"t":false,"ids":[1],"texts":["x"]}'),
        (0, 2, 0, "delta", '{"t":{"a":1},"s":[]}'),
        (0, 2, 1, "delta", "[" * 100_000),
        (0, 2, 1, "delta", encode_pieces([Piece(1, "x" * 20_000_000)])),
        ("nan", 2, 1, "delta", tokens(1)),
        (0, "nan", 1, "delta", tokens(1)),
        (0, 2, "nan", "delta", tokens(1)),
    ],
)
def test_what_no_attempt_can_write_is_not_added(stage, run_number, offset, count, kind, data):
    worker, job = running(stage, max_tokens=10)
    answer = refused(stage, "append_many", 1, LEASE_MS, *identity(job), run_number, offset, count, kind, data)
    assert answer == [b"ok", b"invalid", b"2"]
    worker.append(growth(job, 8, offset=2))


@pytest.mark.parametrize(
    ("data", "pieces"),
    [
        ('{"t":[7.0],"s":["x"]}', [Piece(7, "x")]),
        ('{"t":[1e3],"s":["x"]}', [Piece(1000, "x")]),
        ('{"t":[-9223372036854775808],"s":[""]}', [Piece(-(2**63), "")]),
        (r'{"t":[1,2],"s":["\\\"[0x1","01, 1. [+0"]}', [Piece(1, '\\"[0x1'), Piece(2, "01, 1. [+0")]),
        ('{"t":[1],"s":[" -.5, nan"],"more":[1e-05,-1e-05]}', [Piece(1, " -.5, nan")]),
        ('{\n\t"token_ids": [1],\n\t"texts": ["I\x7f"]\n}', [Piece(1, "I\x7f")]),
    ],
)
def test_whatever_is_added_can_be_read(stage, data, pieces):
    _, job = running(stage)
    answer = run(stage, "append_many", 1, LEASE_MS, *identity(job), 0, 2, len(pieces), "delta", data)
    assert answer[1] == b"ok"
    assert read_pieces(stage.redis.xrange(stage.keys.stream("a")), 0)[2:] == tuple(pieces)


def test_one_draw_names_no_more_pools_than_a_worker_can_announce(stage):
    def draw_of(pools, *, fields=1, lease=LEASE_MS):
        names = [f"f{number}" for number in range(fields)]
        return (1, "v.1", 1, 1, lease, 0, 0, "process", 0, fields, *names, *pools)

    pools = [f"pool-{number}" for number in range(65)]
    with pytest.raises(
        redis.ResponseError, match="INVALID draw: 65 pools are named, and one draw may name 64"
    ):
        run(stage, "draw", *draw_of(pools))
    with pytest.raises(redis.ResponseError, match="INVALID demand: 65 pools are named, and 64 may be"):
        run(stage, "demand", "v.1", 1000, *[word for pool in pools for word in (pool, "warm")])
    assert refused(stage, "draw", *draw_of(pools[:1], fields=65)) == "INVALID"
    assert run(stage, "draw", *draw_of(pools[:64], fields=64))[0] == b"ok"


@pytest.mark.parametrize("lease", [86_400_001, 315_360_000_000])
def test_no_lease_is_longer_than_a_day(stage, lease):
    _, job = running(stage)
    answers = [
        refused(stage, "draw", 1, "v.1", 1, 1, lease, 0, 0, "process", 0, 1, "body", POOL),
        refused(stage, "append_many", 1, lease, *identity(job), 0, 2, 1, "delta", tokens(1)),
        refused(stage, "beat", 1, lease, *identity(job), 1),
    ]
    assert answers == ["INVALID"] * 3


def test_others_in_the_same_call_are_written(stage):
    worker, job = running(stage)
    (other,) = draw(worker)
    bad = (*identity(job), 0, 2, "nan", "delta", tokens(1))
    good = (*identity(other), 0, 0, 1, "delta", tokens(1))
    answer = run(stage, "append_many", 1, LEASE_MS, *bad, *good, *bad)
    assert answer == [b"ok", b"invalid", b"2", b"ok", b"1", b"invalid", b"2"]


def test_nothing_is_added_after_the_end(stage):
    worker, job = running(stage)
    worker.finish(growth(job, 1, offset=2))
    before = dump(stage)
    worker.append(growth(job, 1, offset=3), expect=WriteStatus.FENCED)
    assert dump(stage) == before


# Keys that none of ours wrote, or that Redis has lost.


def known(stage, job_id):
    return stage.pools.known([job_id])[0]


def test_a_hash_that_cannot_be_read_harms_nobody_who_asks_for_many(stage):
    running(stage)
    stage.redis.hset(stage.keys.job("a"), "offset", "nan")
    stage.redis.set(stage.keys.job("text"), "x")
    live = LiveStates(stage.redis, stage.keys)
    found = live.known(["a", "text", "waiting"])
    live.close()
    assert set(found) == {"waiting"}
    assert found["waiting"].state == "placed"
    assert isinstance(known(stage, "a"), ValueError)
    assert isinstance(known(stage, "text"), redis.ResponseError)


@pytest.mark.parametrize("field", ["offset", "run", "n", "weight", "deadline", "cancel"])
def test_an_attempt_whose_hash_is_damaged_is_handed_back(stage, field):
    worker, job = running(stage)
    stage.redis.hset(stage.keys.job("a"), field, "nan")
    worker.append(growth(job, 1, offset=2), expect=WriteStatus.UNREADABLE)
    assert stage.outcomes() == [("a", "withdrawn")]
    stage.place("a", dispatch=2)
    (again,) = [each for each in draw(worker, 2) if each.job_id == "a"]
    assert (again.offset, len(again.made)) == (2, 1), "its stream tells what was made"
    worker.finish(growth(again, 1))


@pytest.mark.parametrize("verb", ["append", "finish", "fail", "release"])
def test_an_attempt_whose_stream_is_none_is_handed_back(stage, verb):
    worker, job = running(stage)
    stage.redis.set(stage.keys.stream("a"), "x")
    next_token = growth(job, 1, offset=2)
    more = {"fail": {"kind": "failed", "error": JobError("engine_failed", "")}}.get(verb, {})
    getattr(worker, verb)(next_token, expect=WriteStatus.UNREADABLE, **more)
    assert stage.outcomes() == [("a", "withdrawn")]
    stage.place("a", dispatch=2)
    (again,) = [each for each in draw(worker, 2) if each.job_id == "a"]
    worker.finish(growth(again, 3))
    assert [event.kind for event in read_events(stage.redis.xrange(stage.keys.stream("a")))][-1] == "finished"


def test_a_lost_hash_is_set_aside_and_its_stream_is_continued(stage):
    worker, job = running(stage)
    stage.redis.delete(stage.keys.job("a"))
    for refusal in (
        lambda: worker.append(growth(job, 1, offset=2), expect=WriteStatus.UNKNOWN),
        lambda: worker.finish(growth(job, 1, offset=2), expect=WriteStatus.UNKNOWN),
        lambda: worker.beat([Pulse("a", job.fence, True)], expect=WriteStatus.UNKNOWN),
    ):
        before = dump(stage)
        refusal()
        assert dump(stage) == before
    assert stage.lose("a").lost == ()
    assert stage.pools.set_aside() == {"a": "expire"}
    stage.place("a", lossy=True)
    (again,) = [each for each in draw(worker, 2) if each.job_id == "a"]
    assert (again.run, again.offset, again.lossy, len(again.made)) == (0, 2, True, 1)
    worker.finish(growth(again, 1))
    entries = stage.redis.xrange(stage.keys.stream("a"))
    assert len(read_pieces(entries, 0)) == 3


def test_a_lost_hash_of_a_stream_that_has_ended_begins_a_new_run(stage):
    worker, job = running(stage)
    worker.finish(growth(job, 1, offset=2))
    stage.redis.delete(stage.keys.job("a"))
    stage.place("a", dispatch=2)
    (again,) = [each for each in draw(worker, 2) if each.job_id == "a"]
    assert (again.run, again.offset) == (1, 0)
    worker.finish(growth(again, 3))
    assert len(read_pieces(stage.redis.xrange(stage.keys.stream("a")), 0)) == 3, "for the first outcome"


@pytest.mark.parametrize("damage", ["text", "gone", "fields"])
def test_what_cannot_be_drawn_stands_in_front_of_nobody(stage, damage):
    for job_id in ("bad", "good"):
        stage.place(job_id)
    jobs = stage.keys.pool_jobs(POOL, "standard", "default")
    stage.redis.lpush(jobs, "no-entry", "", "two 1")
    name = stage.keys.job("bad")
    if damage == "fields":
        stage.redis.hset(name, mapping={"cost": "nan", "offset": "-1"})
    else:
        stage.redis.delete(name)
        if damage == "text":
            stage.redis.set(name, "x")
    assert ids(draw(stage.worker("w"), 5)) == ["good"]
    assert stage.redis.exists(jobs) == 0
    aside = stage.pools.set_aside()
    if damage == "fields":
        assert stage.outcomes() == [("bad", "withdrawn")]
        assert set(aside) == {"no-entry", "", "two"}
    else:
        assert set(aside) == {"no-entry", "", "two", "bad"}
        stage.place("bad", lossy=True)
        assert ids(draw(stage.worker("w2"), 5)) == ["bad"]
    stage.pools.forget_set_aside(aside)
    assert stage.pools.set_aside() == {}


def test_a_drawn_job_that_the_worker_cannot_read_fails_and_others_run(stage):
    for job_id in ("bad", "good"):
        stage.place(job_id)
    stage.redis.hset(stage.keys.job("bad"), "tenant", b"\xff")
    stage.redis.hdel(stage.keys.job("bad"), "body")
    worker = stage.worker("w")
    assert ids(draw(worker, 2)) == ["good"]
    assert stage.outcomes() == [("bad", "failed")]
    stage.place("next")
    (later,) = draw(worker, 2)
    assert later.fence.draw_id == "w:3"


def test_a_tick_passes_over_what_it_cannot_read(stage):
    running(stage)
    stage.redis.set(stage.keys.job("text"), "x")
    stage.redis.zadd(stage.keys.leases, {"odd": 1, "j text": 1, "j gone": 1, "": 1, "w nobody": 1, "j a": 1})
    stage.redis.hset(stage.keys.job("a"), mapping={"deaths": "nan", "worker": ""})
    tick = stage.tick()
    assert tick.taken == 6
    assert tick.lost == (("", "placed"),)
    assert set(stage.pools.set_aside()) == {"text", "gone"}
    assert stage.redis.zcard(stage.keys.leases) <= 1


def test_ends_of_jobs_that_cannot_be_read_are_carried_out(stage):
    for job_id in ("a", "b"):
        stage.redis.set(stage.keys.job(job_id), "x")
    stage.redis.hset(stage.keys.job("c"), mapping={"state": "odd", "run": "nan"})
    answers = stage.pools.cancel_many([("a", JobState.CANCELLED), ("c", JobState.EXPIRED)])
    assert answers == ["closed", "closed"]
    stage.pools.seal_many([("b", JobState.DEAD, None), ("a", JobState.CANCELLED, None)], 60_000)
    for job_id in ("a", "b", "c"):
        stage.place(job_id, expect=PlaceResult.CLOSED)


def test_streams_that_are_none_do_not_keep_jobs_from_their_end(stage):
    running(stage)
    stage.redis.set(stage.keys.stream("a"), "x")
    stage.redis.set(stage.keys.stream("waiting"), "x")
    assert stage.cancel("waiting") == "closed"
    assert stage.events("waiting") == ["failed"]
    stage.pools.seal_many([("a", JobState.SUCCEEDED, None)], 60_000)
    assert not stage.redis.exists(stage.keys.stream("a"))


def test_outcomes_are_read_beside_a_stream_that_is_none(stage):
    worker, job = running(stage)
    (other,) = draw(worker)
    for each, offset in ((job, 2), (other, 0)):
        worker.finish(growth(each, 1, offset=offset))
    stage.redis.delete(stage.keys.stream("a"))
    stage.redis.set(stage.keys.stream("a"), "x")
    outcomes = Outcomes(stage.redis, stage.keys, "me")
    entries, unreadable = outcomes.read(10, 0)
    filled = outcomes.with_pieces(entries)
    outcomes.close()
    assert unreadable == []
    assert [len(entry.outcome.pieces) for entry in filled] == [0, 1]


@pytest.mark.parametrize(
    "key", ["idle:w", "wake:w", "drawn:w", "given_up:w", f"pool:{POOL}:idle", "core:woken"]
)
@pytest.mark.parametrize("kind", ["text", "list"])
def test_a_key_beside_a_job_that_is_of_another_type_is_thrown_away(stage, key, kind):
    worker = stage.worker("w")
    assert draw(worker) == []
    name = f"{stage.keys.prefix}:{key}"
    stage.redis.delete(name)
    if kind == "text":
        stage.redis.set(name, "x")
    else:
        stage.redis.rpush(name, "x")
    stage.place("a")
    (job,) = draw(worker)
    worker.append(growth(job, 1))
    stage.lose("a")
    stage.redis.hset(stage.keys.job("a"), "avoid", "")
    (again,) = draw(worker)
    worker.finish(growth(again, 1))
    assert stage.outcomes() == [("a", "succeeded")]


@pytest.mark.parametrize("kind", ["zset", "list", "served"])
def test_a_pool_of_another_type_keeps_no_other_pool_waiting(stage, kind):
    key = {
        "zset": stage.keys.pool_tenants(POOL, "standard"),
        "list": stage.keys.pool_jobs(POOL, "standard", "default"),
        "served": f"{stage.keys.prefix}:served:{POOL}:standard",
    }[kind]
    stage.place("in another pool", pool="other")
    stage.redis.set(key, "x")
    worker = stage.worker("w")
    assert ids(draw(worker, 1, pools=(POOL, "other"))) == ["in another pool"]
    stage.place("a")
    assert ids(draw(worker, 1, pools=(POOL, "other"))) == ["a"]


SERVED = f"served:{POOL}:standard"
LANE = f"pool:{POOL}:standard"


def shares(stage, worker, count, jobs):
    """Draw so many jobs, one at a time, and return how many of each tenant these were."""
    found = Counter()
    for _ in range(count):
        (job,) = draw(worker)
        found[job.tenant] += 1
        worker.finish(growth(job, 1), input_tokens=jobs)
    return found


@pytest.mark.parametrize("score", ["inf", "-inf", "-1e15", "1e300", "4503599627370497"])
@pytest.mark.parametrize("with_floor", [True, False])
def test_a_broken_counter_of_one_that_waits_costs_nobody_else(stage, score, with_floor):
    worker = stage.worker("w")
    for tenant in ("broken", "one", "two"):
        stage.place_all([f"{tenant}-{i}" for i in range(30)], tenant=tenant, cost=10)
    shares(stage, worker, 6, 10)
    stage.redis.zadd(f"{stage.keys.prefix}:{LANE}", {"broken": float(score)})
    if not with_floor:
        stage.redis.hdel(f"{stage.keys.prefix}:{SERVED}", "floor")
    stage.place_all([f"new-{i}" for i in range(30)], tenant="new", cost=10)
    found = shares(stage, worker, 40, 10)
    assert all(9 <= found[tenant] <= 15 for tenant in ("one", "two", "new")), found
    while draw(worker, 8):
        pass
    # Nor has what it had become what others begin with.
    for tenant in ("one", "two"):
        stage.place_all([f"{tenant}-later-{i}" for i in range(8)], tenant=tenant, cost=10)
    assert shares(stage, worker, 10, 10) == {"one": 5, "two": 5}


@pytest.mark.parametrize("text", ["inf", "-inf", "nan", "-5", "1e300", "junk", ""])
@pytest.mark.parametrize("field", ["t:one", "floor", "last"])
def test_what_is_no_counter_keeps_the_others(stage, field, text):
    worker = stage.worker("w")
    for tenant in ("one", "two", "three"):
        stage.place_all([f"{tenant}-{i}" for i in range(4)], tenant=tenant, cost=10)
    running = draw(worker, 12)
    served = f"{stage.keys.prefix}:{SERVED}"
    stage.redis.hset(served, field, text)
    kept = float(stage.redis.hget(served, "t:three"))
    for job in running:
        worker.append(growth(job, 2))
    assert float(stage.redis.hget(served, "t:three")) == kept + 16
    for tenant in ("one", "two", "three"):
        stage.place_all([f"{tenant}-later-{i}" for i in range(30)], tenant=tenant, cost=10)
    found = shares(stage, worker, 40, 10)
    assert all(10 <= found[tenant] <= 15 for tenant in ("two", "three")), found


@pytest.mark.parametrize(("cost", "weight"), [(2**53 - 1, 1e-9), (1, 1e-9), (1, 2.0**53 - 1)])
def test_a_weight_beyond_reason_costs_its_own_tenant_alone(stage, cost, weight):
    worker = stage.worker("w")
    stage.place_all([f"odd-{i}" for i in range(20)], tenant="odd", cost=cost, weight=weight)
    assert len(draw(worker, 3)) == 3
    for tenant in ("one", "two"):
        stage.place_all([f"{tenant}-{i}" for i in range(40)], tenant=tenant, cost=10)
    found = shares(stage, worker, 40, 10)
    assert abs(found["one"] - found["two"]) <= 1, found
    assert found["one"] > 9


def test_counters_that_have_grown_for_years_count_single_tokens(stage):
    worker = stage.worker("w")
    for tenant, weight in (("heavy", 1000.0), ("light", 1.0)):
        stage.place_all([f"{tenant}-{i}" for i in range(40)], tenant=tenant, cost=1, weight=weight)
    lane = f"{stage.keys.prefix}:{LANE}"
    stage.redis.zadd(lane, {"heavy": 2.0**51, "light": 2.0**51})
    assert [job.tenant for job in draw(worker, 3)].count("light") == 1
    assert max(score for _, score in stage.redis.zrange(lane, 0, -1, withscores=True)) < 10
    assert float(stage.redis.hget(f"{stage.keys.prefix}:{SERVED}", "floor")) < 10


# Arbitrary arguments.

JUNK = st.one_of(
    st.sampled_from(
        ["", "nan", "-nan", "inf", "-inf", "1e30", "-3", "-0", "0x10", " 1 ", "1.5", "9" * 40, "{}", "[]"]
    ),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.binary(max_size=40),
    st.text(max_size=20),
    st.sampled_from([b"x" * 2_000_000, b"[" * 50_000, b"\x00", b"placed running", b"cancelled", b"finished"]),
)


def calls(stage, job):
    """A call of each script that the state allows, but for what the fence of another forbids."""
    mine = identity(job)
    end = (1, *mine, 0, 2, 1, tokens(1))
    own = ("weight", "1.0", "cost", 1, "deadline", 0, "max_tokens", 9, "body", "{}")
    return {
        "append_many": (1, LEASE_MS, *mine, 0, 2, 1, "delta", tokens(1)),
        "restart": (1, LEASE_MS, *mine, 1, 0, 0, "restarted", "{}"),
        "finish": (*end, 3, "stop"),
        "fail": (*end, "failed", '{"code":"x"}'),
        "release": end,
        "beat": (1, LEASE_MS, *mine, 1),
        "draw": (1, "v", 2, 1, LEASE_MS, 0, 0, "process", 0, len(FIELDS), *FIELDS, POOL),
        "place": ("new", 1, POOL, "default", "standard", 0, 0, *own),
        "replace": ("a", 2, POOL, "default", "standard", 0, 0, *own),
        "cancel": ("a", "cancelled", 60_000),
        "withdraw": ("a", 1, "1"),
        "expire": (LEASE_MS, AGE_MS, 100, AGE_MS, 100),
        "seal": ("a", "dead", 60_000, "{}"),
        "revoke": ("a",),
        "tidy_list": ("list", POOL, "standard", "default", 0, 10),
        "tidy_tenants": ("tenants", POOL, "standard", "default", "nobody"),
        "tidy_idle": ("idle", POOL, "w", "v"),
        "tidy_drawn": ("drawn", "w", "a", "b"),
        "tidy_served": ("served", POOL, "standard", 60_000, "default", "nobody"),
        "disown": ("a", 0, 60_000),
        "waiting": (POOL, "standard", "default"),
        "name_pool": (POOL,),
    }


SCRIPT_OF = {"restart": "append_many", "replace": "place"} | {
    f"tidy_{kind}": "tidy" for kind in ("list", "tenants", "idle", "drawn", "served")
}


def is_refusal(script, answer):
    if script == "place":
        return answer in (b"invalid", b"known", b"closed", b"full")
    if script in ("append_many", "beat"):
        return all(code in (b"invalid", b"unknown", b"fenced", b"offset") for code in answer[1::2])
    if script in ("finish", "fail", "release"):
        return answer[0] in (b"invalid", b"unknown", b"fenced", b"offset", b"epoch")
    return answer == [b"epoch"] or (answer == b"unknown" and script == "withdraw")


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_arbitrary_arguments_leave_every_job_whole(shared_redis_server, namespace, data):
    stage = Stage(shared_redis_server, namespace)
    try:
        _, job = running(stage, max_tokens=9)
        called = data.draw(st.sampled_from(sorted(calls(stage, job))))
        script = SCRIPT_OF.get(called, called)
        arguments = list(calls(stage, job)[called])
        for place in data.draw(st.lists(st.integers(0, len(arguments) - 1), max_size=3, unique=True)):
            arguments[place] = data.draw(JUNK)
        if data.draw(st.integers(0, 9)) == 0:
            arguments = arguments[: data.draw(st.integers(0, len(arguments)))]
        before = dump(stage)
        answer = answer_of(stage, script, *arguments)
        if answer == "INVALID" or is_refusal(script, answer):
            assert dump(stage) == before, "what is refused has no effect"
        check(stage)
        # With a short life that is allowed, Redis has forgotten by now what these ended.
        come_to_an_end(stage, may_be_forgotten=script in ("seal", "disown", "cancel"))
    finally:
        stage.close()


STATES = {"placed", "running", "succeeded", "failed", "withdrawn"}


def check(stage):
    """Whatever was accepted, all that Redis holds can be read, and agrees with itself."""
    for key in stage.redis.scan_iter(f"{stage.keys.prefix}:job:*"):
        job_id = key.removeprefix(f"{stage.keys.prefix}:job:".encode())
        values = stage.redis.hgetall(key)
        state, offset, number = values[b"state"].decode(), int(values[b"offset"]), int(values[b"run"])
        assert state in STATES or values[b"closed"] == b"1"
        entries = stage.redis.xrange(stage.keys.stream("").encode() + job_id)
        events = read_events(entries)
        assert {event.kind for event in events} <= EVENT_KINDS
        assert sum(event.is_last for event in events) <= 1
        assert len(read_pieces(entries, number)) == offset
        leased = stage.redis.zscore(stage.keys.leases, b"j " + job_id)
        assert (leased is not None) == (state == "running"), "what runs has a lease"


def come_to_an_end(stage, *, may_be_forgotten=False):
    """Each job that the database would place anew ends once, with an outcome that can be read."""
    outcomes = Outcomes(stage.redis, stage.keys, "me")
    try:
        ended = {}
        for _ in range(4):
            entries, unreadable = outcomes.read(100, 0)
            assert unreadable == [], "every outcome can be read"
            for entry in entries:
                ended[entry.outcome.job_id] = entry.outcome.kind
            outcomes.acknowledge([entry.entry_id for entry in entries])
            leased = stage.redis.zrange(stage.keys.leases, 0, -1)
            if leased:
                stage.redis.zadd(stage.keys.leases, dict.fromkeys(leased, 1))
            stage.tick()
            for job_id in ("a", "waiting"):
                if isinstance(known(stage, job_id), KnownJob) and stage.field(job_id, "avoid"):
                    stage.redis.hset(stage.keys.job(job_id), "avoid", "")
            worker = stage.worker("last")
            pools = [pool.decode(errors="surrogateescape") for pool in stage.redis.smembers(stage.keys.pools)]
            for pool in pools:
                for drawn in draw(worker, 10, pools=(pool.encode(errors="surrogateescape"),)):
                    worker.finish(growth(drawn, 1))
        for job_id in ("a", "waiting"):
            found = known(stage, job_id)
            if found is None and may_be_forgotten:
                continue
            state = found.state
            closed = stage.field(job_id, "closed") == "1"
            assert closed or ended.get(job_id) == state, "both sides agree"
    finally:
        outcomes.close()
