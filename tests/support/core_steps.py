"""The steps of an orchestrator, one at a time, over a real Redis and a real database."""

import random

import redis

from support.databases import POOL, new_job, state_of
from support.hand_worker import HandWorker, growth
from tether.broker.keys import Keys
from tether.broker.pools.outcomes import GROUP, Outcomes
from tether.broker.pools.pools import Pools
from tether.orchestrator.deadlines import EndOverdue
from tether.orchestrator.outbox_relay import RelayOutbox
from tether.orchestrator.outcomes import SettleOutcomes
from tether.orchestrator.reconcile import Reconcile
from tether.scheduling.cancellation import Cancellation
from tether.scheduling.reservations import ReservationManager
from tether.scheduling.retry_manager import RetryManager
from tether.scheduling.retry_policy import RetryPolicy
from tether.store.admissions import SUBMITTER_GRACE_MS, admit
from tether.telemetry import metrics

NOW = 1_800_000_000_000
LIFE_MS = 600_000


class CoreSteps:
    """The steps of an orchestrator, one at a time, and a worker by hand."""

    def __init__(self, store, server, namespace, *, life_ms=LIFE_MS):
        self.now = NOW
        self.store = store
        self.redis = redis.Redis.from_url(server.url)
        self.keys = Keys(namespace)
        for key in self.redis.scan_iter(self.keys.prefix + ":*"):
            self.redis.delete(key)
        self.pools = Pools(self.redis, self.keys)
        self.outcomes = Outcomes(self.redis, self.keys, "member")
        self.ending = Cancellation(store, self.pools, life_ms)
        self.reservations = ReservationManager(store, self.pools)
        self.relay = RelayOutbox(store, self.pools, self.ending, now_ms=self.clock)
        self.deadlines = EndOverdue(store, self.ending, now_ms=self.clock)
        self.reconcile = Reconcile(
            store, self.pools, self.ending, interval=0, life_ms=life_ms, now_ms=self.clock
        )
        self.settle_step = SettleOutcomes(
            store,
            self.pools,
            self.outcomes,
            retries=RetryManager(RetryPolicy(), now_ms=self.clock, randomness=random.Random(0)),
            life_ms=life_ms,
            now_ms=self.clock,
            on_waiting=lambda: None,
        )
        self.reconcile()
        self.worker = HandWorker(self.redis, self.keys, "hands.1")
        self.worker.hello()

    def clock(self):
        return self.now

    def submit(self, *numbers, places=True, **changes):
        """Admit jobs; without ``places``, their submitter dies before it places them."""
        new = [new_job(number, **changes) for number in numbers]
        if places:
            self.reservations.reserve(new)
        else:
            for future in self.store.write_many(admit, new):
                future.result()
        self.store.write_alone(lambda connection: None).result()

    def later(self, ms=2 * SUBMITTER_GRACE_MS):
        self.now += ms

    def draw(self, count=1):
        return self.worker.draw(count, [POOL], busy=False).jobs

    def finish(self, count):
        drawn = self.draw(count)
        assert len(drawn) == count
        for job in drawn:
            self.worker.finish(growth(job, 1))

    def settle(self):
        """One step, with what is claimed: an hour of Redis's clock may have passed."""
        self.settle_step._has_failed = True
        self.settle_step._outcomes.read = lambda count, wait_ms: Outcomes.read(self.outcomes, count, 0)
        self.settle_step()

    def pending(self):
        return self.redis.xpending(self.keys.outcomes, GROUP)["pending"]

    def break_job(self, number):
        """Put a value of another type than ours where Redis holds a job: scripts fail for it."""
        key = self.keys.job(f"job-{number:06}")
        self.redis.delete(key)
        self.redis.set(key, "x")

    def sql(self, statement):
        self.store.write_alone(lambda connection: connection.execute(statement) and None).result()

    def states(self, *numbers):
        return [state_of(self.store, number)[0] for number in numbers]

    def failures(self, loop):
        return metrics.REGISTRY.value_of("tether_entries_failed_total", {"loop": loop}) or 0

    def close(self):
        self.worker.close()
        self.outcomes.close()
        self.pools.close()
        self.redis.close()
