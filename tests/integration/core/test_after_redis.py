"""Jobs whose keys have left Redis are read from the database: from any offset, by clients of every kind."""

import pytest

from support.clients import TOKENS, Direct, Http
from support.event_streams import EventStream, texts
from support.waiting import PATIENCE_SECONDS, eventually
from tether.broker.pools.outcomes import Outcomes
from tether.errors import JobFailed, OutputLost


@pytest.fixture(scope="module", params=[Direct, Http], ids=["direct", "http"])
def service(request):
    opened = request.param()
    yield opened
    opened.close()


@pytest.fixture(params=[False, True], ids=["threads", "loop"])
def client(request, service):
    return service.client(on_loop=request.param)


def leave(service, job_id):
    """Redis forgets a job, as it does some time after it was sealed."""
    redis, keys = service.cluster.redis, service.cluster.keys
    eventually(lambda: redis.pttl(keys.job(job_id)) >= 0, PATIENCE_SECONDS, "the job is sealed")
    assert redis.delete(keys.job(job_id), keys.stream(job_id)) == 2


def tokens(events):
    return [piece for event in events for piece in event.pieces]


def test_late_readers_get_what_the_first_one_got(service, client):
    job = client.submit()
    seen, result = list(job.events()), job.result()
    leave(service, job.job_id)
    assert job.result() == result
    for offset in range(TOKENS + 1):
        late = list(job.events(offset=offset))
        assert tokens(late) == tokens(seen)[offset:]
        assert (late[-1].kind, late[-1].offset, late[-1].details) == (
            seen[-1].kind,
            TOKENS,
            seen[-1].details,
        )


def test_late_readers_of_a_job_that_died_get_its_tokens_and_why(service, client):
    job = client.submit("broken")
    seen = list(job.events())
    leave(service, job.job_id)
    late = list(job.events(offset=1))
    assert tokens(late) == tokens(seen)[1:]
    assert (late[-1].kind, late[-1].details["state"]) == ("failed", "dead")
    with pytest.raises(JobFailed):
        job.result()


def test_output_that_redis_lost_is_an_error_and_never_an_empty_text(service, client, monkeypatch):
    redis, keys, with_pieces = service.cluster.redis, service.cluster.keys, Outcomes.with_pieces

    def lose(outcomes, entries):
        for entry in entries:
            redis.delete(keys.stream(entry.outcome.job_id))
        return with_pieces(outcomes, entries)

    monkeypatch.setattr(Outcomes, "with_pieces", lose)
    job = client.submit()
    eventually(lambda: job.status().finished_at is not None, PATIENCE_SECONDS, "the job is settled")
    status = job.status()
    assert (status.state, status.output_tokens, status.error.code) == ("succeeded", TOKENS, "output_lost")
    for _ in ("from Redis and the database", "from the database alone"):
        with pytest.raises(OutputLost, match=job.job_id):
            job.result()
        with pytest.raises(OutputLost):
            job.stream()
        last = job.events()[-1]
        assert (last.kind, last.details["state"], last.details["code"]) == (
            *("failed", "succeeded"),
            "output_lost",
        )
        redis.delete(keys.job(job.job_id), keys.stream(job.job_id))


@pytest.mark.parametrize("service", [Http], ids=["http"], indirect=True)
def test_an_event_stream_is_resumed_at_its_last_id(service):
    job_id = service.client(on_loop=False).submit().job_id
    seen = list(EventStream(service.gateway, job_id).events())
    leave(service, job_id)
    for number, (last_id, kind, _) in enumerate(seen):
        if kind == "delta":
            late = list(EventStream(service.gateway, job_id, last_id=last_id).events())
            assert texts(late) == texts(seen[number + 1 :])
            assert late[-1] == seen[-1]
