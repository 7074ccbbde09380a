"""Complete cache manifests over a real Redis: asked of real workers, and of nobody."""

import threading
import time

import pytest
import redis

from support.commands import OTHER_OPERATOR
from support.inference import InferenceBench
from support.presences import KEY, OTHER_KEY, presence
from support.waiting import PATIENCE_SECONDS, eventually, join
from tether.broker.keys import Keys
from tether.discovery.announcements.manifests import WholeManifest, sign_manifest, verify_manifest
from tether.discovery.announcements.presence import (
    NO_NETWORK,
    Artifact,
    ArtifactKind,
    ArtifactState,
    manifest_of,
)
from tether.discovery.announcements.wire import verify_envelope
from tether.discovery.announcements.wire_types import MAX_ANNOUNCED_ARTIFACTS
from tether.discovery.commands.manifest_request import LIFE_MS, request_manifest, write_manifest
from tether.discovery.commands.operator_key import operator_key
from tether.discovery.over_redis.redis_presence import RedisPresence
from tether.discovery.trust.identity import Identity
from tether_workers.presence.manifest import ManifestWriter

KEYS = Keys("tether")
SHORT_SECONDS = 0.3


def now_ms():
    return time.time_ns() // 1_000_000


def artifacts(count):
    return tuple(
        Artifact(f"{number:064x}", ArtifactKind.ADAPTER, ArtifactState.DISK, number)
        for number in range(count)
    )


def whole(key=KEY, count=3, **changes):
    told = presence(key)
    values = {
        "network": told.network,
        "pub_key": told.pub_key,
        "boot_id": told.boot_id,
        "cache": manifest_of(artifacts(count)),
        "issued_at": now_ms(),
    }
    return WholeManifest(**{**values, **changes})


@pytest.fixture
def bench(tmp_path):
    bench = InferenceBench(tmp_path)
    yield bench
    bench.close()


@pytest.fixture
def announced(bench):
    """What the only worker on the bench announces now."""
    port = RedisPresence(bench.client, bench.keys)
    yield lambda: next((verify_envelope(heard.envelope, lambda key: True) for heard in port.read_all()), None)
    port.close()


def test_a_worker_answers_an_operator_of_its_machine_and_nobody_else(bench, announced):
    bench.start_process()
    bench.wait_for_state(bench.place(), "succeeded")
    told = eventually(
        lambda: (found := announced()) and found.cache.artifacts and found, PATIENCE_SECONDS, "it is warm"
    )
    stranger = request_manifest(bench.client, KEYS, told, OTHER_OPERATOR, seconds=SHORT_SECONDS)
    assert stranger is None
    operator = operator_key(bench.folder / "identity")
    cache = request_manifest(bench.client, KEYS, told, operator, seconds=PATIENCE_SECONDS)
    assert cache.is_complete
    assert [one.digest for one in cache.artifacts] == [model.digest for model in told.supported]
    assert 0 < bench.client.pttl(KEYS.fleet_manifest(told.worker_id)) <= LIFE_MS


def test_a_redis_that_is_full_takes_a_manifest(redis_server):
    made = whole()
    with redis.Redis.from_url(redis_server.url) as client:
        client.config_set("maxmemory", 1)
        write_manifest(client, KEYS, presence().worker_id, sign_manifest(made, KEY))
        told = presence(cache=made.cache)
        assert request_manifest(client, KEYS, told, OTHER_OPERATOR, seconds=SHORT_SECONDS) == made.cache
        assert 0 < client.pttl(KEYS.fleet_manifest(told.worker_id)) <= LIFE_MS


def test_an_answer_that_is_there_already_and_up_to_date_is_taken(bench):
    made = whole()
    write_manifest(bench.client, KEYS, presence().worker_id, sign_manifest(made, KEY))
    told = presence(cache=made.cache)
    assert request_manifest(bench.client, KEYS, told, OTHER_OPERATOR, seconds=SHORT_SECONDS) == made.cache
    assert bench.client.llen(KEYS.inbox(told.worker_id)) == 0


@pytest.mark.parametrize(
    "envelope",
    [
        sign_manifest(whole(), KEY),
        sign_manifest(whole(OTHER_KEY), OTHER_KEY),
        sign_manifest(whole(boot_id="0123456789abcdef.1"), KEY),
        b"nothing",
    ],
    ids=["no news", "another worker's", "another life's", "none"],
)
def test_what_is_no_answer_is_not_taken_for_one(bench, envelope):
    told = presence()
    write_manifest(bench.client, KEYS, told.worker_id, envelope)
    assert request_manifest(bench.client, KEYS, told, OTHER_OPERATOR, seconds=SHORT_SECONDS) is None
    assert bench.client.llen(KEYS.inbox(told.worker_id)) == 1


def test_many_who_ask_at_once_are_all_answered(bench, announced):
    bench.start_process()
    bench.wait_for_state(bench.place(), "succeeded")
    told = eventually(announced, PATIENCE_SECONDS, "it is heard of")
    operator = operator_key(bench.folder / "identity")
    answers = []

    def ask():
        answers.append(request_manifest(bench.client, KEYS, told, operator, seconds=PATIENCE_SECONDS))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        join(thread)
    assert [len(cache.artifacts) for cache in answers] == [1] * 4


def test_what_has_no_room_in_an_announcement_is_written_whole_through_outages(bench, tmp_path):
    identity = Identity.claim(tmp_path / "other")
    found = artifacts(MAX_ANNOUNCED_ARTIFACTS * 4)
    thread = ManifestWriter(bench.client, KEYS, identity, NO_NETWORK, lambda: found, now_ms)
    thread.start()
    bench.server.kill()
    thread.ask()
    bench.server.restart()
    place = KEYS.fleet_manifest(identity.worker_id)

    def written():
        thread.ask()
        return bench.client.get(place)

    envelope = eventually(written, PATIENCE_SECONDS, "it is written once Redis is back")
    told = presence(identity.key, boot=identity.boot_counter)
    assert verify_manifest(envelope, told, now_ms()).cache == manifest_of(found)
    thread.stop()
    assert "tether-manifest" not in {one.name for one in threading.enumerate()}
    identity.close()
