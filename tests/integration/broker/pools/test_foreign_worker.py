"""Workers of other makes: what one of them does by the page alone, and what a hostile one cannot do."""

import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.foreign_worker import HostileWorker, Worker, foreign_worker, load_example
from support.hand_worker import growth
from support.pool_stage import POOL, Stage, draw
from tether.broker.pools.worker_port import Pulse, WriteStatus
from tether.config.loading import load_settings
from tether.jobs import JobError, JobRequest, Priority, Sampling, canonical_json
from tether.orchestrator.port_scripts import PublishPortScripts
from tether.requests.payload import payload_of
from tether.streams.token_log import decode_pieces, read_events

MINE = "mallory"
"""The tenant whose jobs the hostile worker draws: what they cost is its own."""


JOBS = (
    "job:",
    "stream:",
    "pool:gpu.",
    "served:",
    "drawn:honest",
    "core:outcomes",
    "core:leases",
    "core:set_aside",
)
"""What the keys begin with that say what becomes of jobs."""


@pytest.fixture
def stage(shared_redis_server, namespace):
    opened = Stage(shared_redis_server, namespace)
    PublishPortScripts(opened.redis, opened.keys, load_settings(environ={}))()
    yield opened
    opened.close()


def make(kind, stage, shared_redis_server, folder, **options):
    worker = foreign_worker(kind, shared_redis_server, folder, stage.keys.prefix, **options)
    worker.hello()
    return worker


def body(prompt="some words", **changes):
    sampling = Sampling(max_tokens=changes.pop("max_tokens", 100))
    return canonical_json(
        {**payload_of(JobRequest(model="capitals", prompt=prompt, sampling=sampling)), **changes}
    )


def text_of(stage, job_id):
    events = read_events(stage.redis.xrange(stage.keys.stream(job_id)))
    return "".join(
        piece.text for event in events if event.kind == "delta" for piece in decode_pieces(event.data)
    )


def outcome_of(stage, job_id):
    (found,) = [
        {name.decode(): value.decode() for name, value in fields.items()}
        for _, fields in stage.redis.xrange(stage.keys.outcomes)
        if fields[b"job"].decode() == job_id
    ]
    return found


# What the example does.


def test_it_goes_on_where_another_attempt_stopped(stage, shared_redis_server, tmp_path):
    worker = make(Worker, stage, shared_redis_server, tmp_path)
    stage.place("job", pool=worker.pool, body=body("abc" * 10))
    former = stage.worker("former.1")
    (job,) = draw(former, pools=[worker.pool])
    former.append(growth(job, 5))
    former.release(growth(job, offset=5))
    while worker.attempts or stage.field("job", "state") != "succeeded":
        worker.turn()
    assert text_of(stage, "job") == "t0 t1 t2 t3 t4 " + ("ABC" * 10)[5:]
    assert outcome_of(stage, "job")["reason"] == "stop"


def test_it_fails_what_it_cannot_read(stage, shared_redis_server, tmp_path):
    worker = make(Worker, stage, shared_redis_server, tmp_path)
    for number, wrong in enumerate((body(v=2), b"[]", b"no JSON", body(adapter="none"), body(sampling={}))):
        stage.place(f"job-{number}", pool=worker.pool, body=wrong)
    stage.place("job", pool=worker.pool, body=body())
    while stage.field("job", "state") != "succeeded" or worker.attempts:
        worker.turn()
    for number in range(5):
        outcome = outcome_of(stage, f"job-{number}")
        assert (outcome["kind"], json.loads(outcome["error"])["code"]) == ("failed", "request_invalid")


def test_it_asks_again_for_a_draw_whose_answer_was_lost(stage, shared_redis_server, tmp_path):
    worker = make(Worker, stage, shared_redis_server, tmp_path)
    for number in range(3):
        stage.place(f"job-{number}", pool=worker.pool, body=body())
    identity = (worker.epoch, worker.boot_id, 2, worker.number, 600_000)
    arguments = (*identity, 0, 0, worker.process, 0, 1, "body", worker.pool)
    assert len(worker.call("draw", *arguments)) == 2 + 2
    worker.is_answer_owed = True
    worker.draw(4)
    assert [attempt.identity[0] for attempt in worker.attempts] == [b"job-0", b"job-1", b"job-2"]
    assert [attempt.identity[3][-1:] for attempt in worker.attempts] == [b"1", b"2", b"3"]


