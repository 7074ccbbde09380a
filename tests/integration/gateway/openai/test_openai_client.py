"""The gateway as the real `openai` package sees it."""

import asyncio
import contextlib
import http.client
import inspect
import json
import threading
from uuid import uuid4

import openai
import psutil
import pytest

from support.api_keys import add_api_key
from support.clients import TOKENS
from support.cluster import Cluster
from support.gateways import RunningGateway
from support.waiting import PATIENCE_SECONDS, eventually, join
from tether.gateway.keys.api_keys import Scope
from tether.gateway.openai.foreign_fields import UNSUPPORTED
from tether.jobs import Message, Sampling
from tether_workers.engines.null.engine import NullEngine

SAID = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "one two"}]
WORDS = 4


@contextlib.contextmanager
def client_of(gateway, key=None, **options):
    options = {"max_retries": 0, "timeout": PATIENCE_SECONDS, **options}
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key or gateway.key(), **options) as opened:
        yield opened


@pytest.fixture(scope="module")
def client(gateway):
    with client_of(gateway) as opened:
        yield opened


def answer(seed, count=TOKENS):
    """What the null engine answers."""
    engine = NullEngine(output_tokens=count)
    said = [Message(one["role"], one["content"]) for one in SAID]
    sampling = Sampling(max_tokens=8_000, seed=seed)
    deltas = engine.start(engine.encode(said), (), sampling, threading.Event())
    return "".join(text for delta in deltas for text in delta.texts)


def ask(client, **options):
    return client.chat.completions.create(**{"model": "counter", "messages": SAID, "seed": 7, **options})


def text_of(chunks):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def job_of(gateway, job_id):
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_SECONDS)
    connection.request("GET", f"/v1/jobs/{job_id}", headers={"Authorization": f"Bearer {gateway.key()}"})
    document = json.loads(connection.getresponse().read())
    connection.close()
    return document


def sent_to(gateway, method, path):
    """The status of the answer."""
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_SECONDS)
    ) as connection:
        connection.request(method, path, headers={"Authorization": f"Bearer {gateway.key()}"})
        answer = connection.getresponse()
        answer.read()
        return answer.status


def jobs_with(gateway, mark):
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_SECONDS)
    headers = {"Authorization": f"Bearer {gateway.key()}"}
    connection.request("GET", f"/v1/jobs?label=mark={mark}", headers=headers)
    document = json.loads(connection.getresponse().read())
    connection.close()
    return document["data"]


