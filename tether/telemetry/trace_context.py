"""W3C trace context (https://www.w3.org/TR/trace-context/): its two fields, read, written and made.

What another program wrote into them is never trusted: what is not valid reads as absent.
"""

from __future__ import annotations

import re
from random import Random

from opentelemetry.trace import SpanContext, TraceFlags, TraceState

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"

MAX_TRACESTATE_CHARACTERS = 8_192
"""Characters beyond which a tracestate is dropped; the standard asks for 512 at the least."""

_LENGTH_OF_VERSION_00 = 55
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-[!-~]{0,512})?\Z"
)
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_NOT_SAMPLED = TraceFlags(TraceFlags.DEFAULT)
_NO_STATE = TraceState()


def _match(traceparent: object) -> re.Match[str] | None:
    if not isinstance(traceparent, str):
        return None
    # Only a later version may have more fields, and is read as far as this one is known.
    if traceparent.startswith("00") and len(traceparent) != _LENGTH_OF_VERSION_00:
        return None
    return _TRACEPARENT.match(traceparent)


def is_traceparent(value: object) -> bool:
    """Whether the value is a valid ``traceparent``."""
    return _match(value) is not None


def read_trace_context(traceparent: object, tracestate: object = None) -> SpanContext | None:
    """The span context that the two fields tell of, or None where ``traceparent`` is not valid.

    A ``tracestate`` that is not valid is dropped alone, as the standard asks.
    """
    match = _match(traceparent)
    if match is None:
        return None
    trace_id, span_id, flags = match.groups()
    return SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        True,
        _SAMPLED if int(flags, 16) & TraceFlags.SAMPLED else _NOT_SAMPLED,
        _NO_STATE if tracestate is None else _read_tracestate(tracestate),
    )


def _read_tracestate(tracestate: object) -> TraceState:
    if not isinstance(tracestate, str) or len(tracestate) > MAX_TRACESTATE_CHARACTERS:
        return _NO_STATE
    return TraceState.from_header([tracestate])


def write_traceparent(context: SpanContext) -> str:
    """The ``traceparent`` (version 00) of a span context."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & TraceFlags.SAMPLED:02x}"


def new_traceparent(random: Random) -> str:
    """The ``traceparent`` of a trace that begins here, without a span that anybody records.

    It says "sampled", so that the first program on its way that does record also records this trace.
    """
    return f"00-{_positive_bits(random, 128):032x}-{_positive_bits(random, 64):016x}-01"


def _positive_bits(random: Random, count: int) -> int:
    while True:
        bits = random.getrandbits(count)
        if bits:
            return bits
