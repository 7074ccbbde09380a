"""Dead messages of plain actors' queues: listed, shown, retried once, purged, over HTTP and directly."""

import asyncio
import base64
import itertools
import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from dramatiq import Message

from support.clients import OTHER_TENANT
from support.command_line import CommandLine
from tether import AsyncTether, Tether
from tether.broker import TetherBroker
from tether.core.direct.backend import open_direct
from tether.dead_messages import MessagePlace, token_at
from tether.errors import (
    Forbidden,
    InvalidName,
    LetterDamaged,
    LetterNotRetryable,
    RetryTokenUnknown,
)
from tether.gateway.keys.api_keys import Scope

NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def broker(service):
    made = TetherBroker.from_settings(service.settings)
    yield made
    made.close()


@pytest.fixture
def queue(broker):
    name = f"plain-{next(NUMBERS)}"
    broker.declare_queue(name)
    return name


@pytest.fixture(params=["http", "direct"])
def letters(request, service):
    if request.param == "http":
        key = service.gateway.key(scopes=(Scope.OPERATOR,))
        with Tether(service.gateway.url, key) as client:
            yield client.dead_messages
    else:
        with Tether(backend=open_direct(service.settings)) as client:
            yield client.dead_messages


def die(broker, queue, number=0):
    """A message that failed for good, as a worker leaves it."""
    options = {"traceback": "Traceback\n  line\nValueError: no such luck"}
    broker.enqueue(Message(queue, "work", (number,), {}, options))
    consumer = broker.consume(queue, prefetch=1, timeout=5_000)
    message = next(consumer)
    consumer.nack(message)
    consumer.close()
    return message


def name_of(broker, queue, suffix):
    return f"{broker.keys.prefix}:{queue}{suffix}"


def test_dead_messages_are_listed_newest_first_and_shown_whole(broker, queue, letters):
    messages = [die(broker, queue, number) for number in range(3)]
    found = list(letters.list(queue))
    assert [each.message_id for each in found] == [each.message_id for each in reversed(messages)]
    assert {(each.actor, each.error, each.problem) for each in found} == {
        ("work", "ValueError: no such luck", None)
    }
    assert {each.payload for each in found} == {""}
    shown = letters.show(queue, found[0].retry_token)
    assert Message.decode(base64.b64decode(shown.payload)).args == (2,)
    assert next(letters.list(queue, payloads=True)).payload == shown.payload
    (told,) = [each for each in letters.queues() if each.queue == queue]
    assert (told.count, told.oldest_at, told.retention_ms) == (3, found[-1].died_at, None)


def test_a_token_puts_a_message_back_once_however_many_use_it(broker, queue, letters):
    die(broker, queue)
    (letter,) = letters.list(queue)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: letters.retry(queue, letter.retry_token), range(8)))
    assert sorted(answer.is_new for answer in answers) == [False] * 7 + [True]
    assert list(letters.list(queue)) == []
    assert broker.client.llen(name_of(broker, queue, "")) == 1
    consumer = broker.consume(queue, prefetch=1, timeout=5_000)
    again = next(consumer)
    assert again.args == [0] or again.args == (0,)
    consumer.nack(again)
    consumer.close()
    (once_more,) = letters.list(queue)
    assert once_more.retry_token != letter.retry_token
    assert letters.retry(queue, letter.retry_token).is_new is False
    assert [each.retry_token for each in letters.list(queue)] == [once_more.retry_token]


def test_what_cannot_be_read_is_told_and_retried_by_force_alone(broker, queue, letters):
    for name, body in {"\0\xff": b"\x80pickled", "b": b"[1]", "c": b"{}" + b" " * 5_000_000}.items():
        broker.client.zadd(name_of(broker, queue, ".XQ"), {name.encode("latin-1"): 7})
        broker.client.hset(name_of(broker, queue, ".XQ.msgs"), name.encode("latin-1"), body)
    broker.client.zadd(name_of(broker, queue, ".XQ"), {"lost": 8})
    lost, *others = letters.list(queue)
    assert lost.problem == "has lost its bytes"
    assert [each.problem[:12] for each in others] == ["is too large", "is no messag", "is no JSON"]
    with pytest.raises(LetterDamaged):
        letters.retry(queue, lost.retry_token)
    for each in others:
        with pytest.raises(LetterNotRetryable):
            letters.retry(queue, each.retry_token)
        assert letters.retry(queue, each.retry_token, force=True).is_new
    assert broker.client.hget(name_of(broker, queue, ".msgs"), b"\0\xff") == b"\x80pickled"
    assert letters.purge(queue, lost.retry_token) == 1
    assert list(letters.list(queue)) == []


