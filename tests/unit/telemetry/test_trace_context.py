"""The trace context of messages in a process without OpenTelemetry's SDK."""

import asyncio
import threading
from random import Random

import dramatiq
import pytest
from dramatiq import Message, Worker, pipeline
from dramatiq.broker import MessageProxy
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import AsyncIO, Middleware, MiddlewareError, Pipelines, Retries, SkipMessage
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tether.telemetry.logs import _IDS, log_context
from tether.telemetry.trace_context import (
    is_traceparent,
    new_traceparent,
    read_trace_context,
    write_traceparent,
)
from tether.telemetry.traces import TraceContext

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
INVALID = [
    None,
    7,
    b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ["x"],
    {},
    "",
    "00",
    TRACEPARENT.upper(),
    TRACEPARENT[:-1],
    TRACEPARENT + "0",
    TRACEPARENT + "-00",
    TRACEPARENT + "\n",
    " " + TRACEPARENT,
    "ff" + TRACEPARENT[2:],
    "cc" + TRACEPARENT[2:] + "x",
    "cc" + TRACEPARENT[2:] + "\n",
    "cc" + TRACEPARENT[2:] + "-" + "x" * 600,
    "0x" + TRACEPARENT[2:],
    TRACEPARENT.replace("-", "_"),
    f"00-{'0' * 32}-b7ad6b7169203331-01",
    f"00-{TRACE_ID}-{'0' * 16}-01",
    f"00-{TRACE_ID}-b7ad6b7169203331-0g",
    "00-０af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
]


def message(**options) -> Message:
    return Message("default", "act", (), {}, options)


def ids_here() -> tuple[str | None, dict]:
    span = trace.get_current_span().get_span_context()
    return (f"{span.trace_id:032x}" if span.is_valid else None, dict(_IDS.get()))


def trace_id_of(message: Message) -> str:
    assert is_traceparent(message.options["traceparent"])
    return message.options["traceparent"][3:35]


# The two fields.


@pytest.mark.parametrize("value", INVALID, ids=repr)
def test_what_is_no_traceparent_reads_as_absent(value):
    assert not is_traceparent(value)
    assert read_trace_context(value) is None


@pytest.mark.parametrize(
    ("value", "sampled"),
    [
        (TRACEPARENT, True),
        (TRACEPARENT[:-2] + "00", False),
        (TRACEPARENT[:-2] + "fe", False),
        ("cc" + TRACEPARENT[2:], True),
        ("cc" + TRACEPARENT[2:] + "-what-the-future-will-be-like", True),
        ("cc" + TRACEPARENT[2:] + "-", True),
    ],
)
def test_a_traceparent_is_read_also_that_of_a_later_version(value, sampled):
    context = read_trace_context(value)
    assert context is not None
    assert (context.is_valid, context.is_remote, context.trace_flags.sampled) == (True, True, sampled)
    assert write_traceparent(context) == TRACEPARENT[:-1] + str(int(sampled))


hexadecimal = "0123456789abcdef"
nearly_traceparents = st.builds(
    "-".join,
    st.tuples(
        st.sampled_from(["00", "01", "cc", "fe", "ff", "0"]) | st.text(hexadecimal, max_size=3),
        st.text(hexadecimal, min_size=32, max_size=32)
        | st.just("0" * 32)
        | st.text(hexadecimal, max_size=33),
        st.text(hexadecimal, min_size=16, max_size=16)
        | st.just("0" * 16)
        | st.text(hexadecimal, max_size=17),
        st.text(hexadecimal, min_size=2, max_size=2) | st.sampled_from(["01-", "01-x", "1", "01x"]),
    ),
)


@given(value=nearly_traceparents)
def test_the_same_is_valid_here_and_for_opentelemetry(value):
    theirs = TraceContextTextMapPropagator().extract({"traceparent": value}, context=otel_context.Context())
    span = trace.get_current_span(theirs).get_span_context()
    ours = read_trace_context(value)
    if ours is None:
        assert not span.is_valid
    else:
        assert (ours.trace_id, ours.span_id) == (span.trace_id, span.span_id)
        assert ours.trace_flags.sampled == span.trace_flags.sampled


@given(value=st.none() | st.text() | st.binary() | st.integers() | st.lists(st.text()))
def test_no_tracestate_makes_reading_fail(value):
    assert read_trace_context(TRACEPARENT, value) is not None


