"""The last event of a job says the same whether Redis has it or the database."""

import pytest
import redis

from support.event_streams import EventStream
from support.waiting import PATIENCE_SECONDS, eventually


@pytest.mark.parametrize(
    ("model", "ends_it", "state", "code"),
    [
        ("broken", False, "dead", "engine_failed"),
        ("slow", True, "cancelled", "cancelled"),
        ("counter", False, "succeeded", None),
    ],
)
def test_it_does_not_change_when_redis_has_forgotten_the_job(service, gateway, model, ends_it, state, code):
    client = service.client(on_loop=False)
    job = client.submit(model, "one two", max_tokens=1_000 if ends_it else 8)
    stream = EventStream(gateway, job.job_id)
    events = stream.events()
    if ends_it:
        next(kind for _, kind, _ in events if kind == "delta")
        job.cancel()
    *_, live = events
    stream.close()
    status = eventually(
        lambda: (found := job.status()).finished_at and found, PATIENCE_SECONDS, "the end is recorded"
    )
    assert status.state == state
    assert status.attempts >= 1
    with redis.Redis.from_url(service.settings.redis.url) as client_of_redis:
        kept_keys = list(client_of_redis.scan_iter(f"*{job.job_id}*"))
        assert kept_keys
        client_of_redis.delete(*kept_keys)
    stream = EventStream(gateway, job.job_id)
    *_, kept = stream.events()
    stream.close()
    assert kept == live
    assert live[2].get("code") == code
    if state == "dead":
        assert "it broke" in live[2]["message"]