def test_it_drops_all_when_the_epoch_changes_and_begins_anew(stage, shared_redis_server, tmp_path):
    worker = make(Worker, stage, shared_redis_server, tmp_path, pause=60)
    stage.place("job", pool=worker.pool, body=body("x" * 90))
    worker.turn()
    assert worker.attempts
    stage.redis.set(stage.keys.epoch, 2)
    with pytest.raises(load_example().EpochChanged):
        worker.turn()


def test_a_contract_of_another_version_stops_it(stage, shared_redis_server, tmp_path):
    stage.redis.hset(stage.keys.worker_port, "v", "2")
    with pytest.raises(SystemExit, match="not 2"):
        make(Worker, stage, shared_redis_server, tmp_path)


def copy_of(worker, stage, shared_redis_server, folder, counter):
    """Another process with the same key, which will start with this boot counter."""
    shutil.copytree(worker.folder, folder)
    (folder / "worker.boot").write_text(str(counter - 1))
    return make(Worker, stage, shared_redis_server, folder)


def test_of_two_with_one_key_the_other_goes_on_when_the_first_is_gone(stage, shared_redis_server, tmp_path):
    first = make(Worker, stage, shared_redis_server, tmp_path / "first")
    other = copy_of(first, stage, shared_redis_server, tmp_path / "other", counter=first.boot)
    assert other.boot_id == first.boot_id
    first.turn()
    stage.place("while-both-live", pool=first.pool, body=body())
    other.turn()
    assert (other.is_outranked, other.attempts) == (True, [])
    other.draw(4)
    assert (other.is_outranked, other.attempts) == (True, [])
    bell = stage.keys.wake(first.boot_id)
    rung = stage.redis.rpush(bell, "draw")
    other.turn()
    assert stage.redis.llen(bell) == rung, "the bell is left to the one that draws"
    first.stopping.set()
    first.run()
    other.draw(4)
    assert (other.boot, other.is_outranked) == (first.boot + 1, False)
    assert (other.folder / "worker.boot").read_text() == str(other.boot)
    while stage.field("while-both-live", "state") != "succeeded":
        other.turn()
    assert (other.is_outranked, other.is_unheard, other.boot) == (False, False, first.boot + 1)


def test_one_that_draws_but_is_not_heard_counts_on(stage, shared_redis_server, tmp_path):
    first = make(Worker, stage, shared_redis_server, tmp_path / "first")
    for _ in range(3):
        first.announce("serving")
    first.stopping.set()
    first.run()
    restored = copy_of(first, stage, shared_redis_server, tmp_path / "restored", counter=first.boot)
    stage.place("job", pool=first.pool, body=body())
    while stage.field("job", "state") != "succeeded":
        restored.turn()
    restored.announce("serving")
    assert (restored.boot, restored.is_unheard) == (first.boot + 1, False)


def test_a_reason_that_no_client_knows_counts_as_stop(stage, shared_redis_server, tmp_path):
    worker = make(Worker, stage, shared_redis_server, tmp_path)
    for told, read in (("content_filter", "stop"), ("stop", "stop"), ("length", "length")):
        stage.place(told, pool=worker.pool, body=body("x"))
        worker.draw(1)
        (attempt,) = worker.attempts
        attempt.ending = ("finish", 1, told)
        worker.step()
        assert not worker.attempts
        last = list(read_events(stage.redis.xrange(stage.keys.stream(told))))[-1]
        assert (outcome_of(stage, told)["reason"], json.loads(last.data)["reason"]) == (read, read)


# What a hostile one cannot do.