def test_a_whole_answer(client, gateway):
    raw = client.chat.completions.with_raw_response.create(model="counter", messages=SAID, seed=7)
    found = raw.parse()
    job_id = raw.headers["x-tether-job-id"]
    assert found.id == f"chatcmpl-{job_id}"
    assert (found.object, found.model, found._request_id) == ("chat.completion", "counter", job_id)
    # The routes of jobs know it by that name, too.
    assert job_of(gateway, found.id)["job_id"] == job_id
    assert sent_to(gateway, "GET", f"/v1/jobs/{found.id}/stream") == 200
    assert sent_to(gateway, "DELETE", f"/v1/jobs/{found.id}") == 200
    assert found.choices[0].message.content == answer(7)
    assert (found.choices[0].message.role, found.choices[0].finish_reason) == ("assistant", "stop")
    usage = found.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (
        WORDS,
        TOKENS,
        WORDS + TOKENS,
    )
    job = job_of(gateway, job_id)
    assert (job["state"], job["priority"]) == ("succeeded", "interactive")
    assert abs(found.created - job["created_at"] // 1000) <= 1


def test_an_answer_in_chunks(client):
    with ask(client, stream=True, stream_options={"include_usage": True}) as stream:
        chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert text_of(chunks) == answer(7)
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (WORDS, TOKENS)
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_helper_that_gathers_a_stream_gathers_it(client):
    with client.chat.completions.stream(model="counter", messages=SAID, seed=7) as stream:
        found = stream.get_final_completion()
    assert found.choices[0].message.content == answer(7)


def test_clients_on_a_loop(gateway):
    async def run():
        options = {"max_retries": 0, "timeout": PATIENCE_SECONDS}
        async with openai.AsyncOpenAI(
            base_url=f"{gateway.url}/v1", api_key=gateway.key(), **options
        ) as client:
            whole = await ask(client)
            stream = await ask(client, stream=True)
            chunks = [chunk async for chunk in stream]
            with pytest.raises(openai.NotFoundError):
                await ask(client, model="countr")
            many = await asyncio.gather(*(ask(client, seed=seed) for seed in range(20)))
        return whole, chunks, many

    whole, chunks, many = asyncio.run(run())
    assert whole.choices[0].message.content == text_of(chunks) == answer(7)
    assert [one.choices[0].message.content for one in many] == [answer(seed) for seed in range(20)]


def test_max_tokens_and_stop_texts_end_an_answer(client):
    found = ask(client, max_tokens=2)
    assert (found.choices[0].finish_reason, found.usage.completion_tokens) == ("length", 2)
    third = answer(7).split()[2]
    found = ask(client, stop=[f" {third}"])
    assert found.choices[0].message.content == " ".join(answer(7).split()[:2])
    assert found.choices[0].finish_reason == "stop"


def test_without_a_seed_answers_differ(client):
    assert len({ask(client, seed=None).choices[0].message.content for _ in range(5)}) > 1


def test_models_are_listed_and_shown(client):
    names = [model.id for model in client.models.list()]
    assert names[0] == "counter"
    assert client.models.retrieve("counter").owned_by == "tether"
    with pytest.raises(openai.NotFoundError, match="did you mean 'counter'"):
        client.models.retrieve("countr")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("values", "kind", "code", "param", "words"),
    [
        ({"n": 2}, openai.BadRequestError, "request_invalid", "n", "not supported"),
        ({"tools": [{"type": "function"}]}, openai.BadRequestError, "request_invalid", "tools", "tools="),
        ({"temperature": -1}, openai.BadRequestError, "request_invalid", "temperature", "temperature=-1"),
        (
            {"max_tokens": 9_000},
            openai.BadRequestError,
            "request_invalid",
            "max_tokens",
            "max_tokens=9000.*context",
        ),
        (
            {"max_completion_tokens": 9_000},
            openai.BadRequestError,
            "request_invalid",
            "max_completion_tokens",
            "max_completion_tokens=9000 exceeds the context",
        ),
        (
            {"extra_body": {"adapter": "x"}},
            openai.BadRequestError,
            "request_invalid",
            "adapter",
            "no adapter 'x'",
        ),
        ({"model": "countr"}, openai.NotFoundError, "model_unknown", "model", "did you mean 'counter'"),
        (
            {"model": "refusing"},
            openai.BadRequestError,
            "request_invalid",
            "messages",
            "does not like this prompt",
        ),
    ],
)
def test_what_is_refused_raises_what_it_should(client, values, kind, code, param, words, stream):
    with pytest.raises(kind, match=words) as refused:
        list(ask(client, stream=stream, **values))
    assert (refused.value.code, refused.value.param) == (code, param)
    assert refused.value.response.headers["x-should-retry"] == "false"


def test_a_key_that_is_none_or_lacks_a_scope_raises_what_it_should(gateway):
    with client_of(gateway, "tk_nonsense") as client, pytest.raises(openai.AuthenticationError) as refused:
        ask(client)
    assert refused.value.code == "unauthenticated"
    for scope in (Scope.SUBMIT, Scope.READ):
        key = gateway.key(scopes=(scope,))
        with client_of(gateway, key) as client, pytest.raises(openai.PermissionDeniedError, match="lacks"):
            ask(client)


def test_a_job_that_is_dead_raises_once_though_the_client_would_try_again(gateway):
    mark = uuid4().hex
    with client_of(gateway, max_retries=3) as client:
        with pytest.raises(openai.InternalServerError, match="it broke") as refused:
            ask(client, model="broken", metadata={"mark": mark})
        assert refused.value.code == "job_failed"
        with pytest.raises(openai.APIError, match="it broke") as refused:
            list(ask(client, model="broken", stream=True, metadata={"mark": mark}))
    assert refused.value.code == "job_failed"
    assert len(jobs_with(gateway, mark)) == 2


def test_a_job_that_is_cancelled_elsewhere_raises_in_mid_stream(client, service):
    with ask(client, model="slow", stream=True) as stream:
        first = next(iter(stream))
        service.client(on_loop=False).job(first.id.removeprefix("chatcmpl-")).cancel()
        with pytest.raises(openai.APIError, match="cancelled"):
            list(stream)


