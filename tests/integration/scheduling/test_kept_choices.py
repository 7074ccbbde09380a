"""What is kept of a choice is what was decided, however the fleet changes afterwards."""

import itertools
import random
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from support.databases import store_in_memory
from support.presences import DIGEST, MODEL
from tether.config.settings import SchedulingSettings
from tether.core.job_placements import placements_of
from tether.discovery.fleet.pool_views import PoolView
from tether.explanations import PlacementOrigin
from tether.histories import JobHistory
from tether.jobs import JobRequest, JobState, Sampling
from tether.models.registry import Registry
from tether.scheduling.pool_choice import PoolChoice
from tether.scheduling.rate_limiter import RateLimiter
from tether.scheduling.reservations import ReservationManager
from tether.scheduling.scheduler_middleware import SchedulerMiddleware
from tether.store.decisions import decisions_of

NOW = 1_800_000_000_000
BROKER = SimpleNamespace(emit_before=lambda *_: None, emit_after=lambda *_: None)


class WithoutRedis(ReservationManager):
    """Only writes."""

    def hand_over(self, dispatches, *, since=None):
        pass


class Door:
    """Submits to a fleet that changes between two jobs."""

    def __init__(self, store):
        self.fleet = ()
        self.store = store
        self.clock = 0.0
        self.choice = PoolChoice(
            self, Registry((MODEL,)), SchedulingSettings(), store, clock=lambda: self.clock
        )
        self.scheduler = SchedulerMiddleware(
            self.choice,
            WithoutRedis(store, None),
            SimpleNamespace(weight=lambda tenant: 1.0),
            RateLimiter(None),
            None,
            tenant="default",
            now_ms=itertools.count(NOW).__next__,
            randomness=random.Random(1).randbytes,
        )

    def pools(self):
        return self.fleet

    def submit(self, request):
        """The job's id, and what was told right before."""
        # Depths are read again for each, so that the other answer cannot change them.
        self.clock += 10
        told = self.scheduler.explain(request, "default")
        [answer] = self.scheduler.enqueue_jobs(BROKER, [self.scheduler.envelope(request)], None)
        return answer.message_id, told

    def kept(self, job_id):
        history = JobHistory(
            job_id=job_id,
            state=JobState.ACCEPTED,
            dispatch=1,
            pool=None,
            since=NOW,
            due_at=None,
            attempts=(),
        )
        [record] = placements_of(history, self.store.read(decisions_of, job_id), 0).placements
        return record


POOLS = st.lists(
    st.builds(
        PoolView,
        name=st.sampled_from("abcdefghijklmnopqrstuvwxyz"),
        model=st.just(MODEL.name),
        version=st.just("1"),
        digest=st.sampled_from((DIGEST, "0" * 64)),
        gpu_class=st.just("cpu"),
        region=st.sampled_from(("eu", "us")),
        workers=st.integers(0, 3),
        suspects=st.integers(0, 3),
        slots=st.integers(1, 64),
        warm=st.booleans(),
        slot_tokens_per_second=st.floats(0, 1e4),
        load_seconds=st.floats(0, 100),
        latency_hops=st.integers(0, 20),
        vram=st.integers(0, 2**40),
    ),
    unique_by=lambda pool: pool.name,
    max_size=20,
).map(tuple)
REQUESTS = st.builds(
    JobRequest,
    model=st.just(MODEL.name),
    prompt=st.text("p", min_size=1, max_size=99),
    region=st.sampled_from(("", "eu", "asia")),
    min_vram=st.sampled_from((0, 2**30)),
    any_version=st.booleans(),
    sampling=st.builds(Sampling, max_tokens=st.integers(1, 64)),
)


@given(st.lists(st.tuples(POOLS, REQUESTS), min_size=1, max_size=5), POOLS)
def test_an_explanation_is_what_was_decided_though_the_fleet_has_changed_since(steps, after):
    with store_in_memory() as store:
        door = Door(store)
        jobs = []
        for fleet, request in steps:
            door.fleet = fleet
            jobs.append(door.submit(request))
        door.fleet = after
        for job_id, told in jobs:
            record = door.kept(job_id)
            assert record.explanation == told
            chosen = told.pool is not None
            assert record.origin is (PlacementOrigin.CHOSEN if chosen else PlacementOrigin.UNSERVED)
            assert record.pool == told.pool
            expected = next((each for each in told.pools if each.pool == told.pool), None)
            assert record.wait_seconds == (expected.wait_seconds if expected else None)
            assert record.total_seconds == (expected.total_seconds if expected else None)