class Neighbours:
    """A hostile worker with attempts of its own, and others' jobs in every state beside them."""

    def __init__(self, stage, server, folder):
        self.stage = stage
        self.hostile = hostile = make(HostileWorker, stage, server, folder)
        self.honest = stage.worker("honest.1")
        for job_id in ("running", "done", "failed", "waiting"):
            stage.place(job_id)
        self.running, done, failed = draw(self.honest, 3)
        self.honest.fail(
            growth(failed, 1), kind="failed", error=JobError("engine_failed", "it broke", retryable=True)
        )
        self.honest.append(growth(self.running, 3))
        self.honest.finish(growth(done, 2))
        stage.place("idle-no-more", pool=hostile.pool, tenant=MINE, body=body())
        stage.place("lost", pool=hostile.pool, tenant=MINE, body=body(), priority=Priority.INTERACTIVE)
        self.lost = self.drawn_by_hostile("lost")
        stage.lose("lost")
        (self.taken,) = draw(self.honest, pools=[hostile.pool])
        assert self.taken.job_id == "lost"
        self.honest.append(growth(self.taken, 3))
        self.own = self.drawn_by_hostile("idle-no-more")
        # Who speaks of what it lost was not dead: that much of the job is its own.
        assert hostile.send("beat", hostile.epoch, 600_000, *self.lost, 1) == ["ok", "fenced"]
        self.before = self.others()

    def drawn_by_hostile(self, job_id):
        self.hostile.draw(1)
        (attempt,) = [each for each in self.hostile.attempts if each.identity[0] == job_id.encode()]
        self.hostile.attempts.clear()
        return attempt.identity

    def others(self):
        """Everything in Redis that is not the hostile worker's own."""
        found = {}
        for key in sorted(self.stage.redis.scan_iter(self.stage.keys.prefix + ":*")):
            name = key.decode().removeprefix(self.stage.keys.prefix + ":")
            found[name] = [
                entry for entry in self.entries(key) if not self.is_own(name) and not self.is_own(str(entry))
            ]
        return {name: entries for name, entries in found.items() if entries}

    def entries(self, key):
        client = self.stage.redis
        match client.type(key):
            case b"hash":
                return sorted(client.hgetall(key).items())
            case b"zset":
                return client.zrange(key, 0, -1, withscores=True)
            case b"set":
                return sorted(client.smembers(key))
            case b"list":
                return client.lrange(key, 0, -1)
            case b"stream":
                return client.xrange(key)
            case _:
                return [client.get(key)]

    def is_own(self, text):
        worker_id = self.hostile.boot_id.partition(".")[0]
        return any(own in text for own in (worker_id, MINE, "idle-no-more", self.hostile.pool))

    def check(self):
        """Others' state is as it was. Names that nobody has may stand beside it."""
        after = self.others()
        for name, entries in self.before.items():
            found = after.get(name, [])
            if name.startswith(JOBS):
                assert found == entries, name
            assert [entry for entry in entries if entry not in found] == [], name
        assert [name for name in after if name.startswith(JOBS) and name not in self.before] == []


@pytest.fixture
def neighbours(stage, shared_redis_server, tmp_path):
    return Neighbours(stage, shared_redis_server, tmp_path)


def codes(answers):
    """The code of each write."""
    return {
        name: answer[1] if answer[0] == "ok" and name in ("append_many", "restarted", "beat") else answer[0]
        for name, answer in answers.items()
    }


def test_a_write_that_counts_is_seen(neighbours):
    neighbours.check()
    neighbours.honest.beat([Pulse(neighbours.running.job_id, neighbours.running.fence, renew=True)])
    with pytest.raises(AssertionError, match="core:leases"):
        neighbours.check()


FENCED = dict.fromkeys(
    ("append_many", "restarted", "beat", "finish", "failed", "cancelled", "expired"), "fenced"
) | {"release": "ok"}


def test_an_old_fence_writes_nothing(neighbours):
    # Its own former attempt, whose job is another's by now; where it stood, and where it stands.
    for offset in (0, 3):
        assert codes(neighbours.hostile.writes(neighbours.lost, 0, offset)) == FENCED
    neighbours.check()
    neighbours.honest.finish(growth(neighbours.taken, 1, offset=3))


def test_other_boots_jobs_cannot_be_written(neighbours):
    hostile, own_draw = neighbours.hostile, neighbours.own[3]
    victim = neighbours.running
    for dispatch in (0, 1, 2, 99):
        for attempt in (0, 1, 2, 99):
            for draw_id in (own_draw, "", f"{hostile.boot_id}:999", f"{hostile.boot_id}.0:1"):
                identity = (victim.job_id, dispatch, attempt, draw_id)
                assert codes(hostile.writes(identity, 0, 3)) == FENCED
    for job_id in ("waiting", "done", "failed"):
        assert codes(hostile.writes((job_id, 1, 1, own_draw), 0, 0)) == FENCED
    unknown = codes(hostile.writes(("nobody's", 1, 1, own_draw), 0, 0))
    assert set(unknown.values()) == {"unknown"}
    neighbours.check()
    neighbours.honest.finish(growth(victim, 1, offset=3))


@pytest.mark.parametrize("first", ["finish", "fail", "release"])
def test_an_attempt_ends_once(neighbours, first):
    hostile, own = neighbours.hostile, neighbours.own
    place = (hostile.epoch, *own, 0, 0, 0, "{}")
    more = {"finish": (1, "stop"), "fail": ("failed", ""), "release": ()}
    for _ in range(3):
        assert hostile.send(first, *place, *more[first])[0] == "ok"
    for second in set(more) - {first, "release"}:
        assert hostile.send(second, *place, *more[second])[0] == "fenced"
    assert hostile.append(own, 0, 0, 1, '{"t":[1],"s":["x"]}')[1] == "fenced"
    ends = [job_id for job_id, _ in neighbours.stage.outcomes() if job_id == "idle-no-more"]
    assert len(ends) == (first != "release")
    neighbours.check()