def test_a_job_that_is_too_late_raises(client):
    with pytest.raises(openai.InternalServerError, match="deadline") as refused:
        ask(client, model="slow", max_tokens=1_000, extra_body={"time_limit_ms": 300})
    assert (refused.value.status_code, refused.value.code) == (504, "job_expired")


def test_a_client_that_closes_its_stream_ends_the_job(client, gateway):
    with ask(client, model="slow", max_tokens=1_000, stream=True) as stream:
        seen = [next(iter(stream)) for _ in range(3)]
    job_id = seen[0].id.removeprefix("chatcmpl-")
    job = eventually(
        lambda: (found := job_of(gateway, job_id))["state"] == "cancelled" and found,
        PATIENCE_SECONDS,
        "it is cancelled",
    )
    # 50 tokens a second: what the way of the cancel takes.
    assert job["offset"] < 100


def test_a_client_that_gives_up_waiting_ends_the_job(gateway):
    mark = uuid4().hex
    with client_of(gateway, timeout=0.5) as client, pytest.raises(openai.APITimeoutError):
        ask(client, model="slow", max_tokens=1_000, metadata={"mark": mark})
    eventually(
        lambda: [job["state"] for job in jobs_with(gateway, mark)] == ["cancelled"],
        PATIENCE_SECONDS,
        "it is cancelled",
    )


def test_a_client_with_a_key_comes_back_for_its_job(gateway):
    mark, key = uuid4().hex, uuid4().hex
    options = {"model": "slow", "max_tokens": 60, "seed": None, "metadata": {"mark": mark}}
    options["extra_headers"] = {"Idempotency-Key": key}
    with client_of(gateway, timeout=0.5) as client, pytest.raises(openai.APITimeoutError):
        ask(client, **options)
    with client_of(gateway) as client:
        found = ask(client, **options)
        again = text_of(ask(client, **options, stream=True))
        with pytest.raises(openai.ConflictError) as refused:
            ask(client, **{**options, "max_tokens": 61})
    assert found.usage.completion_tokens == 60
    assert again == found.choices[0].message.content
    assert refused.value.code == "key_conflict"
    assert [job["job_id"] for job in jobs_with(gateway, mark)] == [found.id.removeprefix("chatcmpl-")]


def test_two_with_one_key_at_once_are_one_job(client, gateway):
    mark, key = uuid4().hex, uuid4().hex

    async def run():
        url = f"{gateway.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key=gateway.key(), max_retries=0) as client:
            options = {"extra_headers": {"Idempotency-Key": key}, "metadata": {"mark": mark}, "seed": None}
            return await asyncio.gather(*(ask(client, **options) for _ in range(5)))

    found = asyncio.run(run())
    assert len({one.id for one in found}) == 1
    assert len({one.choices[0].message.content for one in found}) == 1
    assert len(jobs_with(gateway, mark)) == 1


def test_a_tenant_has_no_more_answers_open_than_streams(service):
    settings = service.settings
    limited = settings.model_copy(
        update={"gateway": settings.gateway.model_copy(update={"streams_per_tenant": 1})}
    )
    mark = uuid4().hex
    with RunningGateway(limited) as gateway, client_of(gateway) as client:
        with ask(client, model="slow", max_tokens=1_000, stream=True) as stream:
            next(iter(stream))
            with pytest.raises(openai.RateLimitError) as refused:
                ask(client, metadata={"mark": mark})
        assert refused.value.code == "too_many_requests"
        assert int(refused.value.response.headers["retry-after"]) > 0
        assert jobs_with(gateway, mark) == []


def test_a_gateway_that_stops_lets_a_completion_end_for_as_long_as_requests_may(service):
    with RunningGateway(service.settings) as gateway, client_of(gateway) as client:
        stream = ask(client, model="slow", max_tokens=60, stream=True)
        begun = next(iter(stream))
        stopping = threading.Thread(target=gateway.stop)
        stopping.start()
        assert begun.choices[0].delta.role == "assistant"
        assert list(stream)[-1].choices[0].finish_reason == "length"
        join(stopping)


