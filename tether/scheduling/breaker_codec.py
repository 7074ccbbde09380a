"""Breakers and attempts as Redis keeps them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace

from tether.codec import value_from_json, value_to_json
from tether.ids import JobId, TenantId, WorkerId
from tether.jobs import canonical_json
from tether.scheduling.attempt_samples import AttemptSample
from tether.scheduling.breaker import MAX_TENANTS_PASSED_OVER, Breaker

MAX_TIME_MS = 2**53

MIN_MS_PER_TOKEN, MAX_MS_PER_TOKEN = 1e-6, 1e9
"""A speed beyond these was not measured, or is a worker's lie: it says nothing."""

MAX_ID_CHARACTERS = 512
"""An attempt with a longer id of a job, a tenant or a worker is not ours."""

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
    probe = breaker.probe
    ids = (*breaker.passed_over, *(() if probe is None else (probe.job_id, probe.tenant)))
    if not all(0 <= each <= MAX_TIME_MS for each in times) or not 0 <= breaker.share <= 1:
        return None
    if len(breaker.passed_over) > MAX_TENANTS_PASSED_OVER or not all(map(_is_id, ids)):
        return None
    return replace(breaker, baseline=_speed(breaker.baseline))


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
            ms_per_token=_speed(float(document["ms_per_token"])),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    is_sound = 0 <= sample.began_at <= sample.at and (sample.blame is None or 0 <= sample.blame <= 1)
    ids = (sample.job_id, sample.tenant, sample.worker)
    return sample if is_sound and all(map(_is_id, ids)) else None


def _speed(ms_per_token: float) -> float:
    """The same, or 0 where it cannot be one; that which is no number too."""
    return ms_per_token if MIN_MS_PER_TOKEN <= ms_per_token <= MAX_MS_PER_TOKEN else 0.0


def _is_id(text: str) -> bool:
    # A lone surrogate can be read from JSON, and not written again.
    return len(text) <= MAX_ID_CHARACTERS and text.isprintable()