def test_a_tracestate_is_kept_and_one_that_is_too_long_is_dropped():
    context = read_trace_context(TRACEPARENT, "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7")
    assert context is not None
    assert context.trace_state.to_header() == "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"
    long = ",".join(f"k{number}={'v' * 250}" for number in range(40))
    assert not read_trace_context(TRACEPARENT, long).trace_state


def test_new_trace_ids_are_valid_come_from_the_given_source_and_differ():
    assert new_traceparent(Random(1)) == new_traceparent(Random(1))
    random = Random(2)
    made = {new_traceparent(random) for _ in range(1000)}
    assert len(made) == 1000
    assert all(is_traceparent(one) for one in made)


def test_an_id_of_zeros_is_drawn_again():
    class Zeros(Random):
        answers = [0, 5, 0, 6]  # noqa: RUF012

        def getrandbits(self, k: int) -> int:
            return self.answers.pop(0)

    assert new_traceparent(Zeros()) == f"00-{5:032x}-{6:016x}-01"


# Sending.


@pytest.mark.parametrize("value", INVALID, ids=repr)
def test_a_message_with_an_invalid_context_gets_a_new_one(value):
    sent = message(traceparent=value, tracestate="a=b")
    TraceContext().before_enqueue(None, sent, None)
    assert trace_id_of(sent) != TRACE_ID
    assert "tracestate" not in sent.options


def test_a_message_with_a_valid_context_keeps_it():
    sent = message(traceparent=TRACEPARENT, tracestate="a=b")
    TraceContext().before_enqueue(None, sent, None)
    assert sent.options == {"traceparent": TRACEPARENT, "tracestate": "a=b"}


def test_a_message_gets_the_context_of_the_current_span():
    span = trace.NonRecordingSpan(read_trace_context(TRACEPARENT, "a=b"))
    token = otel_context.attach(trace.set_span_in_context(span))
    try:
        sent = message()
        TraceContext().before_enqueue(None, sent, None)
    finally:
        otel_context.detach(token)
    assert sent.options == {"traceparent": TRACEPARENT, "tracestate": "a=b"}


def test_messages_sent_outside_of_any_span_have_traces_of_their_own():
    middleware, one, two = TraceContext(), message(), message()
    middleware.before_enqueue(None, one, None)
    middleware.before_enqueue(None, two, None)
    assert trace_id_of(one) != trace_id_of(two)


# Working, with Dramatiq's own worker.


class Outermost(Middleware):
    """Sees what is bound on the worker's thread before the first and after the last of the others."""

    def __init__(self) -> None:
        self.before: list = []
        self.after: list = []

    def before_process_message(self, broker, message):
        self.before.append(ids_here())

    def after_process_message(self, broker, message, *, result=None, exception=None):
        self.after.append(ids_here())

    def after_skip_message(self, broker, message):
        self.after.append(ids_here())


class Raising(Middleware):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def before_process_message(self, broker, message):
        raise self.error


class Station:
    """A stub broker with a worker of one thread."""

    def __init__(self, *middleware: Middleware) -> None:
        self.outermost = Outermost()
        self.broker = StubBroker(middleware=[self.outermost, *middleware])
        self.broker.emit_after("process_boot")
        self.seen: list[tuple[str | None, dict]] = []

    def actor(self, function=None, **options):
        return dramatiq.actor(function, broker=self.broker, actor_name=options.pop("name", "act"), **options)

    def work(self) -> None:
        worker = Worker(self.broker, worker_timeout=10, worker_threads=1)
        worker.start()
        try:
            for queue in list(self.broker.queues):
                self.broker.join(queue, fail_fast=False, timeout=20_000)
            worker.join()
        finally:
            worker.stop()


def test_an_actor_sees_its_message_s_trace_and_ids_and_the_thread_keeps_nothing_of_them():
    station = Station(TraceContext())
    act = station.actor(lambda: station.seen.append(ids_here()))
    sent = act.send_with_options(correlation_id="c", traceparent=TRACEPARENT)
    other = act.send()
    station.work()
    ids = {"actor": "act", "queue": "default"}
    assert station.seen == [
        (TRACE_ID, {**ids, "message_id": sent.message_id, "correlation_id": "c"}),
        (trace_id_of(other), {**ids, "message_id": other.message_id}),
    ]
    assert station.outermost.before == station.outermost.after == [(None, {})] * 2


def test_a_message_sent_by_an_actor_belongs_to_its_trace_and_so_does_one_that_it_is_piped_to():
    station = Station(TraceContext(), Pipelines())
    last = station.actor(lambda *_: station.seen.append(ids_here()), name="last")
    first = station.actor(lambda: last.send() and None, name="first")
    pipeline([first.message(), last.message()], broker=station.broker).run()
    station.work()
    assert len(station.seen) == 2
    assert station.seen[0][0] == station.seen[1][0] is not None


