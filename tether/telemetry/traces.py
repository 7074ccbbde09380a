"""The middleware that carries a trace from who sends a message to who runs it, and on from there."""

from __future__ import annotations

import threading
from collections.abc import MutableMapping
from contextvars import Token
from random import Random, SystemRandom
from typing import Any

from dramatiq import Message
from dramatiq.broker import Broker, MessageProxy
from dramatiq.common import q_name
from dramatiq.errors import Retry
from dramatiq.middleware import Middleware
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    Tracer,
    TracerProvider,
)

from tether.telemetry.logs import bind_ids, unbind_ids
from tether.telemetry.redaction import plain_exception
from tether.telemetry.trace_context import (
    TRACEPARENT,
    TRACESTATE,
    is_traceparent,
    new_traceparent,
    read_trace_context,
    write_traceparent,
)

MESSAGING_SYSTEM = "tether"
TRACER_NAME = "tether"
_IDS_IN_OPTIONS = ("correlation_id", "job_id")


class _Attempt:
    """What has to be undone when the attempt at a message ends."""

    __slots__ = ("context_token", "ids_token", "message", "span")

    def __init__(self, message: MessageProxy) -> None:
        self.message = message
        self.span: Span | None = None
        self.context_token: Token[Context] | None = None
        self.ids_token: Token[Any] | None = None


class _ThreadState(threading.local):
    attempt: _Attempt | None = None


class TraceContext(Middleware):
    """Propagates W3C trace context in the options ``traceparent`` and ``tracestate`` of Dramatiq messages.

    A message gets the current span's context when it is sent, or starts a new trace. Retries and
    promotions keep it. While an actor runs, its message's context is current: spans that it starts are
    children, messages that it sends belong to the same trace, and its log lines carry the ids.

    Spans (``send <queue>`` where a trace starts, ``process <actor>`` for every attempt) are recorded only in
    a process with a tracer provider, such as OpenTelemetry's SDK. Elsewhere the context is propagated
    unchanged, which the standard allows; no span ids are generated that no backend will ever see.

    Install it first in the list, so that logs and messages of other middleware belong to the trace too.
    Coroutines of async actors see the same context: asyncio copies it from the worker's thread. Threads
    that an actor starts do not (``contextvars.copy_context`` carries it over).
    """

    def __init__(
        self, *, random: Random | None = None, tracer_provider: TracerProvider | None = None
    ) -> None:
        """
        Args:
          random: Where ids of new traces come from. The system's source where not given, which gives
            every forked process ids of its own.
          tracer_provider: What makes spans. OpenTelemetry's global provider where not given, as soon as a
            real one is set.
        """
        self._random = SystemRandom() if random is None else random
        self._here = _ThreadState()
        self._known_tracer = None if tracer_provider is None else tracer_provider.get_tracer(TRACER_NAME)

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int) -> None:
        options = message.options
        if is_traceparent(options.get(TRACEPARENT)):
            return
        current = trace.get_current_span().get_span_context()
        if not current.is_valid:
            tracer = self._tracer()
            if tracer is not None:
                span = tracer.start_span(
                    f"send {q_name(message.queue_name)}",
                    kind=SpanKind.PRODUCER,
                    attributes=_messaging_attributes("send", message),
                )
                current = span.get_span_context()
                span.end()
        self._put(options, current)

    def _put(self, options: MutableMapping[str, Any], context: SpanContext) -> None:
        """Write the context, or that of a new trace where it is not valid, into a message's options."""
        options.pop(TRACESTATE, None)
        if not context.is_valid:
            options[TRACEPARENT] = new_traceparent(self._random)
            return
        options[TRACEPARENT] = write_traceparent(context)
        if context.trace_state:
            options[TRACESTATE] = context.trace_state.to_header()

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        left_over = self._here.attempt
        if left_over is not None:
            self._end(left_over)
        attempt = self._here.attempt = _Attempt(message)
        options = message.options
        parent = read_trace_context(options.get(TRACEPARENT), options.get(TRACESTATE))
        tracer = self._tracer()
        if parent is None and tracer is None:
            self._put(options, INVALID_SPAN_CONTEXT)
            parent = read_trace_context(options[TRACEPARENT])
        context = otel_context.get_current()
        if parent is not None:
            context = trace.set_span_in_context(NonRecordingSpan(parent), context)
        if tracer is not None:
            attempt.span = tracer.start_span(
                f"process {message.actor_name}",
                context,
                kind=SpanKind.CONSUMER,
                attributes=_messaging_attributes("process", message),
            )
            context = trace.set_span_in_context(attempt.span, context)
            if parent is None:
                # Sent by a program without this middleware. Its retries shall have the same trace.
                self._put(options, attempt.span.get_span_context())
        attempt.context_token = otel_context.attach(context)
        ids = {
            "message_id": message.message_id,
            "actor": message.actor_name,
            "queue": message.queue_name,
        }
        for name in _IDS_IN_OPTIONS:
            value = options.get(name)
            if value is not None:
                ids[name] = value
        attempt.ids_token = bind_ids(ids)

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        attempt = self._here.attempt
        # Another middleware can end an attempt before this one saw it begin.
        if attempt is not None and attempt.message is message:
            self._end(attempt, exception)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        attempt = self._here.attempt
        if attempt is not None and attempt.message is message:
            if attempt.span is not None:
                attempt.span.set_attribute("tether.skipped", True)
            self._end(attempt)

    def _end(self, attempt: _Attempt, exception: BaseException | None = None) -> None:
        span, attempt.span = attempt.span, None
        try:
            if span is not None:
                _finish_span(span, attempt.message, exception)
        finally:
            ids_token, attempt.ids_token = attempt.ids_token, None
            if ids_token is not None:
                unbind_ids(ids_token)
            context_token, attempt.context_token = attempt.context_token, None
            if context_token is not None:
                otel_context.detach(context_token)
            self._here.attempt = None

    def _tracer(self) -> Tracer | None:
        """The tracer, once this process has a provider that can make spans."""
        if self._known_tracer is None:
            provider = trace.get_tracer_provider()
            if not isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
                self._known_tracer = provider.get_tracer(TRACER_NAME)
        return self._known_tracer


def _messaging_attributes(operation: str, message: Message[Any] | MessageProxy) -> dict[str, str]:
    """Attributes of a span by OpenTelemetry's semantic conventions for messaging."""
    return {
        "messaging.system": MESSAGING_SYSTEM,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": q_name(message.queue_name),
        "messaging.message.id": message.message_id,
        "tether.actor": message.actor_name,
    }


def _finish_span(span: Span, message: MessageProxy, exception: BaseException | None) -> None:
    try:
        if exception is not None:
            # Not by Span.record_exception: what that writes down still has its credentials.
            described = plain_exception(exception)
            span.add_event(
                "exception",
                {
                    "exception.type": described["type"],
                    "exception.message": described["message"],
                    "exception.stacktrace": described["traceback"],
                },
            )
            if not isinstance(exception, Retry):
                span.set_attribute("error.type", described["type"])
                span.set_status(StatusCode.ERROR, described["message"])
        elif message.failed:
            span.set_status(StatusCode.ERROR, "the message goes to the dead letters")
    finally:
        span.end()
