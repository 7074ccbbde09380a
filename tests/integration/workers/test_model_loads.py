"""Models are loaded beside the slots, and only where no worker that has loaded one is free."""

import threading

import pytest

from support.drawn_jobs import body_of
from support.inference import PATIENCE_SECONDS, PROMPT, InferenceBench
from support.waiting import eventually
from tether.broker.pools.cancel_results import CancelResult
from tether.broker.pools.dispatches import Dispatch, PlaceResult
from tether.errors import EngineFailed
from tether.jobs import JobState, Priority
from tether_workers.engines.null.engine import NullEngine
from tether_workers.served_models import served_models

SLOTS = 4


class ModelBench(InferenceBench):
    """Workers with two models: ``count`` loads at once, ``stuck`` when it is let go, or fails."""

    def __init__(self, folder):
        super().__init__(folder)
        self.models = [
            {"name": "count", "engine": "null", "adapters": ["stuck=somewhere"]},
            {"name": "stuck", "engine": "null"},
        ]
        self.loads = []
        self.ended_before_load = []
        self.may_load = threading.Event()
        self.failure = None
        self.tokens_per_second = 0.0

    def load(self, model, adapter):
        self.ended_before_load.append(len(self.outcomes()))
        self.loads.append(adapter or model.name)
        if self.loads[-1] == "stuck":
            assert self.may_load.wait(PATIENCE_SECONDS)
            if self.failure is not None:
                raise self.failure
        return NullEngine(tokens_per_second=self.tokens_per_second)

    def start(self):
        return self.start_worker(threads=SLOTS, factories={"null": self.load})

    def place_for(self, model, number, *, adapter="", max_tokens=4):
        pools = {one.version.name: one.pool for one in served_models(self.settings, ["null"])}
        job_id = f"{model}-{number}"
        dispatch = Dispatch(
            job_id=job_id,
            dispatch=1,
            pool=pools[model],
            tenant="tenant",
            priority=Priority.STANDARD,
            weight=1.0,
            deadline=0,
            cost=1,
            body=body_of(prompt=PROMPT, model=model, adapter=adapter, max_tokens=max_tokens),
        )
        assert self.pools.place([dispatch]) == [PlaceResult.PLACED]
        return job_id

    def close(self):
        self.may_load.set()
        super().close()


@pytest.fixture
def bench(tmp_path):
    made = ModelBench(tmp_path)
    yield made
    made.close()


def test_a_job_goes_to_the_worker_that_has_loaded_its_model_and_nobody_else_loads_it(bench):
    bench.start()
    bench.wait_for_state(bench.place_for("count", 1), "succeeded")
    bench.start()
    for number in range(2, 10):
        bench.wait_for_state(bench.place_for("count", number), "succeeded")
    assert bench.loads == ["count"]


def test_a_model_that_is_being_loaded_holds_no_slot(bench):
    bench.start()
    waiting = [bench.place_for("stuck", number) for number in range(2 * SLOTS)]
    eventually(lambda: "stuck" in bench.loads, PATIENCE_SECONDS, "it is being loaded")
    bench.wait_for_state(bench.place_for("count", 1), "succeeded")
    assert {bench.state(job_id) for job_id in waiting} == {"placed"}
    bench.may_load.set()
    for job_id in waiting:
        bench.wait_for_state(job_id, "succeeded")
    assert bench.loads.count("stuck") == 1


def test_a_cancel_while_its_model_is_being_loaded_takes_effect_at_once(bench):
    bench.start()
    job_id = bench.place_for("stuck", 1)
    eventually(lambda: "stuck" in bench.loads, PATIENCE_SECONDS, "it is being loaded")
    assert bench.pools.cancel_many([(job_id, JobState.CANCELLED)]) == [CancelResult.CLOSED]
    assert bench.state(job_id) == "cancelled"