def test_a_retry_keeps_the_trace():
    station = Station(TraceContext(), Retries(max_retries=2, min_backoff=1, max_backoff=2))

    @station.actor
    def act():
        station.seen.append(ids_here())
        raise ValueError("again")

    sent = act.send()
    station.work()
    assert [trace_id for trace_id, _ in station.seen] == [trace_id_of(sent)] * 3
    assert station.outermost.after == [(None, {})] * 3


def test_a_message_sent_without_the_middleware_has_one_trace_through_its_retries():
    station = Station(Retries(max_retries=1, min_backoff=1, max_backoff=2))

    @station.actor
    def act():
        station.seen.append(ids_here())
        raise ValueError("again")

    act.send()
    station.broker.add_middleware(TraceContext())
    station.work()
    first, second = (trace_id for trace_id, _ in station.seen)
    assert first == second is not None


@pytest.mark.parametrize("value", INVALID[1:3] + INVALID[5:], ids=repr)
def test_an_invalid_context_from_another_program_does_not_keep_an_actor_from_running(value):
    proxy = MessageProxy(message(traceparent=value, tracestate=7))
    middleware = TraceContext()
    middleware.before_process_message(None, proxy)
    inside = ids_here()
    middleware.after_process_message(None, proxy)
    assert inside[0] not in (None, TRACE_ID)
    assert ids_here() == (None, {})


@pytest.mark.parametrize("error", [SkipMessage("s"), MiddlewareError("e"), RuntimeError("r")], ids=repr)
@pytest.mark.parametrize("first", [True, False])
def test_nothing_stays_bound_when_another_middleware_ends_the_attempt(error, first):
    raising = Raising(error)
    station = Station(*((raising, TraceContext()) if first else (TraceContext(), raising)))
    act = station.actor(lambda: None)
    act.send()
    act.send()
    station.work()
    assert station.outermost.before == station.outermost.after == [(None, {})] * 2


def test_an_actor_that_leaves_a_context_attached_does_not_leak_it():
    station = Station(TraceContext())

    @station.actor
    def act():
        otel_context.attach(otel_context.set_value("left", "behind"))

    act.send()
    station.work()
    assert station.outermost.after == [(None, {})]


def test_what_an_attempt_without_an_end_left_bound_goes_with_the_next_one():
    middleware, one, two = TraceContext(), MessageProxy(message()), MessageProxy(message())
    middleware.before_process_message(None, one)
    middleware.before_process_message(None, two)
    assert ids_here()[1]["message_id"] == two.message_id
    middleware.after_process_message(None, one)
    assert ids_here()[1]["message_id"] == two.message_id
    middleware.after_process_message(None, two)
    middleware.after_process_message(None, two)
    assert ids_here() == (None, {})


def test_threads_that_work_at_once_do_not_see_each_other_s_ids():
    middleware = TraceContext()
    together = threading.Barrier(4, timeout=60)
    seen = {}

    def work(proxy: MessageProxy) -> None:
        middleware.before_process_message(None, proxy)
        together.wait()
        inside = ids_here()
        together.wait()
        middleware.after_process_message(None, proxy)
        seen[proxy.message_id] = (inside, ids_here())

    proxies = [MessageProxy(message(traceparent=new_traceparent(Random(n)))) for n in range(4)]
    threads = [threading.Thread(target=work, args=(proxy,)) for proxy in proxies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for proxy in proxies:
        (trace_id, ids), after = seen[proxy.message_id]
        assert (trace_id, ids["message_id"]) == (trace_id_of(proxy), proxy.message_id)
        assert after == (None, {})


def test_an_async_actor_sees_its_message_s_trace_and_ids():
    station = Station(TraceContext(), AsyncIO())

    @station.actor
    async def act():
        await asyncio.sleep(0)
        with log_context(job_id="j"):
            await asyncio.sleep(0)
            station.seen.append(ids_here())

    sent = act.send_with_options(traceparent=TRACEPARENT)
    other = act.send()
    station.work()
    assert [(trace_id, ids["message_id"], ids["job_id"]) for trace_id, ids in station.seen] == [
        (TRACE_ID, sent.message_id, "j"),
        (trace_id_of(other), other.message_id, "j"),
    ]
    assert station.outermost.after == [(None, {})] * 2
