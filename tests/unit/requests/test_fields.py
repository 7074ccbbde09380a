"""The table of fields is what it says: what stands in it passes every door, and what does not is refused."""

import importlib
import json
from dataclasses import fields as fields_of
from typing import get_type_hints

import jsonschema_rs
import pytest
from dramatiq import Message as DramatiqMessage

import tether_cli.submit
from support.command_line import CommandLine
from support.wide_request import WIDE_TABLE, WideRequest, WideSampling
from tether.broker.pools.worker_port import DrawnJob
from tether.client.api import Tether
from tether.client.submission_documents import request_to_json
from tether.errors import InvalidRequest
from tether.gateway.bodies import read_job_request as read_body
from tether.gateway.jobs.documents import job_request_body
from tether.gateway.openai.bodies import read_chat
from tether.gateway.openai.schemas import chat_request_body
from tether.jobs import canonical_json
from tether.models.registry import ModelVersion, Registry
from tether.orchestrator import task_submissions
from tether.outcomes import Fence
from tether.requests import fields
from tether.requests.checking import read_request
from tether.requests.fields import TABLE, JobRequest, Sampling, SubmitOptions
from tether.requests.options import check_request, make_request, read_options
from tether.requests.payload import Payload, payload_of, read_payload
from tether.requests.table import DELAYS, NESTED
from tether.testing import FakeBackend
from tether_workers.job import read_drawn_job as read_drawn

NOW = 1_800_000_000_000
LEAST = {"model": "echo", "prompt": "hi"}
MESSAGES = [{"role": "user", "content": "hi"}]
REGISTRY = Registry([ModelVersion(name="echo", version="1", digest="0" * 64, context=8_192)])


@pytest.fixture
def wide(monkeypatch):
    """Two fields more, in the table and nowhere else: one for the worker, one for the scheduler."""
    monkeypatch.setattr(fields, "TABLE", WIDE_TABLE)
    # Options are made when the verb is loaded.
    importlib.reload(tether_cli.submit)
    yield
    monkeypatch.undo()
    importlib.reload(tether_cli.submit)


MORE = {"whimsy": 0.25, "purpose": "a test"}


def by_http():
    return read_body({**LEAST, **MORE}, NOW)


def by_the_wire():
    return read_body(json.loads(json.dumps(request_to_json(by_http()))), NOW)


def by_openai_s_form():
    read = read_chat(
        {"model": "echo", "messages": MESSAGES, "whimsy": 0.25},
        NOW,
        {},
        find=REGISTRY.find,
        randomness=lambda count: b"\xff" * count,
    )
    return read.job


def by_python():
    fake = FakeBackend(autorun=False)
    return fake.request(Tether(backend=fake).submit("echo", "hi", **MORE).job_id)


def by_python_in_many():
    fake = FakeBackend(autorun=False)
    request = WideRequest(**LEAST, sampling=WideSampling(whimsy=0.25), purpose="a test")
    return fake.request(Tether(backend=fake).submit_many([request])[0].job_id)


def by_the_command_line():
    fake = FakeBackend(autorun=False)
    options = ("--whimsy", "0.25", "--purpose", "a test", "--no-wait")
    result = CommandLine(fake).run("submit", "hi", *options)
    if result.exit_code == 2:
        raise InvalidRequest(result.stderr)
    return fake.request(result.stdout.strip())


def by_a_message():
    message = DramatiqMessage(
        queue_name="infer", actor_name="infer", args=(), kwargs={**LEAST, **MORE}, options={}
    )
    return read_options(message.kwargs, now_ms=NOW)


def by_a_worker_s_submission():
    _, request = task_submissions._read(
        {b"v": b"1", b"token": b"t", b"request": canonical_json({**LEAST, **MORE})}
    )
    return request


DOORS = [
    *(by_http, by_the_wire, by_openai_s_form, by_python, by_python_in_many, by_the_command_line),
    *(by_a_message, by_a_worker_s_submission),
]


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("door", DOORS)
def test_a_field_that_stands_in_the_table_alone_passes_every_door(door):
    request = door()
    assert request.sampling.whimsy == 0.25
    if door is not by_openai_s_form:
        assert request.purpose == "a test"


@pytest.mark.parametrize("door", [door for door in DOORS if door is not by_python_in_many])
def test_a_field_that_does_not_stand_in_the_table_passes_no_door(door):
    with pytest.raises(InvalidRequest, match=r"whimsy"):
        door()


@pytest.mark.usefixtures("wide")
def test_its_bounds_hold_at_every_door():
    words = r"whimsy=2 is not a number from 0 to 1"
    for reader in (
        lambda: read_body({**LEAST, "whimsy": 2}, NOW),
        lambda: read_request({**LEAST, "whimsy": 2}),
        lambda: make_request("echo", "hi", now_ms=NOW, whimsy=2),
        lambda: check_request(WideRequest(**LEAST, sampling=WideSampling(whimsy=2))),
        lambda: read_payload({"v": 1, "prompt": "hi", "sampling": {"whimsy": 2}}),
    ):
        with pytest.raises(InvalidRequest, match=words):
            reader()
    refused = CommandLine().run("submit", "hi", "--whimsy", "2")
    assert (refused.exit_code, "whimsy=2.0 is not a number from 0 to 1" in refused.stderr) == (2, True)


