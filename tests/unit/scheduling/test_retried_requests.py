"""The request of a dead job, made again: its limits are as long as they were."""

from dataclasses import replace

from tether.envelopes import Placeable
from tether.jobs import Priority
from tether.requests.options import check_request
from tether.scheduling.retried_requests import request_of_dead_job

ACCEPTED = 1_800_000_000_000
NOW = ACCEPTED + 86_400_000
PAYLOAD = '{"v":1,"prompt":"hi","sampling":{}}'
DEAD = Placeable(
    job_id="job-1",
    tenant_id="default",
    model="demo",
    model_version="1",
    priority=Priority.BATCH,
    weight=1.0,
    cost=1,
    max_tokens=16,
    payload=PAYLOAD,
)


def again(**changes):
    job = replace(DEAD, **changes)
    keys = {"labels": {}, "correlation_id": "c", "retry_token": "t"}
    return request_of_dead_job(job, **keys, accepted_at=ACCEPTED, now_ms=NOW)


def test_a_job_without_limits_has_none():
    request = again()
    assert (request.prompt, request.priority, request.retry_token) == ("hi", Priority.BATCH, "t")
    assert (request.deadline, request.time_limit_ms) == (0, 0)
    assert (request.expires_at, request.expires_in_ms) == (0, 0)


def test_a_retry_asks_the_same_of_pools():
    asked = {"region": "eu", "gpu_class": "h100", "min_vram": 9, "any_version": True}
    request = again(**asked, prefer="region min_vram")
    assert {name: getattr(request, name) for name in asked} == asked
    assert request.prefer == ("min_vram", "region")
    assert check_request(request) == request


def test_a_deadline_is_as_far_off_as_it_was_from_when_the_job_might_start():
    assert again(deadline=ACCEPTED + 9).deadline == NOW + 9
    late = again(not_before=ACCEPTED + 5, deadline=ACCEPTED + 9)
    assert (late.deadline, late.time_limit_ms, late.not_before) == (NOW + 4, 4, 0)


def test_a_job_that_had_begun_has_as_long_to_begin_in_as_it_had():
    request = again(expires_at=0, expires_in_ms=7, deadline=ACCEPTED + 9)
    assert (request.expires_at, request.expires_in_ms) == (NOW + 7, 7)
    assert request.deadline == NOW + 9
    assert again(expires_at=ACCEPTED + 7, expires_in_ms=7).expires_at == NOW + 7
