"""What a worker says that it is for its pools."""

import threading

import pytest

from support.drawn_jobs import drawn_job
from support.fake_port import FakePort
from support.waiting import PATIENCE_SECONDS, eventually
from tether.broker.pools.slots import Slots
from tether.broker.pools.worker_port import LoadAdvice, PoolReadiness
from tether.config.settings import Settings
from tether.errors import EngineFailed
from tether_workers.engines.null.engine import NullEngine
from tether_workers.load_failures import (
    LONG_LOAD_SECONDS,
    MAX_LOAD_SECONDS,
    TRIES_BEFORE_TELLING,
    EngineKey,
    LoadFailure,
)
from tether_workers.loading import EngineLoader
from tether_workers.model_demand import (
    FULL_SECONDS,
    TELLING_SECONDS,
    ModelDemand,
    readiness_of,
)
from tether_workers.served_models import served_models

NOW = 100.0


def failed(tries, again_at=NOW - 1):
    return LoadFailure(EngineFailed("no room for it"), tries, again_at)


@pytest.mark.parametrize(
    ("expected", "given"),
    [
        (PoolReadiness.COLD, {}),
        (PoolReadiness.ASKED, {"was_told_again": True}),
        (PoolReadiness.AWAY, {"has_room": False}),
        (PoolReadiness.AWAY, {"is_warm": True, "takes_jobs": False}),
        (PoolReadiness.AWAY, {"loading_seconds": 1.0, "takes_jobs": False}),
        (PoolReadiness.WARM, {"is_warm": True, "has_room": False}),
        (PoolReadiness.LOADING, {"loading_seconds": 1.0, "has_room": False}),
        (PoolReadiness.SLOW, {"loading_seconds": LONG_LOAD_SECONDS}),
        (PoolReadiness.PAUSED, {"loading_seconds": MAX_LOAD_SECONDS}),
        (PoolReadiness.COLD, {"failure": failed(1)}),
        (PoolReadiness.PAUSED, {"failure": failed(1, NOW + 1)}),
        (PoolReadiness.FAILING, {"failure": failed(TRIES_BEFORE_TELLING, NOW + 1)}),
        (PoolReadiness.PAUSED, {"failure": failed(3, NOW + 1), "told": 3}),
        (PoolReadiness.FAILING, {"failure": failed(4, NOW + 1), "told": 3}),
        (PoolReadiness.COLD, {"failure": failed(3), "told": 3}),
        (PoolReadiness.PAUSED, {"failure": failed(4), "told": 3, "is_telling": True}),
        (PoolReadiness.FAILING, {"failure": failed(4, float("inf")), "loading_seconds": MAX_LOAD_SECONDS}),
    ],
)
def test_what_a_worker_is_for_a_pool(expected, given):
    usual = {
        "is_warm": False,
        "loading_seconds": None,
        "failure": None,
        "told": 0,
        "is_telling": False,
        "was_told_again": False,
        "takes_jobs": True,
        "has_room": True,
        "now": NOW,
    }
    assert readiness_of(**(usual | given)) is expected


class ListeningPort(FakePort):
    """Keeps what it is told of pools."""

    def __init__(self):
        super().__init__()
        self.told = []

    def demand(self, pools):
        self.told.append([readiness for _, readiness in pools])
        return super().demand(pools)


class DemandBench:
    """The decisions of a worker with one model whose load fails, and its clock; no thread."""

    def __init__(self):
        settings = Settings.model_validate({"models": [{"name": "count", "engine": "null"}]})
        self.served, self.port, self.now = served_models(settings, ["null"]), ListeningPort(), NOW
        self.slots = Slots(1)
        self.pool = self.served[0].pool
        self.loader = EngineLoader(
            [one.settings for one in self.served],
            {"null": self._load},
            before_load=lambda model: None,
            on_change=lambda: None,
            monotonic=lambda: self.now,
        )
        self.demand = ModelDemand(
            self.port, self.loader, self.served, slots=self.slots, clock=lambda: self.now
        )

    def _load(self, model, adapter):
        raise EngineFailed("no room for it")

    def fail(self, tries):
        for number in range(1, tries + 1):
            self.loader.begin_load(EngineKey("count", "1"))
            eventually(lambda n=number: self.tries() == n, PATIENCE_SECONDS, "it has failed")
            self.now = self.loader.failure_of("count", "1").again_at

    def tries(self):
        failure = self.loader.failure_of("count", "1")
        return 0 if failure is None else failure.tries

    def look(self):
        self.demand._step()
        return self.port.told[-1][0]


@pytest.fixture
def bench():
    made = DemandBench()
    yield made
    made.loader.close()


def test_a_failed_try_is_told_in_one_draw(bench):
    bench.fail(TRIES_BEFORE_TELLING)
    bench.port.advice = {bench.pool: LoadAdvice.TELL}
    assert bench.look() is PoolReadiness.FAILING
    assert bench.look() is PoolReadiness.PAUSED
    assert bench.demand.pools() == (bench.pool,)
    assert bench.demand.pools() == ()
    assert bench.look() is not PoolReadiness.FAILING


def test_what_was_told_in_no_draw_is_told_once_others_were_asked_for_again(bench):
    bench.fail(TRIES_BEFORE_TELLING)
    bench.port.advice = {bench.pool: LoadAdvice.TELL}
    bench.look()
    bench.now += TELLING_SECONDS
    assert bench.demand.pools() == ()
    bench.port.advice = {}
    assert bench.look() is PoolReadiness.FAILING
    assert bench.look() is not PoolReadiness.FAILING


def test_a_worker_without_a_free_slot_leaves_loading_to_others_for_a_while(bench):
    bench.slots.fill([drawn_job()])
    assert bench.look() is PoolReadiness.AWAY
    bench.now += FULL_SECONDS
    assert bench.look() is PoolReadiness.COLD
    bench.slots.clear(drawn_job().fence.draw_id)
    bench.look()
    bench.slots.fill([drawn_job()])
    assert bench.look() is PoolReadiness.AWAY


def test_a_process_that_is_outranked_says_nothing_in_the_name_of_the_one_that_draws():
    settings = Settings.model_validate({"models": [{"name": "count", "engine": "null"}]})
    served, port, is_outranked = served_models(settings, ["null"]), ListeningPort(), [True]
    loader = EngineLoader(
        [one.settings for one in served],
        {"null": lambda model, adapter: NullEngine()},
        before_load=lambda model: None,
        on_change=lambda: None,
    )
    loader.load("count", "1", "", threading.Event())
    demand = ModelDemand(port, loader, served, slots=Slots(1), may_draw=lambda: not is_outranked[0])
    try:
        demand._step()
        demand._say_goodbye()
        assert port.told == []
        is_outranked[0] = False
        demand._step()
        assert port.told == [[PoolReadiness.WARM]]
    finally:
        loader.close()