def test_where_no_worker_can_load_its_model_a_job_fails_with_the_reason(bench):
    bench.failure = EngineFailed("no room for it")
    bench.may_load.set()
    bench.start()
    job_id = bench.place_for("stuck", 1)
    eventually(bench.outcomes, PATIENCE_SECONDS, "the attempt has ended")
    (outcome,) = bench.outcomes()
    assert (outcome["job"], outcome["kind"]) == (job_id, "failed")
    assert "no room for it" in outcome["error"]
    # Each other worker would have had its chance meanwhile.
    assert bench.loads.count("stuck") == 2
    bench.wait_for_state(bench.place_for("count", 1), "succeeded")


def test_a_job_waits_for_a_worker_that_can_load_its_model(bench):
    failing, loaded = bench.start(), []
    bench.failure = EngineFailed("no room for it")
    bench.may_load.set()
    job_id = bench.place_for("stuck", 1)
    eventually(lambda: "stuck" in bench.loads, PATIENCE_SECONDS, "one has tried")

    def load(model, adapter):
        loaded.append(model.name)
        return NullEngine()

    bench.start_worker(threads=SLOTS, factories={"null": load})
    bench.wait_for_state(job_id, "succeeded")
    assert loaded == ["stuck"]
    assert failing in bench.workers


def test_a_failed_load_costs_no_more_jobs_than_the_worker_has_slots(bench):
    bench.failure = EngineFailed("no room for it")
    bench.may_load.set()
    for number in range(10 * SLOTS):
        bench.place_for("stuck", number)
    bench.start()
    eventually(lambda: bench.loads.count("stuck") >= 3, PATIENCE_SECONDS, "it is tried for the third time")
    eventually(bench.outcomes, PATIENCE_SECONDS, "jobs are told")
    ended = bench.ended_before_load[:3]
    assert (ended[:2], ended[2] <= SLOTS) == ([0, 0], True), f"{ended} jobs had failed before each try"


def test_a_model_is_loaded_though_jobs_of_another_take_all_slots(bench):
    bench.tokens_per_second = 1.0
    bench.may_load.set()
    bench.start()
    busy = [bench.place_for("count", number, max_tokens=1_000) for number in range(2 * SLOTS)]
    eventually(
        lambda: bench.states_at_once(busy).count("running") == SLOTS, PATIENCE_SECONDS, "all slots are taken"
    )
    bench.place_for("stuck", 1)
    eventually(lambda: "stuck" in bench.loads, PATIENCE_SECONDS, "it is being loaded")
    assert bench.states_at_once(busy).count("running") == SLOTS
    bench.pools.cancel_many([(job_id, JobState.CANCELLED) for job_id in busy])


def test_jobs_whose_adapter_hangs_while_it_is_loaded_stand_in_front_of_no_others(bench):
    bench.start()
    waiting = [bench.place_for("count", number, adapter="stuck") for number in range(8 * SLOTS)]
    eventually(lambda: "stuck" in bench.loads, PATIENCE_SECONDS, "it is being loaded")
    bench.wait_for_state(bench.place_for("count", "other"), "succeeded")
    bench.may_load.set()
    for job_id in waiting:
        bench.wait_for_state(job_id, "succeeded")
    assert bench.loads.count("stuck") == 1


def test_a_worker_that_cannot_load_an_adapter_leaves_its_jobs_to_one_that_can(bench):
    bench.failure = EngineFailed("no room for it")
    bench.may_load.set()
    bench.start()
    bench.wait_for_state(bench.place_for("count", "other"), "succeeded")
    jobs = [bench.place_for("count", number, adapter="stuck") for number in range(10 * SLOTS)]
    eventually(lambda: bench.loads.count("stuck") >= 2, PATIENCE_SECONDS, "it is tried once more")
    bench.start_worker(threads=SLOTS, factories={"null": lambda model, adapter: NullEngine()})
    eventually(
        lambda: len([each for each in bench.outcomes() if each["job"] in jobs]) == len(jobs),
        PATIENCE_SECONDS,
        "all have ended",
    )
    failed = [each for each in bench.outcomes() if each["kind"] == "failed"]
    assert len(failed) <= SLOTS * (bench.loads.count("stuck") - 1)
