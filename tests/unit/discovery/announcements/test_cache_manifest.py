"""What a worker tells of what it has, and what of that an announcement holds."""

import sys
import threading
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.presences import envelope
from tether.config.settings import ModelSettings
from tether.discovery.announcements.presence import Artifact, ArtifactKind, ArtifactState, manifest_of
from tether.discovery.announcements.wire import MAX_ENVELOPE_BYTES, verify_envelope
from tether.models.registry import ModelVersion
from tether_workers.loading import EngineLoader
from tether_workers.presence.cache_report import ArtifactUse, CacheReport, adapter_digest, size_on_disk
from tether_workers.presence.video_memory import VideoMemory, driver_memory, video_memory
from tether_workers.served_models import ServedModel


def trust_all(_):
    return True


def artifacts(count, state):
    return tuple(Artifact(f"{number:064x}", ArtifactKind.MODEL, state, number) for number in range(count))


def test_of_a_manifest_that_is_too_long_what_is_warm_is_told_and_the_digest_is_that_of_all():
    whole = manifest_of(artifacts(90, ArtifactState.DISK) + artifacts(20, ArtifactState.WARM))
    told = verify_envelope(envelope(cache=whole), trust_all).cache
    assert told.artifacts == artifacts(20, ArtifactState.WARM)
    assert told.digest == whole.digest
    assert not told.is_complete


@settings(max_examples=30, deadline=None)
@given(warm=st.integers(0, 600), disk=st.integers(0, 200))
def test_an_announcement_tells_of_as_many_warm_artifacts_as_fit(warm, disk):
    whole = manifest_of(artifacts(disk, ArtifactState.DISK) + artifacts(warm, ArtifactState.WARM))
    data = envelope(cache=whole)
    told = verify_envelope(data, trust_all).cache
    assert told.digest == whole.digest
    assert told.is_complete == (told.artifacts == whole.artifacts)
    if not told.is_complete:
        assert all(one.state is ArtifactState.WARM for one in told.artifacts)
        room = MAX_ENVELOPE_BYTES - len(data)
        assert len(told.artifacts) == warm or room < len(data) / len(told.artifacts)


def test_a_manifest_that_fits_is_told_whole():
    whole = manifest_of(artifacts(3, ArtifactState.LOADING))
    assert verify_envelope(envelope(cache=whole), trust_all).cache == whole
    assert manifest_of(artifacts(2, ArtifactState.LOADING)).digest != whole.digest


def served(**changes):
    settings = ModelSettings(**{"name": "m", "version": "1", "source": "demo", **changes})
    version = ModelVersion.from_settings(settings)
    return ServedModel(settings, version, "pool")


def test_what_is_loaded_loading_or_on_disk_is_in_the_manifest(tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "weights").write_bytes(b"x" * 10)
    one = served(adapters=("code", f"mine={adapter}", "gone=/nowhere/at/all", "hub=hf:somebody/adapter"))
    uses = {"": ArtifactUse(is_warm=True, last_use=7), "hub": ArtifactUse(is_loading=True)}
    found = CacheReport([one], lambda name, version, adapter: uses.get(adapter, ArtifactUse())).artifacts()
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
    assert loader.use_of("m", "1", "") == ArtifactUse()
    loader.load("m", "1", "", threading.Event())
    assert seen == [ArtifactUse(is_loading=True)]
    assert loader.use_of("m", "1", "") == ArtifactUse(is_warm=True, last_use=99)
    assert loader.use_of("m", "1", "other") == ArtifactUse()


class Engine:
    def close(self):
        pass


def test_asking_for_a_gpu_s_memory_makes_no_process_use_one():
    assert video_memory() == VideoMemory(0, 0)


class Torch(SimpleNamespace):
    def __init__(self, is_initialized, answer):
        super().__init__(cuda=SimpleNamespace(is_initialized=lambda: is_initialized, mem_get_info=answer))


def test_a_gpu_in_use_is_told_with_what_is_free(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", Torch(True, lambda: (3, 8)))
    assert video_memory() == VideoMemory(total=8, free=3)


def test_a_gpu_that_nobody_uses_yet_is_not_asked(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", Torch(False, lambda: pytest.fail("asked")))
    assert video_memory() == VideoMemory(0, 0)


def test_a_gpu_that_fails_does_not_silence_its_worker(monkeypatch):
    def fail():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setitem(sys.modules, "torch", Torch(True, fail))
    assert video_memory() == VideoMemory(0, 0)


def test_torch_half_imported_is_no_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace())
    assert video_memory() == VideoMemory(0, 0)


@pytest.fixture
def driver(tmp_path):
    """Makes an `nvidia-smi` that prints something and notes how it was called; returns its variables."""

    def make(text, status=0):
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\necho \"$@\" > {tmp_path}/called\nprintf '{text}'\nexit {status}\n")
        program.chmod(0o755)
        return {"PATH": f"{tmp_path}:/usr/bin:/bin"}

    return make


def test_the_driver_tells_what_a_gpu_has_that_nobody_uses_yet(driver, tmp_path):
    environ = driver("143771, 143160\\n81559, 80000\\n")
    assert driver_memory(environ) == VideoMemory(143_771 * 2**20, 143_160 * 2**20)
    assert "-i" not in (tmp_path / "called").read_text()
    assert driver_memory({**environ, "CUDA_VISIBLE_DEVICES": "GPU-5a, 1"}).total
    assert (tmp_path / "called").read_text().endswith("-i GPU-5a\n")


@pytest.mark.parametrize(
    ("text", "status"), [("", 0), ("No devices were found\\n", 6), ("[N/A], [N/A]\\n", 0), ("1\\n", 0)]
)
def test_a_driver_that_does_not_tell_leaves_it_unknown(driver, text, status):
    assert driver_memory(driver(text, status)) == VideoMemory()


def test_without_a_gpu_nothing_is_started(driver, tmp_path):
    assert driver_memory({**driver("1, 1"), "CUDA_VISIBLE_DEVICES": ""}) == VideoMemory()
    assert driver_memory({"PATH": str(tmp_path / "nowhere")}) == VideoMemory()
    assert not (tmp_path / "called").exists()
