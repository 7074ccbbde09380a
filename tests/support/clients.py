"""Clients of every kind behind one face, so that one test body runs over all of them."""

import asyncio
import contextlib
import threading

from dramatiq import Worker

from support.cluster import Cluster
from support.gateways import RunningGateway
from support.waiting import PATIENCE_SECONDS, eventually
from tether import AsyncTether, Tether
from tether.errors import EngineFailed, InvalidRequest
from tether.jobs import Sampling
from tether.scheduling.retry_policy import RetryPolicy
from tether.store import Store
from tether.store.tenants import Tenant, create_tenant
from tether.testing import FakeBackend
from tether_workers.engine import Delta
from tether_workers.engines.null.engine import NullEngine
from tether_workers.pool_worker import make_worker

TOKENS = 8
MAX_ATTEMPTS = 3
OTHER_TENANT = "neighbour"

MODELS = {"counter": (0, TOKENS), "slow": (50, 1_000), "broken": (0, TOKENS), "refusing": (0, TOKENS)}
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


class Service:
    """What clients talk to. :meth:`close` ends it and all its clients."""

    def __init__(self):
        self._stack = contextlib.ExitStack()
        self._clients = {}

    def client(self, *, on_loop, tenant="default"):
        """A client of either kind; the same for the same arguments."""
        key = (on_loop, tenant)
        if key not in self._clients:
            self._clients[key] = client = Client(self, on_loop=on_loop, tenant=tenant)
            self._stack.callback(client.close)
        return self._clients[key]

    def close(self):
        self._stack.close()


class Direct(Service):
    """The real thing: Redis, a database, an orchestrator and a worker in this process."""

    def __init__(self, database=None):
        super().__init__()
        # One worker has a model that always fails: held back for that, it would let its jobs live.
        retries = "[retries]\nworker_failures = 100\n"
        # One model is there to fail: its breaker would keep its jobs from that.
        retries += "[breaker]\nenabled = false\n"
        config = f"[jobs]\nretry_base = 10\nretry_cap = 20\nmax_attempts = {MAX_ATTEMPTS}\n{retries}"
        self.cluster = cluster = self._stack.enter_context(
            Cluster(database=database, models=MODELS, config=config)
        )
        self.settings = cluster.settings
        cluster.orchestrator()
        with Store(self.settings.database.url) as store:
            tenant = Tenant(OTHER_TENANT, OTHER_TENANT, 1.0, None, 1)
            store.write_alone(create_tenant, tenant).result()
        broker = make_worker(self.settings, factories={"null": make_engine})
        self._stack.callback(broker.close)
        worker = Worker(broker, worker_threads=16, worker_timeout=100)
        worker.start()
        self._stack.callback(worker.stop, timeout=20_000)

    def backend(self, kind, tenant, run):
        return run(kind.direct(self.settings, tenant=tenant))

    def begin(self, job_id):
        """Jobs begin by themselves."""

    def work(self):
        """Jobs go on by themselves."""

    def advance(self, seconds):
        """Time passes by itself."""


class Http(Direct):
    """The real thing behind a gateway."""

    def __init__(self, database=None):
        super().__init__(database)
        self.gateway = self._stack.enter_context(RunningGateway(self.settings))

    def backend(self, kind, tenant, run):
        return kind(self.gateway.url, self.gateway.key(tenant))


class Fake(Service):
    """The fake, told to do what happens by itself elsewhere."""

    def __init__(self):
        super().__init__()
        models = {name: self._of_words(tokens) for name, (_, tokens) in MODELS.items()}
        models |= {"broken": self._broken, "refusing": self._refusing}
        policy = RetryPolicy(MAX_ATTEMPTS, 0, 0)
        self._attempts = 0
        self._fake = FakeBackend(models, autorun=False, retry_policy=policy)

    def _of_words(self, tokens):
        engine = NullEngine(output_tokens=tokens)

        def answer(prompt):
            deltas = engine.start(engine.encode(prompt), (), Sampling(max_tokens=8_000), threading.Event())
            return [text for delta in deltas for text in delta.texts]

        return answer

    def _broken(self, prompt):
        # Each attempt goes on where the one before broke.
        self._attempts += 1
        yield from self._of_words(TOKENS)(prompt)[: 2 * self._attempts]
        raise EngineFailed("it broke")

    def _refusing(self, prompt):
        raise InvalidRequest("it does not like this prompt")

    def backend(self, kind, tenant, run):
        return kind(backend=self._fake.for_tenant(tenant))

    def begin(self, job_id):
        while self._fake.job_port.status(job_id).offset < 3:
            assert self._fake.step()

    def work(self):
        while self._fake.run_pending():
            pass

    def advance(self, seconds):
        self._fake.advance(seconds)
        self.work()


