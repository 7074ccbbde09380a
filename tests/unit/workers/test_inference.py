"""What a slot does with a drawn job, on a port in memory."""

import json
import threading

import pytest
import structlog

from support.drawn_jobs import body_of, drawn_job
from support.fake_port import FakePort
from support.waiting import eventually, join
from tether.broker.pools.slots import Slots
from tether.broker.pools.worker_port import WriteResult, WriteStatus
from tether.config.settings import ModelSettings
from tether.errors import JobRefused, UnknownModel
from tether.jobs import Message, Piece, Sampling
from tether.models.registry import ModelVersion, pool_name
from tether.outcomes import Fence
from tether.requests.payload import PAYLOAD_VERSION, READABLE_VERSIONS
from tether.streams.token_log import encode_pieces
from tether_workers.attempts.attempt import AttemptEnding
from tether_workers.attempts.running import Attempts
from tether_workers.attempts.token_writer import TokenWriter
from tether_workers.base import BaseWorker, ResultKind
from tether_workers.engine import Delta
from tether_workers.engines.null.engine import NullEngine
from tether_workers.inference import Inference, inference_stages
from tether_workers.job import read_drawn_job
from tether_workers.loading import EngineLoader
from tether_workers.stages.load import LoadModel
from tether_workers.tenant_shares import TenantShare, TenantShares

SECRET = "hunter2"


class ScriptedEngine:
    """Yields what it was given; a callable among it is called, an exception raised."""

    def __init__(self, *steps, repeatable=False):
        self.steps = steps
        self.repeatable = repeatable
        self.started = []
        self.prompts = []
        self.is_closed = False

    def encode(self, prompt):
        self.prompts.append(prompt)
        return (1, 2, 3)

    def start(self, prompt_ids, accepted_ids, sampling, cancelled):
        self.started.append(tuple(accepted_ids))
        try:
            for step in self.steps:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, Delta):
                    yield step
                else:
                    step()
        finally:
            self.is_closed = True

    def close(self):
        pass


class Team(BaseWorker):
    def __init__(self):
        self.results = []

    def after_result(self, job, result):
        self.results.append(result)


class Bench:
    """A slot with a port, its token writer (not running: tests flush), and one engine."""

    def __init__(self):
        self.port = FakePort()
        self.flush = TokenWriter(self.port)
        self.attempts = Attempts(clock=lambda: 0.0, on_unwritten=self.flush.note)
        self.base = Team()
        self.stages = None
        self.slots = Slots(4)
        self.shares = TenantShares(TenantShare(), lambda: 0.0)
        self.engine = NullEngine()
        self.model = ModelSettings(name="count", engine="null")
        self.served = {}

    def loader(self):
        return EngineLoader(
            [self.model],
            {"null": lambda model, adapter: self.engine},
            before_load=self.base.before_load,
            on_change=lambda: None,
        )

    def inference(self):
        stages = self.stages or inference_stages(self.loader(), self.base, self.shares, self.slots)
        return Inference(self.port, self.attempts, stages, self.base, self.served)

    def draw(self, *arguments, **changes):
        drawn = self.port.hold(drawn_job(*arguments, **changes))
        self.attempts.began(drawn)
        return self.attempts.find(drawn.fence.draw_id)

    def run(self, attempt):
        self.inference().run(attempt.drawn.fence.draw_id)
        assert attempt not in self.attempts.all()
        return self.base.results[-1] if self.base.results else None

    def stream(self, number=1):
        return self.port.streams[f"job-{number}"]


@pytest.fixture
def bench():
    return Bench()


def delta(offset, *texts, reason=None):
    ids = tuple(range(offset, offset + len(texts)))
    return Delta(offset, ids, texts, reason)


def test_a_short_job_takes_one_call_after_its_draw(bench):
    result = bench.run(bench.draw(body=body_of(max_tokens=20)))
    assert bench.port.calls == ["finish"]
    assert (result.kind, result.offset, result.made) == (ResultKind.SUCCEEDED, 20, 20)
    assert bench.stream().end == {"input_tokens": 3, "reason": "length"}
    assert len(bench.stream().texts()) == 20


