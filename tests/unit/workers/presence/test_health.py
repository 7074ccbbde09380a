"""What a worker tells on which topic."""

import pytest
import redis
from nacl.signing import SigningKey

from support.presences import presence
from tether.discovery.adapters import Announcers
from tether.discovery.announcements.presence import (
    Artifact,
    ArtifactKind,
    ArtifactState,
    ModelState,
    Supported,
    WorkerState,
    manifest_of,
)
from tether.discovery.announcements.wire import sign, verify_envelope
from tether.discovery.topics import model_topic, presence_topic
from tether.discovery.trust.identity import Identity
from tether.models.registry import pool_name
from tether_workers.presence.health import HealthReporter, WorkerStatus, parts_by_model

MODELS = tuple(Supported(f"m{number}", "1", f"{number:064x}", ModelState.WARM) for number in range(2))
POOLS = tuple(pool_name("cpu", "eu", model) for model in MODELS)


class Carrier:
    def __init__(self, answer=True):
        self.told = []
        self.answer = answer
        self.away_on = set()

    def announce(self, envelope, presence):
        if isinstance(self.answer, Exception):
            raise self.answer
        if presence.topic in self.away_on:
            raise redis.ConnectionError("away")
        self.told.append(verify_envelope(envelope, lambda key: True))
        return self.answer


@pytest.fixture
def reporter(tmp_path):
    identity = Identity.claim(tmp_path)
    carrier = Carrier()
    artifacts = tuple(Artifact(model.digest, ArtifactKind.MODEL, ArtifactState.WARM) for model in MODELS)
    status = WorkerStatus(
        gpu_class="cpu", region="eu", slots=2, free=1, supported=MODELS, pools=POOLS, artifacts=artifacts
    )
    reporter = HealthReporter(identity, carrier, lambda: status, network="ab" * 16)
    reporter.carrier = carrier
    yield reporter
    identity.close()


def test_a_round_tells_everything_on_the_region_s_topic_and_each_model_on_its_own(reporter):
    reporter._announce()
    whole, *parts = reporter.carrier.told
    assert whole.topic == presence_topic("eu")
    assert whole.supported == MODELS
    assert whole.pools == POOLS
    assert whole.cache.is_complete
    assert [part.topic for part in parts] == [model_topic(model.name, "1", "eu") for model in MODELS]
    for part, model, pool in zip(parts, MODELS, POOLS, strict=True):
        assert part.supported == (model,)
        assert part.pools == (pool,)
        assert [artifact.digest for artifact in part.cache.artifacts] == [model.digest]
        assert part.order == whole.order
    assert {one.network for one in reporter.carrier.told} == {"ab" * 16}


def test_a_goodbye_goes_to_every_topic_once(reporter):
    reporter.goodbye()
    reporter.goodbye()
    assert [one.state for one in reporter.carrier.told] == [WorkerState.STOPPED] * 3


def test_an_outage_on_one_topic_does_not_keep_a_goodbye_from_the_others(reporter):
    reporter.carrier.away_on = {presence_topic("eu")}
    reporter.goodbye()
    assert [one.topic for one in reporter.carrier.told] == [
        model_topic(model.name, "1", "eu") for model in MODELS
    ]


def test_an_outage_is_still_told_after_all_topics_were_tried(reporter):
    reporter.carrier.away_on = {model_topic("m0", "1", "eu")}
    with pytest.raises(redis.ConnectionError):
        reporter._announce()
    assert [one.topic for one in reporter.carrier.told] == [
        presence_topic("eu"),
        model_topic("m1", "1", "eu"),
    ]


def test_a_model_without_a_pool_of_its_own_is_told_without_one():
    (part,) = parts_by_model(presence(pools=()))
    assert part.pools == ()
    assert part.cache == manifest_of(())


def test_it_is_enough_that_one_carrier_can_tell_others():
    good, away = Carrier(), Carrier(redis.ConnectionError("away"))
    key = SigningKey(b"1" * 32)
    told = presence()
    envelope = sign(told, key)
    assert Announcers([away, good]).announce(envelope, told)
    assert good.told == [told]
    with pytest.raises(redis.ConnectionError):
        Announcers([away, away]).announce(envelope, told)
    assert not Announcers([good, Carrier(answer=False)]).announce(envelope, told)