@pytest.mark.usefixtures("wide")
def test_it_comes_to_the_worker_where_it_travels_in_the_payload():
    request = read_request({**LEAST, **MORE})
    payload = payload_of(request)
    assert payload["sampling"]["whimsy"] == 0.25
    assert "purpose" not in payload
    body = canonical_json({**payload, "model": "echo", "version": "1"})
    fence = Fence(1, 1, "boot:1")
    drawn = DrawnJob(job_id="job-1", fence=fence, pool="p", tenant="t", deadline=0, body=body)
    assert read_drawn(drawn).sampling.whimsy == 0.25


@pytest.mark.usefixtures("wide")
def test_documents_and_help_tell_of_it():
    shown = {"type": "number", "minimum": 0, "maximum": 1, "description": "A field for tests."}
    assert job_request_body()["properties"]["whimsy"] == {**shown, "default": 0.0}
    assert chat_request_body()["properties"]["whimsy"]["anyOf"][0]["maximum"] == 1
    assert jsonschema_rs.validator_for(job_request_body()).is_valid({**LEAST, **MORE})
    told = CommandLine().run("submit", "--help").stdout
    assert "--whimsy" in told
    assert "A field for tests." in told


def forms(request):
    return request.digest(), request_to_json(request), payload_of(request)


def test_a_field_that_is_new_changes_nothing_where_it_is_not_given(request):
    before = forms(read_request(LEAST))
    request.getfixturevalue("wide")
    assert forms(read_request(LEAST)) == before
    others = [forms(read_request({**LEAST, name: value})) for name, value in MORE.items()]
    assert all(other[0] != before[0] and other[1] != before[1] for other in others)


SPELT_AS_TIMES = {*DELAYS, *DELAYS.values(), "retry_base_ms"}
SPELT_AS_SIZES = {"min_vram"}
NOT_OPTIONS = {"model", "prompt", "traceparent", *SPELT_AS_TIMES}


def test_type_checkers_know_every_option_of_submit():
    hints = get_type_hints(SubmitOptions)
    assert set(hints) == (set(TABLE.fields) - NOT_OPTIONS) | {
        *("delay", "eta", "time_limit", "expires_in", "retry_base")
    }
    types = {**get_type_hints(JobRequest), **get_type_hints(Sampling)}
    numbers = {name: kind for name, kind in types.items() if kind in (int, float)}
    assert {name: kind for name, kind in hints.items() if name in numbers} == {
        name: int | str if name in SPELT_AS_SIZES else kind
        for name, kind in numbers.items()
        if name not in SPELT_AS_TIMES
    }


def test_type_checkers_know_every_field_that_the_worker_gets():
    hints = get_type_hints(Payload)
    own = {name for name, each in TABLE.fields.items() if each.is_in_payload and not each.is_nested}
    assert set(hints) == own | {NESTED}
    assert hints == {name: kind for name, kind in get_type_hints(JobRequest).items() if name in hints}
    least = Payload(prompt=LEAST["prompt"], sampling=Sampling())
    assert {field.name: getattr(least, field.name) for field in fields_of(Payload)} == {
        field.name: getattr(JobRequest(**LEAST), field.name) for field in fields_of(Payload)
    }


def test_every_default_is_what_its_own_rule_allows():
    for name, each in TABLE.fields.items():
        if name not in ("model", "messages"):
            assert list(each.rule.problems(name, each.default)) == []


def test_a_worker_says_all_that_is_wrong_with_a_payload():
    with pytest.raises(InvalidRequest) as refused:
        read_payload({"v": 1, "prompt": "hi", "adapter": 5, "sampling": {"max_tokens": 0, "top_p": 2}})
    assert all(name in str(refused.value) for name in ("adapter", "max_tokens=0", "top_p=2"))


def test_a_worker_leaves_alone_what_only_a_newer_gateway_knows():
    payload = payload_of(read_request(LEAST))
    payload["sampling"]["whimsy"] = 5
    assert read_payload({**payload, "more": 1}) == read_payload(payload_of(read_request(LEAST)))


def test_whether_a_priority_was_named_is_known_behind_every_door():
    def names(request):
        return request.names("priority")

    body = {**LEAST, "priority": "standard"}
    assert [names(read_body(each, NOW, {})) for each in (LEAST, body)] == [False, True]
    made = [
        make_request("echo", "hi", now_ms=NOW),
        make_request("echo", "hi", now_ms=NOW, priority="standard"),
    ]
    assert [names(check_request(each)) for each in made] == [False, True]
    # What a client sends says it as well.
    sent = [request_to_json(each) for each in made]
    assert [each.get("priority") for each in sent] == [None, "standard"]
    assert [names(read_body(each, NOW, {})) for each in sent] == [False, True]
    assert made[0] == made[1]
    assert made[0].digest() == made[1].digest()
    chat = {"model": "echo", "messages": MESSAGES}
    find = REGISTRY.find
    for given, is_named in ((chat, False), ({**chat, "priority": "interactive"}, True)):
        job = read_chat(given, NOW, {}, find=find, randomness=bytes).job
        assert (job.priority, names(job)) == ("interactive", is_named)


def test_a_request_that_does_not_say_which_fields_were_named_names_those_that_are_not_as_by_default():
    request = JobRequest(model="echo", prompt="hi", priority="batch")
    assert [request.names(name) for name in ("priority", "labels", "model")] == [True, False, True]
    assert not JobRequest(model="echo", prompt="hi").names("priority")
