"""What a worker says that it is for its pools."""

import threading

import pytest

from support.fake_port import FakePort
from support.waiting import PATIENCE_SECONDS, eventually
from tether.broker.pools.slots import Slots
from tether.broker.pools.worker_port import PoolReadiness
from tether.config.settings import Settings
from tether.errors import EngineFailed
from tether_workers.engines.null.engine import NullEngine
from tether_workers.loading import EngineLoader, LoadFailure
from tether_workers.model_demand import (
    LONG_LOAD_SECONDS,
    MAX_LOAD_SECONDS,
    TRIES_BEFORE_TELLING,
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
    ],
)
def test_what_a_worker_is_for_a_pool(expected, given):
    usual = {
        "is_warm": False,
        "loading_seconds": None,
        "failure": None,
        "told": 0,
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


def test_a_process_that_is_outranked_is_counted_on_for_nothing_however_warm():
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
    demand.start()
    try:
        eventually(lambda: port.told, PATIENCE_SECONDS, "it has said what it is")
        is_outranked[0] = False
        eventually(lambda: port.told[-1] == [PoolReadiness.WARM], PATIENCE_SECONDS, "it counts again")
    finally:
        demand.stop()
        loader.close()
    assert port.told[0] == [PoolReadiness.AWAY]
