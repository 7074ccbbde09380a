"""Engines are loaded beside the slots: once for all, and not again and again where that fails."""

import asyncio
import threading

import pytest
import structlog

from support.waiting import PATIENCE_SECONDS, eventually, join
from tether.config.settings import ModelSettings
from tether.errors import EngineFailed, NotServed
from tether_workers.engines.null.engine import NullEngine
from tether_workers.load_failures import (
    FIRST_LOAD_PAUSE_SECONDS,
    HANG_SECONDS,
    LONG_LOAD_SECONDS,
    MAX_LOAD_PAUSE_SECONDS,
    EngineKey,
    load_pause,
)
from tether_workers.loading import EngineLoader

COUNT = EngineKey("count", "1")
TOLD_PER_TRY = 2


class Mute(Exception):
    """Cannot even be printed."""

    def __str__(self):
        raise ValueError


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
                ModelSettings(name="count", engine="null", pinned=True, adapters=["code"]),
                ModelSettings(name="other", engine="null"),
            ],
            {"null": self._load},
            before_load=lambda model: None,
            on_change=lambda: self.changes.append(1),
            told_per_try=TOLD_PER_TRY,
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

    def load(self, name="count", cancelled=None, adapter=""):
        return self.loader.load(name, "1", adapter, cancelled or threading.Event())

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


def test_what_the_last_load_took_is_known_once_it_has_ended(bench):
    bench.may_end.clear()
    bench.loader.begin_load(COUNT)
    bench.now += 4.0
    assert bench.loader.load_seconds("count", "1") is None
    bench.may_end.set()
    eventually(lambda: bench.loader.is_warm("count", "1"), PATIENCE_SECONDS, "it is loaded")
    assert bench.loader.load_seconds("count", "1") == 4.0
    assert bench.loader.load_seconds("other", "1") is None


def test_a_load_that_fails_says_nothing_of_how_long_one_takes(bench):
    bench.fail_once()
    assert bench.loader.load_seconds("count", "1") is None


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
    assert bench.load() is None
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


def test_a_failed_try_is_told_to_so_many_jobs_and_the_first_to_none(bench):
    for _ in range(3):
        bench.fail_once()
        answers = []
        for _ in range(TOLD_PER_TRY + 1):
            try:
                answers.append(bench.load())
            except EngineFailed as error:
                answers.append(str(error))
        told = 0 if len(bench.loads) == 1 else TOLD_PER_TRY
        assert answers == ["no room"] * told + [None] * (TOLD_PER_TRY + 1 - told)
        bench.now = bench.loader.failure_of("count", "1").again_at
    assert bench.loads == ["count"] * 3


def test_what_cannot_be_loaded_is_not_loaded_with_an_adapter_either(bench):
    for _ in range(2):
        bench.fail_once()
        bench.now = bench.loader.failure_of("count", "1").again_at
    with pytest.raises(EngineFailed, match="no room"):
        bench.load(adapter="code")
    assert bench.loads == ["count"] * 2


@pytest.mark.parametrize("error", [KeyboardInterrupt(), asyncio.CancelledError(), MemoryError(), Mute()])
def test_whatever_is_raised_ends_a_load_and_others_hear_of_it(bench, error):
    bench.failure = error
    bench.loader.begin_load(COUNT)
    eventually(lambda: bench.loader.failure_of("count", "1"), PATIENCE_SECONDS, "it has failed")
    eventually(lambda: len(bench.changes) == 2, PATIENCE_SECONDS, "its begin and its end were told")
    assert not bench.loader.is_loading("count", "1")
    assert str(bench.loader.failure_of("count", "1").error), "whoever tells of it can"


def test_a_load_that_hangs_has_failed_once_more_each_minute_until_it_ends(bench):
    bench.may_end.clear()
    bench.loader.begin_load(COUNT)
    bench.now = HANG_SECONDS - 1
    assert bench.loader.failure_of("count", "1") is None
    bench.now = HANG_SECONDS
    first = bench.loader.failure_of("count", "1")
    with pytest.raises(EngineFailed, match="has been loading for 3600 s"):
        bench.load()
    bench.now += MAX_LOAD_PAUSE_SECONDS
    assert bench.loader.failure_of("count", "1").tries == first.tries + 1
    bench.now += MAX_LOAD_PAUSE_SECONDS / 2
    assert "for 3660 s" in str(bench.loader.failure_of("count", "1").error), "its text changes with its tries"
    bench.loader.begin_load(COUNT)
    assert bench.loads == ["count"]
    bench.may_end.set()
    eventually(lambda: bench.loader.is_warm("count", "1"), PATIENCE_SECONDS, "it is loaded at last")
    assert bench.loader.failure_of("count", "1") is None


def test_a_load_that_takes_long_is_logged_once(bench):
    bench.may_end.clear()
    with structlog.testing.capture_logs() as logged:
        bench.loader.begin_load(COUNT)
        bench.loader.warn_of_long_loads()
        bench.now = LONG_LOAD_SECONDS
        bench.loader.warn_of_long_loads()
        bench.loader.warn_of_long_loads()
    assert [(line["log_level"], line["model"]) for line in logged] == [("warning", "count")]


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
