"""Clients of every kind behind one face, so that one test body runs over all of them."""

import asyncio
import contextlib

from dramatiq import Worker

from support.cluster import Cluster
from support.waiting import eventually
from tether import AsyncTether, Tether
from tether.errors import InvalidRequest
from tether.store.tenants import Tenant, save_tenant
from tether.testing import AsyncFakeTether, FakeModel, FakeTether
from tether_workers.engine import Delta, EngineFailed
from tether_workers.engines.null import NullEngine
from tether_workers.pool_worker import make_worker

PATIENCE_SECONDS = 30
TOKENS = 8
OTHER_TENANT = "neighbour"

MODELS = {"counter": (0, TOKENS), "slow": (50, 100_000), "broken": (0, TOKENS), "refusing": (0, TOKENS)}
"""Name: tokens a second, tokens. `broken` fails after two more tokens, always; `refusing` refuses."""


class BrokenEngine(NullEngine):
    def start(self, prompt_ids, accepted_ids, sampling, cancelled):
        delta = next(super().start(prompt_ids, accepted_ids, sampling, cancelled))
        yield Delta(delta.offset, delta.token_ids[:2], delta.texts[:2])
        raise EngineFailed("it broke")


class RefusingEngine(NullEngine):
    def encode(self, prompt):
        raise InvalidRequest("it does not like this prompt")


def make_engine(model, adapter):
    kinds = {"broken": BrokenEngine, "refusing": RefusingEngine}
    return kinds.get(model.name, NullEngine).from_settings(model, adapter)


class DirectService:
    """The real thing: Redis, a database, an orchestrator and a worker in this process."""

    def __init__(self, database=None):
        self._stack = contextlib.ExitStack()
        config = "[jobs]\nretry_base = 10\nretry_cap = 20\nmax_attempts = 3\n"
        self.cluster = self._stack.enter_context(Cluster(database=database, models=MODELS, config=config))
        self.cluster.orchestrator()
        broker = make_worker(self.cluster.settings, factories={"null": make_engine})
        self._stack.callback(broker.close)
        worker = Worker(broker, worker_threads=16, worker_timeout=100)
        worker.start()
        self._stack.callback(worker.stop, timeout=20_000)
        self.settings = self.cluster.settings
        with self.open() as client:
            tenant = Tenant(OTHER_TENANT, OTHER_TENANT, 1.0, None, 1)
            client.client._direct._plane.store.write_alone(save_tenant, tenant).result()
            client.wait_until_served()

    def open(self, tenant="default"):
        return Client(Tether.direct(self.settings, tenant=tenant))

    def open_async(self, tenant="default"):
        runner = asyncio.Runner()
        return AsyncClient(runner, runner.run(AsyncTether.direct(self.settings, tenant=tenant)))

    def work(self):
        """Let jobs run: they do by themselves."""

    def advance(self, seconds):
        """Time passes by itself."""

    def close(self):
        self._stack.close()


class FakeService:
    """The fake, which runs nothing by itself: `work` and `advance` do what elsewhere happens by itself."""

    def __init__(self):
        words = NullEngine(output_tokens=TOKENS)

        def count(prompt):
            return self._texts(words, prompt)

        def slow(prompt):
            return self._texts(NullEngine(output_tokens=1_000), prompt)

        def broken(prompt):
            # One attempt goes on where the one before broke.
            self._broken_at += 2
            yield from count(prompt)[: self._broken_at]
            raise EngineFailed("it broke")

        def refusing(prompt):
            raise InvalidRequest("it does not like this prompt")

        self._broken_at = 0
        models = {"counter": count, "slow": slow, "broken": broken, "refusing": FakeModel(refusing)}
        from tether.scheduling.retry_policy import RetryPolicy

        options = {"autorun": False, "retry_policy": RetryPolicy(3, 10, 20)}
        self._tether = FakeTether(models, **options)
        self._fake = self._tether.fake

    def _texts(self, engine, prompt):
        from threading import Event

        from tether.jobs import Sampling

        deltas = engine.start(engine.encode(prompt), (), Sampling(max_tokens=1_000), Event())
        return [text for delta in deltas for text in delta.texts]

    def open(self, tenant="default"):
        return Client(Tether(self._fake.for_tenant(tenant)))

    def open_async(self, tenant="default"):
        return AsyncClient(asyncio.Runner(), AsyncTether(self._fake.for_tenant(tenant)))

    def work(self):
        self._fake.run_all()