def test_it_goes_on_from_the_tokens_of_former_attempts(bench):
    whole = [
        piece
        for d in NullEngine().start(
            NullEngine().encode("one two three"), (), Sampling(max_tokens=30), threading.Event()
        )
        for piece in map(Piece, d.token_ids, d.texts)
    ]
    drawn = bench.draw(made=whole[:11], body=body_of(max_tokens=30), lossy=True)
    bench.run(drawn)
    assert bench.stream().texts() == [piece.text for piece in whole[11:]]
    assert bench.stream().run == 0


def test_a_job_whose_tokens_are_all_made_is_finished_without_the_engine(bench):
    bench.engine = ScriptedEngine()
    bench.run(bench.draw(made=[Piece(1, "a"), Piece(2, "b")], body=body_of(max_tokens=2)))
    assert bench.stream().end["reason"] == "length"
    assert bench.engine.started == []


@pytest.mark.parametrize(("dispatch", "run", "new_run"), [(1, 0, 1), (1, 4, 5), (3, 0, 513), (2, 300, 301)])
def test_lost_tokens_begin_a_new_run_where_they_are_not_made_again_equally(bench, dispatch, run, new_run):
    bench.engine = ScriptedEngine(delta(0, "x", "y", reason="stop"))
    bench.flush.start()
    bench.run(bench.draw(made=[Piece(1, "a")], run=run, dispatch=dispatch, lossy=True))
    bench.flush.stop()
    stream = bench.stream()
    assert bench.engine.started == [()]
    assert (stream.run, stream.offset, stream.texts()) == (new_run, 2, ["x", "y"])
    assert stream.state == "succeeded"


OLD, NEW = (ModelVersion(name="count", version=version, digest=version * 64, context=99) for version in "12")
OLD_POOL, NEW_POOL, FAR_POOL = (
    pool_name("cpu", region, version) for region, version in (("eu", OLD), ("eu", NEW), ("us", NEW))
)


def draw_of_new(bench, *, any_version=True, **changes):
    """Draw a job for version 1 from a pool of version 2, which is all that the worker serves."""
    bench.model = ModelSettings(name="count", version="2", engine="null")
    bench.served = {NEW_POOL: NEW}
    body = body_of(max_tokens=5, any_version=any_version)
    return bench.draw(pool=NEW_POOL, body=body, **changes)


def test_a_job_that_takes_any_version_runs_on_that_of_its_pool(bench):
    assert bench.run(draw_of_new(bench)).kind is ResultKind.SUCCEEDED
    assert bench.run(draw_of_new(bench, number=2, any_version=False)).error.code == "model_unknown"


@pytest.mark.parametrize(
    ("changes", "run"),
    [
        ({"began_in": OLD_POOL, "dispatch": 2}, 257),
        ({"began_in": OLD_POOL, "dispatch": 2, "run": 256}, 257),
        ({"lossy": True}, 1),
        ({"began_in": NEW_POOL, "dispatch": 2}, 0),
        ({"began_in": FAR_POOL, "dispatch": 2}, 0),
        ({}, 0),
        ({"began_in": OLD_POOL, "dispatch": 2, "run": 257}, 257),
    ],
)
def test_a_version_goes_on_from_its_own_tokens_alone(bench, changes, run):
    bench.flush.start()
    bench.run(draw_of_new(bench, made=[Piece(1, "a"), Piece(2, "b")], **changes))
    bench.flush.stop()
    assert bench.stream().run == run
    assert len(bench.stream().texts()) == (5 if run != changes.get("run", 0) else 3)


@pytest.mark.parametrize("data", [(b"not json",), (), (encode_pieces([Piece(1, "a")]),)])
def test_tokens_that_are_not_whole_begin_a_new_run_on_any_engine(bench, data):
    bench.flush.start()
    bench.run(bench.draw(offset=2, data=data, body=body_of(max_tokens=5)))
    bench.flush.stop()
    assert (bench.stream().run, bench.stream().offset) == (1, 5)


