"""PoolWorker: makes a Dramatiq worker an inference worker."""

from __future__ import annotations

from collections.abc import Mapping

from dramatiq import Actor, Broker, Consumer, Worker
from dramatiq.middleware import Middleware, MiddlewareError

from tether.broker import TetherBroker
from tether.broker.keys import INFER
from tether.config.settings import Settings
from tether.errors import ConfigError, TetherError
from tether.ids import DrawId
from tether.processes.stopping import StopDeadline
from tether_workers.base import BaseWorker
from tether_workers.loading import FACTORIES, EngineFactory
from tether_workers.runtime import WorkerRuntime
from tether_workers.served_models import served_models
from tether_workers.stopping import StoppableWorker

FOREVER = float("inf")


class CannotServe(ConfigError, MiddlewareError):
    """A worker process cannot serve: a ``MiddlewareError``, so that Dramatiq does not start it anyway."""


class PoolWorker(Middleware):
    """Starts and stops a process's :class:`~tether_workers.runtime.WorkerRuntime` with Dramatiq's worker."""

    def __init__(
        self, settings: Settings, base: BaseWorker, factories: Mapping[str, EngineFactory] = FACTORIES
    ) -> None:
        self._settings = settings
        self._base = base
        self._factories = factories
        self._runtime: WorkerRuntime | None = None

    @property
    def runtime(self) -> WorkerRuntime:
        """What runs in this process.

        Raises:
          ConfigError: No worker was started here.
        """
        if self._runtime is None:
            raise ConfigError(
                f"no worker of the queue {INFER!r} is running here: start one with `tether worker`"
            )
        return self._runtime

    def consumer(self, prefetch: int, timeout: int) -> Consumer:
        """A consumer of ``infer``. Slots say how many jobs are drawn, whatever ``prefetch`` is."""
        return self.runtime.consumer(timeout)

    def run(self, job_id: str, draw_id: str) -> None:
        """The actor ``infer``: run a drawn job to its end."""
        self.runtime.inference.run(DrawId(draw_id))

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        if worker.consumer_whitelist and INFER not in worker.consumer_whitelist:
            return
        try:
            served = served_models(self._settings, self._factories)
            runtime = WorkerRuntime(
                self._settings,
                served,
                self._factories,
                self._base,
                slots=worker.worker_threads,
                deadline=worker.deadline if isinstance(worker, StoppableWorker) else StopDeadline(),
            )
        except TetherError as error:
            raise CannotServe(str(error)) from error
        self._runtime = runtime
        if isinstance(worker, StoppableWorker):
            worker.loads_of_start = runtime.loads_of_start
        runtime.start()

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        if self._runtime is None:
            return
        if isinstance(worker, StoppableWorker):
            worker.work_seconds = self._runtime.drain_seconds
            worker.has_jobs = self._runtime.has_jobs
        self._runtime.drain()

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        runtime, self._runtime = self._runtime, None
        if runtime is not None:
            runtime.stop()


def make_worker(
    settings: Settings,
    *,
    base: BaseWorker | None = None,
    factories: Mapping[str, EngineFactory] = FACTORIES,
) -> TetherBroker:
    """A broker whose Dramatiq workers serve the configured models. Nothing is sent before a worker starts.

    Args:
      settings: All of it.
      base: The hooks of a team's own.
      factories: Engines by the names that ``[[models]]`` tables use.
    """
    broker = TetherBroker.from_settings(settings)
    worker = PoolWorker(settings, base or BaseWorker(), factories)
    broker.add_middleware(worker)
    broker.infer_consumers = worker.consumer
    # The attempt ends itself, by its own limits: nothing of Dramatiq's may end it or repeat it.
    Actor(
        worker.run,
        broker=broker,
        actor_name=INFER,
        queue_name=INFER,
        priority=0,
        options={"max_retries": 0, "time_limit": FOREVER, "max_age": None},
    )
    return broker
