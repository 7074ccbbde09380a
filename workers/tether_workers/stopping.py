"""Dramatiq's worker with one deadline for its stop: each step gets what is left, and none the whole again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from threading import Thread

from dramatiq import Broker, MessageProxy, Worker
from dramatiq.common import iter_queue
from dramatiq.errors import BrokerConnectionError
from dramatiq.worker import WorkerThread

from tether.broker import TetherBroker
from tether.broker.queues.holdings import Holding, HoldingPhase, holding_of
from tether.processes.child import LoadState
from tether.processes.stopping import (
    CLOSING_SECONDS,
    HAND_OVER_SECONDS,
    WIND_UP_SECONDS,
    StopDeadline,
    worker_stop_seconds,
)

LOOK_SECONDS = 0.1
"""Between two looks whether actors still run."""


class StoppableThread(WorkerThread):
    """A thread of a worker that tells whether it runs a plain actor, or is about to.

    Attributes:
      taken: The delivery that it has.
      message: What it works on.
    """

    taken: Holding | None = None
    message: MessageProxy | None = None

    @property
    def runs_plain_actor(self) -> bool:
        """Whether an actor that it has taken up has not ended. Jobs of models are no deliveries."""
        taken = self.taken
        return taken is not None and taken.phase is not HoldingPhase.ENDED

    def process_message(self, message: MessageProxy) -> None:
        self.taken, self.message = holding_of(message), message
        try:
            super().process_message(message)
        finally:
            self.taken = self.message = None


class StoppableWorker(Worker):
    """A worker whose :meth:`stop` takes no longer than it was given, also where Redis does not answer.

    Attributes:
      deadline: That of its stop.
      work_seconds: For how long jobs may go on that are no plain actors.
      has_jobs: Whether there are jobs that have not ended, nor were handed over.
      loads_of_start: Whether all is loaded that is to be at the start.
    """

    def __init__(
        self, broker: Broker, *, queues: set[str] | None, worker_threads: int, deadline: StopDeadline
    ) -> None:
        super().__init__(broker, queues=queues, worker_threads=worker_threads)
        self.deadline = deadline
        self.work_seconds = 0.0
        self.has_jobs: Callable[[], bool] = lambda: False
        self.loads_of_start: Callable[[], LoadState] = lambda: LoadState.LOADED

    def stop(self, timeout: int = 600_000) -> None:
        """Stop as Dramatiq's worker does.

        Args:
          timeout: Milliseconds for which actors may go on.
        """
        self.deadline.begin(worker_stop_seconds(timeout / 1000))
        self.broker.emit_before("worker_shutdown", self)
        self._end_actors()
        # Nothing runs here any more: what is left is to say so, and to hand over what no thread had begun.
        self.deadline.shorten(WIND_UP_SECONDS + (HAND_OVER_SECONDS if self.has_jobs() else 0.0))
        self._end_consumers()
        self._requeue()
        for consumer in self.consumers.values():
            consumer.close()
        self.broker.emit_after("worker_shutdown", self)

    def _add_worker(self) -> None:
        thread = StoppableThread(
            broker=self.broker,
            consumers=self.consumers,
            work_queue=self.work_queue,
            worker_timeout=self.worker_timeout,
        )
        thread.start()
        self.workers.append(thread)

    def _end_actors(self) -> None:
        for thread in self.workers:
            thread.stop()
        whole, may_begin_seconds = self.deadline.remaining(), self.worker_timeout / 1000 + LOOK_SECONDS
        is_shortened = False
        for thread in self.workers:
            while thread.is_alive() and (left := self.deadline.remaining(but=WIND_UP_SECONDS)) > 0:
                if self.deadline.is_hurried and self._give_up_actors():
                    break
                elapsed = whole - self.deadline.remaining()
                # A thread that waits for a message may still get one until then.
                if not is_shortened and elapsed > may_begin_seconds and not self._runs_plain_actors():
                    is_shortened = True
                    # A thread may still try to acknowledge what has ended, for as long as Redis is away.
                    self.deadline.shorten(worker_stop_seconds(self.work_seconds) - elapsed)
                thread.join(min(left, LOOK_SECONDS))

    def _give_up_actors(self) -> bool:
        """Give back what plain actors run, which others begin anew. Return whether nothing else runs."""
        for thread in self.workers:
            message = thread.message if isinstance(thread, StoppableThread) else None
            taken = holding_of(message)
            if message is not None and taken is not None and taken.phase is HoldingPhase.RUNNING:
                self._give_back(message.queue_name, [message])
                # Its end here counts no longer.
                taken.lose()
        return not self.has_jobs()

    def _runs_plain_actors(self) -> bool:
        return not isinstance(self.broker, TetherBroker) or any(
            isinstance(thread, StoppableThread) and thread.runs_plain_actor for thread in self.workers
        )

    def _end_consumers(self) -> None:
        for consumer in self.consumers.values():
            consumer.stop()
        self._join(self.consumers.values())

    def _join(self, threads: Iterable[Thread]) -> None:
        for thread in threads:
            thread.join(self.deadline.remaining(but=CLOSING_SECONDS))

    def _requeue(self) -> None:
        by_queue: dict[str, list[MessageProxy]] = defaultdict(list)
        for item in iter_queue(self.work_queue):
            by_queue[item.message.queue_name].append(item.message)
        for queue_name, messages in by_queue.items():
            self._give_back(queue_name, messages)

    def _give_back(self, queue_name: str, messages: Iterable[MessageProxy]) -> None:
        try:
            self.consumers[queue_name].requeue_messages(messages)
        except BrokerConnectionError:
            self.logger.warning("Messages of queue %r could not be given back.", queue_name)