@pytest.mark.parametrize(
    ("answer", "kind"), [(WriteStatus.CANCELLED, "cancelled"), (WriteStatus.EXPIRED, "expired")]
)
def test_a_job_that_nobody_wants_ends_as_it_was_told(bench, answer, kind):
    attempt = None

    def hear():
        bench.stream().cancel = answer
        bench.flush.flush([attempt])

    bench.engine = ScriptedEngine(delta(0, "a"), hear, delta(1, "b"), delta(2, "c"))
    attempt = bench.draw()
    result = bench.run(attempt)
    assert (result.kind, bench.stream().state) == (kind, kind)
    assert bench.stream().texts() == ["a"]
    assert bench.engine.is_closed


def test_a_fenced_attempt_writes_nothing_more(bench):
    attempt = None

    def lose():
        bench.stream().fence = Fence(1, 2, "other:1")
        bench.flush.flush([attempt])

    bench.engine = ScriptedEngine(delta(0, "a"), lose, delta(1, "b"))
    attempt = bench.draw()
    assert bench.run(attempt).kind is ResultKind.DROPPED
    assert bench.port.calls == ["append_many"]


@pytest.mark.parametrize("is_at_the_end", [False, True])
def test_an_attempt_whose_tokens_are_refused_fails_where_its_stream_stands(bench, is_at_the_end):
    attempt = None

    def refuse():
        if is_at_the_end:
            bench.flush.flush([attempt])
        bench.port.refuses_tokens = True
        bench.flush.flush([attempt])

    bench.engine = ScriptedEngine(delta(0, "a"), refuse, delta(1, "b", reason="stop"))
    attempt = bench.draw()
    result = bench.run(attempt)
    assert (result.kind, bench.stream().state) == (ResultKind.FAILED, "failed")
    assert bench.stream().texts() == (["a"] if is_at_the_end else [])
    error = bench.stream().end["error"]
    assert (error.code, error.retryable) == ("engine_failed", True)
    assert "refused" in error.message


def test_an_attempt_whose_job_is_damaged_in_redis_is_dropped(bench):
    attempt = bench.draw()
    attempt.push([Piece(0, "a")])
    attempt.take()
    attempt.written(WriteResult(WriteStatus.UNREADABLE, 0))
    assert attempt.ending is AttemptEnding.DROP


def test_a_released_attempt_hands_over_what_it_made(bench):
    attempt = None
    bench.engine = ScriptedEngine(
        delta(0, "a"), lambda: attempt.end(AttemptEnding.RELEASE), delta(1, "b"), delta(2, "c", reason="stop")
    )
    attempt = bench.draw()
    assert bench.run(attempt).kind is ResultKind.RELEASED
    assert (bench.stream().state, bench.stream().texts()) == ("placed", ["a"])


def test_an_attempt_that_is_complete_when_it_shall_be_released_is_finished(bench):
    attempt = None
    bench.engine = ScriptedEngine(lambda: attempt.end(AttemptEnding.RELEASE), delta(0, "a", reason="stop"))
    attempt = bench.draw()
    assert bench.run(attempt).kind is ResultKind.SUCCEEDED


def test_an_attempt_that_fails_behind_its_last_tokens_leaves_them_to_the_next_one(bench):
    class Clinging(ScriptedEngine):
        def start(self, *arguments):
            try:
                yield from super().start(*arguments)
            finally:
                bench.flush.flush([attempt])
                raise ValueError("it does not let go")

    bench.engine = Clinging(delta(0, "a"), delta(1, "cut", reason="stop"))
    attempt = bench.draw()
    assert bench.run(attempt).kind is ResultKind.FAILED
    assert bench.stream().texts() == ["a"]