class Client:
    """A client of either kind. What waits elsewhere lets the fake work first."""

    def __init__(self, service, *, on_loop, tenant="default"):
        self.service = service
        self._runner = asyncio.Runner() if on_loop else None
        self.tether = service.backend(AsyncTether if on_loop else Tether, tenant, self.run)

    def run(self, value):
        """What the loop makes of it, where there is one."""
        return value if self._runner is None or not asyncio.iscoroutine(value) else self._runner.run(value)

    def submit(self, model="counter", prompt="one two three", **options):
        return Handle(self, self.run(self.tether.submit(model, prompt, **options)))

    def submit_many(self, requests):
        return [Handle(self, handle) for handle in self.run(self.tether.submit_many(requests))]

    def job(self, job_id):
        return Handle(self, self.tether.job(job_id))

    def jobs(self, **filters):
        """All of them, also where they come one by one on a loop."""
        found = self.tether.jobs(**filters)
        if not hasattr(found, "__aiter__"):
            return list(found)

        async def gather():
            return [status async for status in found]

        return self._runner.run(gather())

    def models(self):
        return self.run(self.tether.models())

    def explain(self, model="counter", prompt="one two three", **options):
        return self.run(self.tether.explain(model, prompt, **options))

    @property
    def is_on_loop(self):
        return self._runner is not None

    @property
    def is_fake(self):
        return isinstance(self.service, Fake)

    def all_of(self, found):
        """What a method yields, also where it does so on a loop."""
        if not hasattr(found, "__aiter__"):
            return list(found)

        async def gather():
            return [each async for each in found]

        return self.run(gather())

    def cancel_where(self, **which):
        return self.all_of(self.tether.many_jobs.cancel(**which))

    def reprioritise_where(self, priority, **which):
        return self.all_of(self.tether.many_jobs.reprioritise(priority, **which))

    @property
    def letters(self):
        return Letters(self, self.tether.dead_letters)

    def close(self):
        self.run(self.tether.close())
        if self._runner is not None:
            self._runner.close()


class Letters:
    """Dead letters of either kind of client."""

    def __init__(self, client, letters):
        self._client = client
        self._letters = letters

    def list(self, **which):
        return self._client.all_of(self._letters.list(**which))

    def retry_where(self, **which):
        return self._client.all_of(self._letters.retry_where(**which))

    def show(self, job_id):
        return self._client.run(self._letters.show(job_id))

    def retry(self, retry_token, **options):
        return self._client.run(self._letters.retry(retry_token, **options))

    def purge(self, **which):
        return self._client.run(self._letters.purge(**which))

    def summary(self):
        return self._client.run(self._letters.summary())


class Handle:
    """A handle of either kind."""

    def __init__(self, client, handle):
        self._client = client
        self._handle = handle
        self.job_id = handle.job_id
        self.is_new = handle.is_new

    def iterate(self, events):
        """A generator of either kind, as a generator."""
        if not hasattr(events, "__aiter__"):
            yield from events
            return
        with contextlib.suppress(StopAsyncIteration):
            try:
                while True:
                    yield self._client.run(anext(events))
            finally:
                self._client.run(events.aclose())

    def events(self, *, offset=0):
        self._client.service.work()
        return list(self.iterate(self._handle.events(offset=offset, timeout=PATIENCE_SECONDS)))

    def stream(self):
        self._client.service.work()
        return list(self.iterate(self._handle.stream(timeout=PATIENCE_SECONDS)))

    def result(self, timeout=PATIENCE_SECONDS):
        self._client.service.work()
        return self._client.run(self._handle.result(timeout))

    def open_events(self, *, offset=0):
        """Events one by one, while the job runs."""
        return self.iterate(self._handle.events(offset=offset, timeout=PATIENCE_SECONDS))

    def status(self):
        return self._client.run(self._handle.status())

    def placements(self):
        return self._client.run(self._handle.placements())

    def history(self):
        return self._client.run(self._handle.history())

    def cancel(self):
        return self._client.run(self._handle.cancel())

    def reprioritise(self, priority):
        return self._client.run(self._handle.reprioritise(priority))

    def wait_until_running(self):
        self._client.service.begin(self.job_id)
        eventually(self._has_tokens, PATIENCE_SECONDS, f"{self.job_id} has made tokens")

    def _has_tokens(self):
        # It may have ended by now, on a busy machine.
        return self.status().offset >= 3


@contextlib.contextmanager
def opened_clients(request):
    """Open clients on one service, by tenant.

    Args:
      request: Of a fixture whose parameter names the service: `fake`, `http`, or another fixture, and maybe
        behind it `on a loop`.
    """
    kind, _, on_loop = request.param.partition(" ")
    service = Fake() if kind == "fake" else request.getfixturevalue({"http": "service"}.get(kind, kind))
    try:
        yield lambda tenant="default": service.client(on_loop=bool(on_loop), tenant=tenant)
    finally:
        if kind == "fake":
            service.close()
