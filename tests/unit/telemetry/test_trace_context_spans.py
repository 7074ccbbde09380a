"""The spans of messages, made by OpenTelemetry's own SDK."""

import subprocess
import sys
from types import SimpleNamespace

import dramatiq
import pytest
from dramatiq import Message, Worker
from dramatiq.broker import MessageProxy
from dramatiq.brokers.stub import StubBroker
from dramatiq.errors import Retry
from dramatiq.middleware import Retries
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from tether.telemetry.traces import TraceContext

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def sdk():
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield SimpleNamespace(
        provider=provider,
        tracer=provider.get_tracer("user"),
        middleware=TraceContext(tracer_provider=provider),
        spans=lambda: {span.name: span for span in exporter.get_finished_spans()},
        all_spans=exporter.get_finished_spans,
    )
    provider.shutdown()


def proxy(**options) -> MessageProxy:
    return MessageProxy(Message("default", "act", (), {}, options))


def attempt(sdk, message: MessageProxy, exception: BaseException | None = None):
    sdk.middleware.before_process_message(None, message)
    sdk.middleware.after_process_message(None, message, exception=exception)
    return sdk.spans()["process act"]


def test_one_trace_goes_from_the_sender_s_span_through_the_actor_to_what_that_sends(sdk):
    broker = StubBroker(middleware=[sdk.middleware])

    @dramatiq.actor(broker=broker)
    def second():
        pass

    @dramatiq.actor(broker=broker)
    def first():
        with sdk.tracer.start_as_current_span("inside"):
            second.send()

    with sdk.tracer.start_as_current_span("request"):
        sent = first.send()
    worker = Worker(broker, worker_timeout=10, worker_threads=1)
    worker.start()
    try:
        broker.join("default", timeout=20_000)
        worker.join()
    finally:
        worker.stop()

    spans = sdk.spans()
    assert set(spans) == {"request", "process first", "inside", "process second"}
    assert len({span.context.trace_id for span in spans.values()}) == 1
    parents = {name: span.parent and span.parent.span_id for name, span in spans.items()}
    assert parents == {
        "request": None,
        "process first": spans["request"].context.span_id,
        "inside": spans["process first"].context.span_id,
        "process second": spans["inside"].context.span_id,
    }
    assert spans["process first"].kind is SpanKind.CONSUMER
    assert spans["process first"].attributes == {
        "messaging.system": "tether",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "default",
        "messaging.message.id": sent.message_id,
        "tether.actor": "first",
    }
    assert spans["process first"].status.status_code is StatusCode.UNSET


def test_a_message_sent_outside_of_any_span_begins_its_trace_with_a_send_span(sdk):
    message = Message("default.DQ", "act", (), {}, {})
    sdk.middleware.before_enqueue(None, message, 5)
    span = sdk.spans()["send default"]
    assert span.kind is SpanKind.PRODUCER
    assert message.options["traceparent"] == f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"


def test_a_trace_that_the_sampler_left_out_stays_left_out():
    sender = TraceContext(tracer_provider=TracerProvider(sampler=ALWAYS_OFF))
    message = Message("default", "act", (), {}, {})
    sender.before_enqueue(None, message, None)
    assert message.options["traceparent"].endswith("-00")


def test_a_trace_begun_in_a_process_without_the_sdk_is_recorded_by_one_with_it(sdk):
    message = proxy()
    TraceContext().before_enqueue(None, message, None)
    span = attempt(sdk, message)
    assert f"{span.context.trace_id:032x}" == message.options["traceparent"][3:35]


def test_an_attempt_at_a_message_without_a_context_is_the_root_of_a_trace_that_its_retries_share(sdk):
    message = proxy(traceparent="junk", tracestate="a=b")
    span = attempt(sdk, message)
    assert span.parent is None
    assert message.options == {
        "traceparent": f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"
    }


def test_the_tracestate_reaches_the_span_and_what_is_sent_under_it(sdk):
    message, sent = proxy(traceparent=TRACEPARENT, tracestate="congo=t61"), proxy()
    sdk.middleware.before_process_message(None, message)
    sdk.middleware.before_enqueue(None, sent, None)
    sdk.middleware.after_process_message(None, message)
    assert sent.options["tracestate"] == "congo=t61"
    assert sent.options["traceparent"][3:35] == TRACEPARENT[3:35]
    assert sent.options["traceparent"][36:52] != TRACEPARENT[36:52]


def test_a_failure_is_recorded_without_the_credentials_in_its_text(sdk):
    try:
        raise ValueError("no answer from redis://u:hunter2@h/0")
    except ValueError as error:
        span = attempt(sdk, proxy(), error)
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "no answer from redis://u:***@h/0"
    assert span.attributes["error.type"] == "ValueError"
    (event,) = span.events
    assert event.name == "exception"
    assert event.attributes["exception.type"] == "ValueError"
    assert "redis://u:***@h/0" in event.attributes["exception.stacktrace"]
    assert "hunter2" not in span.to_json()


def test_a_retry_that_an_actor_asked_for_is_told_but_is_no_error(sdk):
    span = attempt(sdk, proxy(), Retry("later"))
    assert span.status.status_code is StatusCode.UNSET
    assert [event.name for event in span.events] == ["exception"]


def test_an_exception_without_a_text_of_its_own_ends_the_span_all_the_same(sdk):
    class Hostile(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert attempt(sdk, proxy(), Hostile()).status.status_code is StatusCode.ERROR


def test_a_skipped_message_says_so_and_one_that_failed_is_an_error(sdk):
    message = proxy()
    message.fail()
    sdk.middleware.before_process_message(None, message)
    sdk.middleware.after_skip_message(None, message)
    span = sdk.spans()["process act"]
    assert span.attributes["tether.skipped"] is True
    assert span.status.status_code is StatusCode.ERROR


def test_every_attempt_has_a_span_of_its_own_in_one_trace(sdk):
    broker = StubBroker(middleware=[sdk.middleware, Retries(max_retries=2, min_backoff=1, max_backoff=2)])

    @dramatiq.actor(broker=broker)
    def act():
        raise ValueError("again")

    act.send()
    worker = Worker(broker, worker_timeout=10, worker_threads=1)
    worker.start()
    try:
        broker.join("default", fail_fast=False, timeout=20_000)
        worker.join()
    finally:
        worker.stop()
    spans = [span for span in sdk.all_spans() if span.name == "process act"]
    assert len(spans) == 3
    assert len({span.context.trace_id for span in sdk.all_spans()}) == 1
    assert len({span.parent.span_id for span in spans}) == 1


SCRIPT = """
import sys
from dramatiq import Message
from tether.telemetry.traces import TraceContext

middleware = TraceContext()
before = Message("default", "act", (), {}, {})
middleware.before_enqueue(None, before, None)
assert not [name for name in sys.modules if name.startswith("opentelemetry.sdk")], "the SDK was imported"

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
middleware.before_enqueue(None, Message("default", "act", (), {}, {}), None)
print([span.name for span in exporter.get_finished_spans()])
"""


def test_the_sdk_is_not_needed_and_is_used_as_soon_as_a_program_sets_its_provider():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("['send default']\n", "")