def test_gaps_and_what_is_no_token_do_not_get_into_a_stream(neighbours):
    hostile, own = neighbours.hostile, neighbours.own
    token = '{"t":[1],"s":["x"]}'
    for run, offset in ((0, 1), (0, 5), (1, 0), (7, 7)):
        assert hostile.append(own, run, offset, 1, token)[1:] == ["offset", "0"]
    for place in (
        (0, -1, 1),
        (0, 0, -1),
        (-1, 0, 1),
        ("nan", 0, 1),
        (0, "1e400", 1),
        (0, 0, 1.5),
        ("", "", ""),
    ):
        assert hostile.append(own, *place, token)[1] == "invalid"
    for data in (
        "",
        "[]",
        "null",
        "{",
        '{"t":[1]}',
        '{"t":["1"],"s":["x"]}',
        '{"t":[1,2],"s":["x"]}',
        "[" * 2_000,
    ):
        assert hostile.append(own, 0, 0, 1, data)[1] == "invalid"
    for kind in ("started", "finished", "failed", "rerouted", "", "no kind"):
        assert hostile.append(own, 0, 0, 1, token, kind=kind)[1] == "invalid"
    for run in (257, 2**21, 2**53):
        assert hostile.append(own, run, 0, 0, "{}", kind="restarted")[1] == "invalid"
    assert hostile.append(own, 0, 0, 200, json.dumps({"t": [1] * 200, "s": ["x"] * 200}))[1] == "ok"
    assert neighbours.stage.field("idle-no-more", "offset") == "200"
    neighbours.check()


def test_no_order_of_wrong_arguments_reaches_others_or_breaks_a_script(neighbours):
    hostile, victim = neighbours.hostile, neighbours.running
    own_job, dispatch, attempt, own_draw = neighbours.own
    words = [
        *(b"", b"0", b"1", b"2", b"-1", b"1.5", b"nan", b"inf", b"1e400", b"9" * 30, b"\xff\x00", b"x" * 600),
        *(b"{}", b"[]", b'{"t":[1],"s":["x"]}', b"delta", b"restarted", b"stop", b"failed", b"cancelled"),
        *(
            victim.job_id.encode(),
            b"waiting",
            b"done",
            own_job,
            own_draw,
            b"lost",
            b"a pool",
            b"no.pool",
            b"600000",
        ),
        hostile.boot_id.encode(),
    ]
    word = st.sampled_from(words)
    starts = st.sampled_from(
        [
            (),
            (hostile.epoch,),
            (hostile.epoch, b"600000"),
            (hostile.epoch, own_job, dispatch, attempt, own_draw),
            (hostile.epoch, b"600000", own_job, dispatch, attempt, own_draw),
            (hostile.epoch, hostile.boot_id.encode(), b"1", b"1", b"600000", b"0", b"0", b"p", b"0", b"1"),
        ]
    )
    scripts = st.sampled_from(["draw", "append_many", "beat", "finish", "fail", "release", "submit"])

    @settings(max_examples=400)
    @given(scripts, starts, st.lists(word, max_size=12))
    def call(script, start, rest):
        answer = hostile.send(script, *start, *rest)
        assert answer in ("INVALID", "epoch") or isinstance(answer, list), answer

    call()
    neighbours.check()
    neighbours.honest.beat([], expect=WriteStatus.OK)
    neighbours.honest.finish(growth(victim, 1, offset=3))
    assert draw(neighbours.honest, pools=[POOL])[0].job_id == "waiting"


def test_it_tells_the_end_of_the_process_before_it(stage, shared_redis_server, tmp_path):
    former = make(Worker, stage, shared_redis_server, tmp_path, pause=60)
    stage.place("job", pool=former.pool, body=body("x" * 90))
    former.turn()
    assert former.attempts
    former._lock.close()
    worker = make(Worker, stage, shared_redis_server, tmp_path, pause=60)
    worker.turn()
    (death,) = json.loads(stage.field("job", "evidence"))
    assert (death["boot"], death["how"]) == (former.boot_id, "unknown")
    assert (stage.field("job", "state"), stage.field("job", "worker")) == ("running", worker.boot_id)
