"""Real workers of several regions and classes, and clients that choose among their pools."""

import contextlib
import threading
from dataclasses import replace

from dramatiq import Worker

from support.cluster import Cluster
from support.waiting import PATIENCE_SECONDS, eventually
from tether import Tether
from tether_workers.engines.null.engine import NullEngine
from tether_workers.pool_worker import make_worker
from tether_workers.runtime import WorkerRuntime

MODEL = """
[[models]]
name = "m"
version = "{version}"
engine = "null"
[models.options]
tokens_per_second = {rate}
"""

SLOW = 20


class PlacedFleet:
    """A Redis and a database, workers of the null engine, and what they say of their way and their memory.

    Attributes:
      hops, vram: What workers of a region announce.
    """

    def __init__(self, monkeypatch, *, versions=("1",), rate=SLOW, config="", **options):
        models = "".join(MODEL.format(version=version, rate=rate) for version in versions)
        self._stack = contextlib.ExitStack()
        self.hops, self.vram = {}, {}
        self._let_load = threading.Event()
        self._stack.callback(self._let_load.set)
        config = f"[worker]\ndrain_timeout = 100\n{config}{models}"
        self.cluster = self._stack.enter_context(Cluster(models={"other": (0, 1)}, config=config, **options))
        # Workers draw from a Redis that was empty only once one has run.
        self.cluster.orchestrator()
        status = WorkerRuntime._status

        def announced(runtime):
            region = runtime._settings.worker.region
            return replace(
                status(runtime), latency_hops=self.hops.get(region, 0), vram_total=self.vram.get(region, 0)
            )

        monkeypatch.setattr(WorkerRuntime, "_status", announced)

    def _settings(self, region, **changes):
        settings = self.cluster.settings
        worker = settings.worker.model_copy(update={"region": region})
        return settings.model_copy(update={"worker": worker, **changes})

    def start(
        self,
        region="local",
        gpu_class="cpu",
        *,
        version="1",
        is_warm=True,
        threads=1,
        fails=lambda: False,
        engine=NullEngine.from_settings,
    ):
        """A worker that serves one version; one that is not warm never ends to load it.

        Args:
          fails: Whether it fails to load it now.
          engine: Makes its engine.
        """
        settings = self._settings(region)
        models = [each for each in settings.models if (each.name, each.version) == ("m", version)]
        worker = settings.worker.model_copy(update={"gpu_class": gpu_class})
        settings = settings.model_copy(update={"models": tuple(models), "worker": worker})

        def make(model, adapter):
            if fails():
                raise RuntimeError("no room for it")
            if not is_warm:
                self._let_load.wait()
            return engine(model, adapter)

        broker = make_worker(settings, factories={"null": make})
        self._stack.callback(broker.close)
        running = Worker(broker, worker_threads=threads, worker_timeout=100)
        running.start()
        self._stack.callback(running.stop, timeout=20_000)
        self._stack.callback(self._let_load.set)

    def client(self, pools, *, loaded=None, home="nowhere", **scheduling):
        """A client in this process that sees so many pools, of which so many are warm, with these settings.

        Args:
          home: Its own region.
        """
        settings = self.cluster.settings
        changed = settings.scheduling.model_copy(update=scheduling)
        client = self._stack.enter_context(Tether.direct(self._settings(home, scheduling=changed)))
        fleet = client._backend._plane.fleet

        expected = [pools, pools if loaded is None else loaded]

        def sees_all():
            views = [view for view in fleet.pools() if view.model == "m" and view.workers]
            return [len(views), sum(view.warm for view in views)] == expected

        eventually(sees_all, PATIENCE_SECONDS, "all pools are seen")
        return client

    def close(self):
        self._stack.close()


def place_of(job):
    """The GPU class, the region and the end of the pool of a job."""
    _, gpu_class, region, model = job.status().pool.split(".")
    return gpu_class, region, model
