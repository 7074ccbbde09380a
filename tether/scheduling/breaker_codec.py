"""Breakers and attempts as Redis keeps them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable

from tether.codec import value_from_json, value_to_json
from tether.ids import JobId, TenantId, WorkerId
from tether.jobs import canonical_json
from tether.scheduling.attempt_samples import AttemptSample
from tether.scheduling.breaker import Breaker

MAX_TIME_MS = 2**53

VERSION = 1
"""Of both. What has another one is not read: the breaker is closed then, and the attempt says nothing."""


def breaker_to_bytes(breaker: Breaker) -> bytes:
    """What Redis keeps of a breaker."""
    return canonical_json({"v": VERSION, **value_to_json(breaker)})


def breaker_from_bytes(data: bytes | None) -> Breaker | None:
    """The breaker that was written; None where there is none, or what stands there cannot be read."""
    if data is None:
        return None
    try:
        document = json.loads(data)
        if not isinstance(document, dict) or document.get("v") != VERSION:
            return None
        breaker = value_from_json(Breaker, document)
    except (ValueError, RecursionError):
        return None
    times = (breaker.opened_at, breaker.until, breaker.since, breaker.trips, breaker.measured_at)
    numbers = (breaker.baseline, breaker.share)
    if not all(0 <= each <= MAX_TIME_MS for each in times) or not all(map(_is_sound, numbers)):
        return None
    return breaker


def sample_to_bytes(sample: AttemptSample) -> bytes:
    """What Redis keeps of an attempt that ended."""
    return canonical_json({"v": VERSION, **value_to_json(sample)})


def samples_from_bytes(texts: Iterable[bytes]) -> list[AttemptSample]:
    """The attempts that can be read."""
    return [sample for text in texts if (sample := _sample(text)) is not None]


def _sample(text: bytes) -> AttemptSample | None:
    try:
        document = json.loads(text)
        if document["v"] != VERSION:
            return None
        sample = AttemptSample(
            at=int(document["at"]),
            began_at=int(document["began_at"]),
            job_id=JobId(str(document["job_id"])),
            tenant=TenantId(str(document["tenant"])),
            worker=WorkerId(str(document["worker"])),
            blame=None if document["blame"] is None else float(document["blame"]),
            ms_per_token=float(document["ms_per_token"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    is_sound = _is_sound(sample.ms_per_token) and (sample.blame is None or 0 <= sample.blame <= 1)
    return sample if is_sound else None


def _is_sound(number: float) -> bool:
    return math.isfinite(number) and number >= 0
