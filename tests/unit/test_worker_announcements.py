"""What a worker tells on which topic, and of what it has on its disk."""

import pytest
import redis
from nacl.signing import SigningKey

from support.presences import presence
from tether.config import ModelSettings
from tether.discovery.adapters import Announcers
from tether.discovery.identity import Identity
from tether.discovery.presence import (
    Artifact,
    ArtifactKind,
    ArtifactState,
    ModelState,
    Supported,
    WorkerState,
    manifest_of,
)
from tether.discovery.topics import model_topic, presence_topic
from tether.discovery.wire import verify
from tether.scheduling.models import ModelVersion, pool_name
from tether_workers.cache import CacheReport, Use, adapter_digest, size_on_disk
from tether_workers.health import HealthReporter, Status, parts_by_model
from tether_workers.loading import EngineLoader
from tether_workers.serving import Served
from tether_workers.vram import VideoMemory, video_memory

MODELS = tuple(Supported(f"m{number}", "1", f"{number:064x}", ModelState.WARM) for number in range(2))
POOLS = tuple(pool_name("cpu", "eu", model) for model in MODELS)


class Carrier:
    def __init__(self, answer=True):
        self.told = []
        self.answer = answer

    def announce(self, envelope, presence):
        if isinstance(self.answer, Exception):
            raise self.answer
        self.told.append(verify(envelope, lambda key: True))
        return self.answer


@pytest.fixture
def reporter(tmp_path):
    identity = Identity.claim(tmp_path)
    carrier = Carrier()
    artifacts = tuple(Artifact(model.digest, ArtifactKind.MODEL, ArtifactState.WARM) for model in MODELS)
    status = Status(
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


def test_a_model_without_a_pool_of_its_own_is_told_without_one():
    (part,) = parts_by_model(presence(pools=()))
    assert part.pools == ()
    assert part.cache == manifest_of(())


def test_it_is_enough_that_one_carrier_can_tell_others():
    good, away = Carrier(), Carrier(redis.ConnectionError("away"))
    key = SigningKey(b"1" * 32)
    from tether.discovery.wire import sign

    told = presence()
    envelope = sign(told, key)
    assert Announcers([away, good]).announce(envelope, told)
    assert good.told == [told]
    with pytest.raises(redis.ConnectionError):
        Announcers([away, away]).announce(envelope, told)
    assert not Announcers([good, Carrier(answer=False)]).announce(envelope, told)


def served(**changes):
    settings = ModelSettings(**{"name": "m", "version": "1", "source": "demo", **changes})
    version = ModelVersion.from_settings(settings)
    return Served(settings, version, "pool")


def test_what_is_loaded_loading_or_on_disk_is_in_the_manifest(tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "weights").write_bytes(b"x" * 10)
    one = served(adapters=("code", f"mine={adapter}", "gone=/nowhere/at/all", "hub=hf:somebody/adapter"))
    uses = {"": Use(is_warm=True, last_use=7), "hub": Use(is_loading=True)}
    found = CacheReport([one], lambda name, version, adapter: uses.get(adapter, Use())).artifacts()
    model, code, mine, hub = found
    assert model.digest == one.version.digest
    assert (model.kind, model.state, model.last_use) == (ArtifactKind.MODEL, ArtifactState.WARM, 7)
    assert model.size > 9_000_000
    assert (code.kind, code.state) == (ArtifactKind.ADAPTER, ArtifactState.DISK)
    assert (mine.size, mine.state) == (10, ArtifactState.DISK)
    assert (hub.size, hub.state) == (0, ArtifactState.LOADING)
    assert hub.digest == adapter_digest(one.settings, "hub")
    assert len({artifact.digest for artifact in found}) == 4


def test_a_place_that_cannot_be_read_has_no_size(tmp_path):
    assert size_on_disk(tmp_path / "nothing") == size_on_disk(None) == 0


def test_a_loader_knows_what_is_loaded_and_when_it_was_used():
    model = ModelSettings(name="m", version="1", engine="null", options={"output_tokens": 1})
    seen = []
    loader = EngineLoader(
        [model],
        {"null": lambda settings, adapter: seen.append(loader.use_of("m", "1", "")) or Engine()},
        before_load=lambda settings: None,
        on_change=lambda: None,
        clock=lambda: 99,
    )
    assert loader.use_of("m", "1", "") == Use()
    loader.load("m", "1", "")
    assert seen == [Use(is_loading=True)]
    assert loader.use_of("m", "1", "") == Use(is_warm=True, last_use=99)
    assert loader.use_of("m", "1", "other") == Use()


class Engine:
    def close(self):
        pass


def test_asking_for_a_gpu_s_memory_makes_no_process_use_one():
    assert video_memory() == VideoMemory(0, 0)