def test_an_engine_that_breaks_fails_the_attempt_without_its_words(bench):
    bench.engine = ScriptedEngine(delta(0, "a"), RuntimeError(f"password={SECRET}"))
    result = bench.run(bench.draw())
    error = bench.stream().end["error"]
    assert (bench.stream().state, bench.stream().texts()) == ("failed", ["a"])
    assert (error.code, error.retryable) == ("engine_failed", True)
    assert SECRET not in error.message
    assert result.error == error


@pytest.mark.parametrize(
    "steps",
    [
        [Delta(0, (1,), ("a",)), Delta(3, (1,), ("a",))],
        [Delta(0, (1, 2), ("a",))],
        [Delta(0, (1,), ("a",))],
        [Delta(0, (1,), (b"a",), "stop")],
        [Delta(0, (b"1",), ("a",), "stop")],
        [Delta(0, (1.5,), ("a",), "stop")],
        [Delta(0, (True,), ("a",), "stop")],
        [Delta(0, (10**5_000,), ("a",), "stop")],
        [Delta(0, 5, ("a",), "stop")],
        [Delta(0, (1,), ("a",), b"stop")],
        [],
    ],
)
def test_an_engine_that_breaks_its_contract_fails_the_attempt(bench, steps):
    bench.engine = ScriptedEngine(*steps)
    bench.run(bench.draw())
    error = bench.stream().end["error"]
    assert (error.code, error.retryable) == ("engine_failed", True)


def test_tokens_beyond_those_asked_for_are_cut(bench):
    bench.engine = ScriptedEngine(delta(0, "a", "b", "c", "d"))
    bench.run(bench.draw(body=body_of(max_tokens=3)))
    assert bench.stream().texts() == ["a", "b", "c"]
    assert bench.stream().end["reason"] == "length"
    assert bench.engine.is_closed


BAD_BODIES = [
    b"\xff",
    b"[]",
    b"[" * 100_000,
    b"{}",
    json.dumps({**json.loads(body_of()), "prompt": "\ud800"}).encode(),
    json.dumps({**json.loads(body_of()), "v": PAYLOAD_VERSION + 1}).encode(),
    json.dumps({**json.loads(body_of()), "v": 0}).encode(),
    json.dumps({**json.loads(body_of()), "v": True}).encode(),
    json.dumps({**json.loads(body_of()), "v": [PAYLOAD_VERSION]}).encode(),
    json.dumps({**json.loads(body_of()), "prompt": 1}).encode(),
    json.dumps({**json.loads(body_of()), "prompt": ""}).encode(),
    json.dumps({**json.loads(body_of()), "messages": [{"role": "user", "content": "x"}]}).encode(),
    *(
        json.dumps({**json.loads(body_of()), "prompt": "", "messages": messages}).encode()
        for messages in ([], {}, ["x"], [{"role": "user"}], [{"role": "tool", "content": "x"}])
    ),
    json.dumps({**json.loads(body_of()), "sampling": None}).encode(),
    json.dumps({**json.loads(body_of()), "sampling": {"max_tokens": True}}).encode(),
    json.dumps({**json.loads(body_of()), "sampling": {"top_p": 0}}).encode(),
    json.dumps({**json.loads(body_of()), "sampling": {"stop": [""]}}).encode(),
    b'{"v":1,"model":"count","version":"1","prompt":"","sampling":{"temperature":NaN}}',
]


@pytest.mark.parametrize("body", BAD_BODIES)
def test_a_body_that_cannot_be_read_fails_for_good(bench, body):
    bench.run(bench.draw(body=body))
    error = bench.stream().end["error"]
    assert (error.code, error.retryable) == ("request_invalid", False)


def test_an_engine_is_given_messages_as_they_were_said(bench):
    said = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    bench.engine = engine = ScriptedEngine(Delta(0, (), (), "stop"))
    bench.run(bench.draw(body=json.dumps({**json.loads(body_of()), "prompt": "", "messages": said}).encode()))
    assert engine.prompts == [(Message("system", "a"), Message("user", "b"))]
    assert bench.stream().end["reason"] == "stop"


