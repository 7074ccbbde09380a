"""The middleware that follows each held message through its attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware, Retries, SkipMessage

from tether.broker.queues.holdings import Holding, HoldingPhase, holding_of
from tether.broker.queues.worker_lost import WorkerLostInAttempt

if TYPE_CHECKING:
    from tether.broker.tether_broker import TetherBroker

CRASHES_WITHOUT_RETRIES = 3
"""How many deaths of its worker a message survives where no Retries middleware sets a limit."""


class Deliveries(Middleware):
    """Marks attempts as begun and ended, and counts a worker's death as a failed attempt.

    A message that comes back from a dead worker runs again at once, with one retry less. When none is
    left, :class:`~tether.errors.WorkerLost` is raised in its place, so that ``retry_when``,
    ``on_retry_exhausted`` and the dead letters see it like any failure.

    What other middleware enqueues after an attempt (a retry, the next message of a pipeline) is placed in
    the step that answers for the attempt's message.
    """

    def __init__(self, broker: TetherBroker) -> None:
        self._broker = broker

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        self._broker.ending = None
        holding = holding_of(message)
        if holding is None or message.failed:
            return
        self._broker.make_sure_of_heartbeat()
        if holding.crashes and holding.phase is not HoldingPhase.LOST:
            self._count_crashes(message, holding)
        if not holding.begin():
            # Results would store that a skipped message came to nothing; others are about to run it.
            message.options["store_results"] = False
            raise SkipMessage("Another worker took over this message while this one was silent.")
        self._broker.mark_begun(holding)

    def _count_crashes(self, message: MessageProxy, holding: Holding) -> None:
        retries_used = int(message.options.get("retries", 0)) + holding.crashes
        lost = WorkerLostInAttempt(
            f"message {message.message_id} of actor {message.actor_name!r} has no attempts left: the worker "
            f"process that ran it died {holding.crashes} time(s). Look for what kills it (memory, native "
            "code), then send the dead letter again"
        )
        if self._is_exhausted(message, retries_used, lost):
            # Retries counts the attempt that fails now, which is the last of these.
            message.options["retries"] = retries_used - 1
            if not any(isinstance(middleware, Retries) for middleware in self._broker.middleware):
                message.fail()
            raise lost
        message.options["retries"] = retries_used

    def _is_exhausted(self, message: MessageProxy, retries_used: int, lost: WorkerLostInAttempt) -> bool:
        retries = next((m for m in self._broker.middleware if isinstance(m, Retries)), None)
        if retries is None:
            return retries_used >= CRASHES_WITHOUT_RETRIES
        actor = self._broker.actors.get(message.actor_name)
        options: dict[str, Any] = actor.options if actor is not None else {}
        retry_when = options.get("retry_when", retries.retry_when)
        if retry_when is not None:
            return not retry_when(retries_used - 1, lost)
        limit = message.options.get("max_retries", options.get("max_retries", retries.max_retries))
        return limit is not None and retries_used > limit

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        self._end(message)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        self._end(message)

    def _end(self, message: MessageProxy) -> None:
        holding = holding_of(message)
        if holding is None:
            return
        holding.end()
        self._broker.ending = holding

    def after_worker_shutdown(self, broker: Broker, worker: Any) -> None:
        self._broker.stop_heart_if_unused()