def test_a_gateway_that_stops_says_so_in_mid_stream(service):
    gateway_settings = service.settings.gateway.model_copy(update={"drain_timeout": 1_000})
    settings = service.settings.model_copy(update={"gateway": gateway_settings})
    with RunningGateway(settings) as gateway, client_of(gateway) as client:
        stream = ask(client, model="slow", max_tokens=1_000, stream=True)
        first = next(iter(stream))
        gateway.stop()
        with pytest.raises(openai.APIError, match=r"shutting down.*Idempotency-Key") as refused:
            list(stream)
        assert refused.value.code == "gateway_stopping"
    job_id = first.id.removeprefix("chatcmpl-")
    eventually(
        lambda: job_of(service.gateway, job_id)["state"] == "cancelled", PATIENCE_SECONDS, "it is cancelled"
    )


def test_without_a_worker_or_redis_nothing_is_accepted():
    with Cluster() as cluster, RunningGateway(cluster.settings) as gateway, client_of(gateway) as client:
        cluster.orchestrator()
        with pytest.raises(openai.InternalServerError, match="no worker serves model 'counter'") as refused:
            ask(client)
        assert (refused.value.status_code, refused.value.code) == (503, "no_live_worker")
        assert int(refused.value.response.headers["retry-after"]) >= 1
        assert refused.value.response.headers["x-should-retry"] == "true"
        with pytest.raises(openai.NotFoundError):
            ask(client, model="other")
        cluster.server.close()
        with pytest.raises(openai.InternalServerError, match="Redis does not respond") as refused:
            ask(client)
        assert (refused.value.status_code, refused.value.code) == (503, "broker_unavailable")
        assert jobs_with(gateway, "x") == []
        listing = client.get("/jobs", cast_to=object)
        assert listing["data"] == []


def test_a_worker_that_is_killed_in_mid_stream_is_not_noticed():
    tokens = 60
    config = "[jobs]\nlease = 1000\n"
    with Cluster(models={"counter": (20, tokens)}, config=config) as cluster:
        cluster.start_orchestrator()
        key = add_api_key(cluster.settings)[0]
        worker = cluster.start_worker()
        with RunningGateway(cluster.settings) as gateway, client_of(gateway, key) as client:
            eventually(lambda: client.models.retrieve("counter").workers, PATIENCE_SECONDS, "it is served")
            with ask(client, stream=True, stream_options={"include_usage": True}) as stream:
                chunks = []
                for chunk in stream:
                    chunks.append(chunk)
                    if len(chunks) == 10:
                        # Its supervisor starts another one.
                        for child in psutil.Process(worker.pid).children(recursive=True):
                            child.kill()
            assert text_of(chunks) == answer(7, tokens)
            assert chunks[-1].usage.completion_tokens == tokens


OWN_ARGUMENTS = set(inspect.signature(openai.resources.chat.Completions.create).parameters)


def ask_raw(client, values):
    """The header that names what was ignored; fields that the package does not know are sent as it says."""
    own = {name: value for name, value in values.items() if name in OWN_ARGUMENTS}
    others = {name: value for name, value in values.items() if name not in OWN_ARGUMENTS}
    said = {"model": "counter", "messages": SAID, "seed": 7, "max_tokens": 1}
    answered = client.chat.completions.with_raw_response.create(**said, **own, extra_body=others)
    assert answered.parse().choices[0].message.content
    return answered.headers.get("x-tether-ignored")


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_every_value_that_asks_for_nothing_is_taken(client, name):
    for value in (*UNSUPPORTED[name], None):
        assert ask_raw(client, {name: value}) is None


def test_what_asks_for_something_is_refused_by_name_or_told_where_the_settings_ignore_it(service, client):
    asked = {"reasoning_effort": "low", "min_p": 0.5, "presence_penalty": 1, "repetition_penalty": 1.5}
    for name, value in asked.items():
        with pytest.raises(openai.BadRequestError) as refused:
            ask_raw(client, {name: value})
        assert refused.value.param == name
    changed = service.settings.gateway.model_copy(update={"unknown_fields": "ignore"})
    lenient = service.settings.model_copy(update={"gateway": changed})
    with RunningGateway(lenient) as gateway, client_of(gateway) as patient:
        told = ask_raw(patient, asked)
    assert sorted(told.split(", ")) == sorted(asked)