def test_bodies_of_this_version_and_the_one_before_are_read():
    assert PAYLOAD_VERSION in READABLE_VERSIONS
    assert set(READABLE_VERSIONS) == {max(PAYLOAD_VERSION - 1, 1), PAYLOAD_VERSION}


def test_a_model_that_is_not_served_fails_here_and_may_be_served_elsewhere(bench):
    bench.run(bench.draw(body=body_of(model="other")))
    error = bench.stream().end["error"]
    assert (error.code, error.retryable) == (UnknownModel.code, True)


def test_an_adapter_that_is_not_configured_fails_for_good(bench):
    bench.run(bench.draw(body=body_of(adapter="other")))
    assert bench.stream().end["error"].retryable is False


@pytest.mark.parametrize("refusal", [JobRefused("not today"), RuntimeError(f"password={SECRET}")])
def test_a_refused_job_fails_for_good_and_loads_nothing(bench, refusal):
    def authorize(job):
        raise refusal

    bench.base.authorize = authorize
    bench.engine = ScriptedEngine()
    bench.run(bench.draw())
    error = bench.stream().end["error"]
    assert (error.code, error.retryable) == ("job_refused", False)
    assert SECRET not in error.message
    assert ("not today" in error.message) == isinstance(refusal, JobRefused)
    assert bench.engine.started == []


def test_hooks_that_raise_end_no_slot(bench):
    def fail(*arguments):
        raise RuntimeError("hook")

    bench.base.after_result = fail
    with structlog.testing.capture_logs() as logs:
        bench.run(bench.draw(body=body_of(max_tokens=2)))
    assert bench.stream().state == "succeeded"
    assert any("after_result" in line["event"] for line in logs)


def test_a_failed_load_fails_the_attempt(bench):
    class Failing:
        def load(self, model, version, adapter, cancelled):
            raise RuntimeError("no room")

    bench.stages = (LoadModel(Failing()),)
    bench.run(bench.draw())
    assert bench.stream().state == "failed"


def test_a_job_whose_engine_is_not_ready_waits_behind_others(bench):
    class Loading:
        def load(self, model, version, adapter, cancelled):
            return None

    bench.stages = (LoadModel(Loading()),)
    bench.run(bench.draw())
    assert (bench.stream().state, bench.stream().is_last) == ("placed", True)


def test_a_lost_reply_to_the_end_ends_it_once(bench):
    bench.port.lost_replies.append("finish")
    result = bench.run(bench.draw(body=body_of(max_tokens=4)))
    assert bench.port.calls == ["finish", "finish"]
    assert (result.kind, result.offset) == (ResultKind.SUCCEEDED, 4)


def test_an_outage_at_the_end_is_waited_out(bench):
    attempt = bench.draw(body=body_of(max_tokens=4))
    bench.port.is_away.set()
    slot = threading.Thread(target=bench.run, args=(attempt,))
    slot.start()
    for _ in range(3):
        assert bench.port.tried.acquire(timeout=60)
    bench.port.is_away.clear()
    join(slot)
    assert bench.stream().state == "succeeded"


def test_a_dropped_attempt_does_not_wait_for_redis(bench):
    attempt = bench.draw(body=body_of(max_tokens=4))
    bench.port.is_away.set()
    slot = threading.Thread(target=bench.run, args=(attempt,))
    slot.start()
    assert bench.port.tried.acquire(timeout=60)
    attempt.end(AttemptEnding.DROP)
    join(slot)
    assert bench.base.results[-1].kind is ResultKind.DROPPED


def test_a_finish_for_which_redis_lost_the_tokens_hands_the_job_over(bench):
    attempt = None

    def lose():
        bench.flush.flush([attempt])
        bench.stream().offset = 0
        bench.stream().pieces = {}

    bench.engine = ScriptedEngine(delta(0, "a"), lose, delta(1, "b", reason="stop"))
    attempt = bench.draw()
    assert bench.run(attempt).kind is ResultKind.RELEASED
    assert (bench.stream().state, bench.stream().offset) == ("placed", 0)