def test_pages_go_on_behind_letters_of_one_time_and_behind_one_that_is_gone(broker, queue, letters):
    for number in range(250):
        broker.client.zadd(name_of(broker, queue, ".XQ"), {f"{number:03}": 5})
        broker.client.hset(name_of(broker, queue, ".XQ.msgs"), f"{number:03}", b"{}")
    found = []
    for letter in letters.list(queue):
        found.append(letter.retry_token)
        if len(found) == 100:
            assert letters.purge(queue, letter.retry_token) == 1
    assert len(found) == len(set(found)) == 250
    assert letters.purge(queue) == 249


def test_a_made_up_token_and_a_name_of_tethers_own_are_refused(broker, queue, letters):
    for token in ("", "x", "7-absent", token_at(MessagePlace("7", b"\xff"))):
        with pytest.raises(RetryTokenUnknown):
            letters.retry(queue, token)
    with pytest.raises(InvalidName):
        list(letters.list("infer"))
    assert "infer" not in [each.queue for each in letters.queues()]


def test_only_operators_reach_them(service, queue):
    with (
        Tether(service.gateway.url, service.gateway.key(OTHER_TENANT)) as client,
        pytest.raises(Forbidden),
    ):
        client.dead_messages.queues()


@pytest.fixture
def verb(service):
    key = service.gateway.key(scopes=(Scope.OPERATOR,))

    def run(*words):
        return CommandLine().run(
            "dlq", *words, open_client=lambda url, api_key, **options: Tether(service.gateway.url, key)
        )

    return run


def test_the_verbs_of_dead_letters_are_those_of_dead_messages(broker, service, queue, verb):
    for number in range(3):
        die(broker, queue, number)
    assert queue in verb("list", "--queues").stdout
    listed = json.loads(verb("list", "--queue", queue, "--json").stdout)
    table = verb("list", "--queue", queue)
    assert "ValueError: no such luck" in table.stdout
    assert "do not expire" in table.stderr
    tokens = [message["retry_token"] for message in listed]
    assert len(tokens) == 3
    shown = verb("show", "--queue", queue, tokens[0]).stdout
    facts, _, content = shown.partition("\n\n")
    assert f"retry token  {tokens[0]}\n" in facts
    assert re.search(r"^died +20\d\d-\d\d-\d\dT[\d:]+Z$", facts, re.MULTILINE)
    assert (json.loads(content)["actor_name"], json.loads(content)["args"]) == ("work", [2])
    exported = [json.loads(line) for line in verb("export", "--queue", queue).stdout.splitlines()]
    assert [Message.decode(base64.b64decode(each["payload"])).args for each in exported] == [(2,), (1,), (0,)]
    assert verb("retry", "--queue", queue, tokens[0]).exit_code == 0
    assert "put back before" in verb("retry", "--queue", queue, tokens[0]).stdout
    broker.client.hset(name_of(broker, queue, ".XQ.msgs"), tokens[1].partition("-")[2], b"no JSON")
    some = verb("retry", "--queue", queue, "--where", "all")
    assert (some.exit_code, tokens[1] in some.stderr, tokens[2] in some.stdout) == (1, True, True)
    refused = [("list", "--queue", queue, "--model", "x"), ("purge", "--queue", queue, "--where", "model=x")]
    assert [verb(*words).exit_code for words in refused] == [2, 2]
    assert verb("purge", "--queue", queue, "--where", "all", "--yes").stdout == "1 purged\n"
    assert verb("show", "--queue", queue, tokens[1]).exit_code == 2


async def _all(service, queue):
    async with AsyncTether(service.gateway.url, service.gateway.key(scopes=(Scope.OPERATOR,))) as client:
        found = [each async for each in client.dead_messages.list(queue)]
        shown = await client.dead_messages.show(queue, found[0].retry_token)
        retried = await client.dead_messages.retry(queue, found[0].retry_token)
        return shown, retried, await client.dead_messages.purge(queue), await client.dead_messages.queues()


def test_programs_on_a_loop_have_the_same(broker, service, queue):
    die(broker, queue)
    die(broker, queue, 1)
    shown, retried, purged, queues = asyncio.run(_all(service, queue))
    assert (shown.actor, retried.is_new, purged) == ("work", True, 1)
    assert queue not in [each.queue for each in queues]
