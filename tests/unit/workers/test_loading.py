"""Engines are loaded beside the slots: once for all, and not again and again where that fails."""

import threading

import pytest

from support.waiting import PATIENCE_SECONDS, eventually, join
from tether.config.settings import ModelSettings
from tether.errors import EngineFailed, NotServed
from tether_workers.engines.null.engine import NullEngine
from tether_workers.loading import (
    FIRST_LOAD_PAUSE_SECONDS,
    MAX_LOAD_PAUSE_SECONDS,
    EngineKey,
    EngineLoader,
    load_pause,
)

COUNT = EngineKey("count", "1")


class Bench:
    """A loader whose loads wait until they are let go, and its clock."""

    def __init__(self):
        self.now = 0.0
        self.loads = []
        self.may_end = threading.Event()
        self.may_end.set()
        self.failure = None
        self.changes = []
        self.closed = []
        self.loader = EngineLoader(
            [
                ModelSettings(name="count", engine="null", pinned=True),
                ModelSettings(name="other", engine="null"),
            ],
            {"null": self._load},
            before_load=lambda model: None,
            on_change=lambda: self.changes.append(1),
            monotonic=lambda: self.now,
        )

    def _load(self, model, adapter):
        self.loads.append(model.name)
        assert model.name != "count" or self.may_end.wait(PATIENCE_SECONDS)
        if self.failure is not None:
            raise self.failure
        engine = NullEngine()
        engine.close = lambda: self.closed.append(model.name)
        return engine

    def load(self, name="count", cancelled=None):
        return self.loader.load(name, "1", "", cancelled or threading.Event())

    def fail_once(self):
        self.failure = EngineFailed("no room")
        self.loader.begin_load(COUNT)
        eventually(lambda: not self.loader.is_loading("count", "1"), PATIENCE_SECONDS, "it has failed")


@pytest.fixture
def bench():
    made = Bench()
    yield made
    made.may_end.set()
    made.loader.close()


def test_slots_that_ask_at_once_load_a_model_once(bench):
    bench.may_end.clear()
    engines = []
    slots = [threading.Thread(target=lambda: engines.append(bench.load())) for _ in range(4)]
    for slot in slots:
        slot.start()
    eventually(lambda: bench.loads, PATIENCE_SECONDS, "it is being loaded")
    assert bench.loader.is_loading("count", "1")
    bench.may_end.set()
    for slot in slots:
        join(slot)
    assert bench.loads == ["count"]
    assert len(set(map(id, engines))) == 1
    assert bench.loader.is_warm("count", "1")
    assert not bench.loader.is_loading("count", "1")
    eventually(lambda: len(bench.changes) == 2, PATIENCE_SECONDS, "its begin and its end were told")


def test_a_load_that_hangs_keeps_nobody_from_another_model(bench):
    bench.may_end.clear()
    bench.loader.begin_load(COUNT)
    assert isinstance(bench.load("other"), NullEngine)
    assert bench.loader.is_loading("count", "1")


def test_a_slot_does_not_wait_for_a_load_whose_job_is_cancelled(bench):
    bench.may_end.clear()
    cancelled = threading.Event()
    cancelled.set()
    assert bench.load(cancelled=cancelled) is None
    assert bench.loader.is_loading("count", "1")


def test_what_failed_is_remembered_and_tried_again_after_a_pause(bench):
    bench.fail_once()
    for _ in range(3):
        with pytest.raises(EngineFailed, match="no room"):
            bench.load()
    assert bench.loads == ["count"]
    bench.now = FIRST_LOAD_PAUSE_SECONDS
    bench.failure = None
    assert isinstance(bench.load(), NullEngine)
    assert bench.loader.failure_of("count", "1") is None


def test_an_engine_that_asks_to_exit_has_failed(bench):
    bench.failure = SystemExit(3)
    bench.loader.begin_load(COUNT)
    eventually(lambda: not bench.loader.is_loading("count", "1"), PATIENCE_SECONDS, "it has failed")
    assert "asked to exit" in str(bench.loader.failure_of("count", "1").error)


def test_pauses_grow_up_to_a_limit(bench):
    for tries in (1, 2, 3):
        bench.fail_once()
        failure = bench.loader.failure_of("count", "1")
        assert (failure.tries, failure.again_at - bench.now) == (tries, load_pause(tries))
        bench.now = failure.again_at
    assert load_pause(1) < load_pause(2) < load_pause(3)
    assert load_pause(1_000) == MAX_LOAD_PAUSE_SECONDS


def test_pinned_models_are_loaded_at_the_start(bench):
    bench.loader.preload()
    eventually(lambda: bench.loader.is_warm("count", "1"), PATIENCE_SECONDS, "the pinned model is loaded")
    assert bench.loads == ["count"]


def test_the_only_model_is_loaded_at_the_start_too():
    model = ModelSettings(name="count", engine="null")
    loader = EngineLoader(
        [model], {"null": lambda *_: NullEngine()}, before_load=lambda model: None, on_change=lambda: None
    )
    loader.preload()
    eventually(lambda: loader.is_warm("count", "1"), PATIENCE_SECONDS, "the only model is loaded")
    loader.close()


def test_an_engine_that_comes_after_the_end_is_closed(bench):
    bench.may_end.clear()
    bench.loader.begin_load(COUNT)
    bench.loader.close(timeout=0.0)
    bench.may_end.set()
    eventually(lambda: bench.closed == ["count"], PATIENCE_SECONDS, "it is closed")
    assert not bench.loader.is_warm("count", "1")


def test_a_model_that_is_not_served_is_refused(bench):
    with pytest.raises(NotServed):
        bench.load("unknown")