def test_an_attempt_that_lost_tokens_is_not_finished_though_its_engine_is_done(bench):
    attempt = None

    def lose():
        bench.flush.flush([attempt])
        bench.stream().offset = 0
        bench.stream().pieces = {}

    bench.engine = ScriptedEngine(
        delta(0, "a"),
        lose,
        delta(1, "b"),
        lambda: bench.flush.flush([attempt]),
        delta(2, "c", reason="stop"),
    )
    attempt = bench.draw()
    assert bench.run(attempt).kind is ResultKind.RELEASED
    assert (bench.stream().state, bench.stream().offset) == ("placed", 0)
    assert "finish" not in bench.port.calls


def test_an_epoch_that_changed_at_the_end_drops_the_attempt(bench):
    attempt = bench.draw(body=body_of(max_tokens=4))
    bench.port.epoch = 2
    assert bench.run(attempt).kind is ResultKind.DROPPED


def test_only_one_may_begin_an_attempt(bench):
    attempt = bench.draw()
    assert attempt.begin()
    bench.inference().run("boot:1")
    assert bench.port.calls == []


def test_a_draw_that_was_given_back_is_not_run(bench):
    bench.inference().run("boot:1")
    assert bench.port.calls == []


class ScriptedStage:
    """Does what it was given, and notes that it ran."""

    def __init__(self, name, ran, act=lambda work: None):
        self.name = name
        self.ran = ran
        self.act = act

    def run(self, work):
        self.ran.append(self.name)
        self.act(work)


def test_the_stages_of_an_attempt_in_their_order(bench):
    names = [stage.name for stage in inference_stages(bench.loader(), bench.base, bench.shares, bench.slots)]
    assert names == ["authorize", "guard", "load", "encode", "generate"]


@pytest.mark.parametrize(
    ("failure", "code"), [(JobRefused("no"), "job_refused"), (RuntimeError(SECRET), "engine_failed")]
)
def test_a_stage_that_fails_is_the_last_one_before_the_end(bench, failure, code):
    ran = []

    def fail(work):
        raise failure

    bench.stages = [ScriptedStage("a", ran), ScriptedStage("b", ran, fail), ScriptedStage("c", ran)]
    with structlog.testing.capture_logs() as logs:
        result = bench.run(bench.draw())
    assert ran == ["a", "b"]
    assert (result.kind, result.error.code) == (ResultKind.FAILED, code)
    assert bench.stream().end["error"].code == code
    assert SECRET not in result.error.message
    assert [line["stage"] for line in logs if "stage" in line] == ["b"] * (code == "engine_failed")


def test_an_attempt_that_is_told_to_end_goes_to_no_further_stage(bench):
    ran = []
    bench.stages = [
        ScriptedStage("a", ran, lambda work: work.attempt.end(AttemptEnding.CANCELLED)),
        ScriptedStage("b", ran),
    ]
    assert bench.run(bench.draw()).kind is ResultKind.CANCELLED
    assert ran == ["a"]


def test_a_job_whose_adapter_takes_long_to_load_is_handed_back(bench):
    class Loader:
        def load(self, model, version, adapter, cancelled):
            return None

    bench.stages = inference_stages(Loader(), bench.base, bench.shares, bench.slots)
    assert bench.run(bench.draw()).kind is ResultKind.RELEASED
    assert bench.port.calls == ["release"]


def test_flush_and_slot_together_write_a_long_stream_whole(bench):
    bench.flush.start()
    attempt = bench.draw(body=body_of(max_tokens=5_000))
    bench.run(attempt)
    bench.flush.stop()
    assert eventually(lambda: bench.stream().state == "succeeded", 60, "it succeeded")
    assert len(bench.stream().texts()) == 5_000


@pytest.mark.parametrize("options", [b'{"traceparent":7}', b'{"traceparent":"\\ud800"}', b"[1]", b"{"])
def test_a_trace_that_is_none_does_not_fail_the_job(options):
    assert read_drawn_job(drawn_job(options=options)).traceparent == ""
