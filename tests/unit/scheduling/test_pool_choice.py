"""Which pool a process chooses, beyond the scores: what it remembers of its own choices."""

from types import SimpleNamespace

import pytest

from support.presences import DIGEST, MODEL
from tether.config.settings import SchedulingSettings
from tether.discovery.fleet.pool_views import PoolView
from tether.scheduling.pool_choice import TRY_SECONDS, PoolChoice


class Chooser:
    """Two pools; the workers of the better one are held back from a tenant's jobs."""

    def __init__(self):
        self.now = 100.0
        self.may_try = True
        registry = SimpleNamespace(find=lambda model: MODEL, models=[MODEL])
        store = SimpleNamespace(read=lambda query: {})
        self.choice = PoolChoice(self, registry, SchedulingSettings(), store, clock=lambda: self.now)

    def pools(self):
        return (
            self.view("better", warm=True, held_from={"one": 1}, may_try=self.may_try),
            self.view("worse", warm=False),
        )

    def view(self, name, **about):
        where = {"gpu_class": "cpu", "region": "local", "workers": 1, "slots": 64}
        return PoolView(name=name, model="tiny", version="1", digest=DIGEST, **where, **about)

    def new(self, tenant="one"):
        return self.choice.choose("tiny", tenant=tenant, is_new=True)


@pytest.fixture
def chooser():
    return Chooser()


def test_now_and_then_a_new_job_shows_whether_workers_that_are_held_back_work_again(chooser):
    assert [chooser.new() for _ in range(3)] == ["better", "worse", "worse"]
    chooser.now += TRY_SECONDS - 1
    assert chooser.new() == "worse"
    chooser.now += 1
    assert chooser.choice.choose("tiny", tenant="one") == "worse"
    assert chooser.new() == "better"


def test_nothing_is_tried_while_they_pause(chooser):
    chooser.may_try = False
    assert chooser.new() == "worse"
    assert chooser.new("two") == "better"


def test_another_tenants_jobs_are_no_trial(chooser):
    assert [chooser.new("two"), chooser.new("two"), chooser.new()] == ["better"] * 3
