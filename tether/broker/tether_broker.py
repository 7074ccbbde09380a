"""TetherBroker: Dramatiq's Redis broker, with immediate wake-ups and without losses."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self, runtime_checkable
from uuid import uuid4

import redis
from dramatiq import Broker, Consumer, Message
from dramatiq.common import current_millis, dq_name
from dramatiq.middleware import Middleware, default_middleware
from dramatiq.results import ResultBackend, Results

from tether.broker.keys import INFER, Keys, check_queue_name
from tether.broker.queues.consumer import TetherConsumer
from tether.broker.queues.deliveries import Deliveries
from tether.broker.queues.heart import BrokerHeartbeat, SecondLook, look_after_queues
from tether.broker.queues.holdings import Holding, HoldingPhase, Holdings, Successor, holding_of
from tether.broker.queues.intake import Intake
from tether.broker.queues.messages import check_outgoing, encode
from tether.broker.queues.scripted_broker import ScriptedBroker
from tether.broker.redis.connections import OUTAGE_ERRORS, RedisUnavailable, address_of
from tether.config.settings import BrokerSettings, Settings
from tether.errors import ConfigError
from tether.telemetry import metrics
from tether.telemetry.traces import TraceContext

_DEFAULTS = BrokerSettings()


@runtime_checkable
class Scheduler(Protocol):
    """Makes jobs of messages in the queue ``infer``. A middleware that implements this protocol is used."""

    def enqueue_jobs(
        self, broker: Broker, messages: Sequence[Message[Any]], delay: int | None
    ) -> list[Message[Any] | Exception]:
        """Make jobs of messages, to start in ``delay`` milliseconds if given. Accepted jobs are durable.

        The hooks of the broker's middleware run before and after, once for each job.

        Returns:
          For each message the accepted message, with its job's id; or the error why it was rejected.
        """


class TetherBroker(ScriptedBroker):
    """A drop-in replacement for Dramatiq's ``RedisBroker``, with the same layout and commands in Redis.

    Differences: consumers block on Redis instead of polling; a retry or promotion atomically acknowledges the
    old message and enqueues the new one; a dead worker's messages are redelivered within seconds, and a crash
    counts as a failed attempt of running messages; dead letters are kept until they are removed.

    Messages of the queue ``infer`` are jobs for pools of GPUs: their scheduler and consumers are injected.

    Attributes:
      scheduler: Makes jobs of messages enqueued on ``infer``.
      infer_consumers: Creates consumers of ``infer``, from prefetch and timeout (milliseconds).
      infer_results: Makes the backend of results of ``infer``, around that of other actors if there is one.

    It owns the thread ``tether-heart`` (from the first consumer until :meth:`close` or the worker's
    shutdown) and its Redis connections.
    """

    def __init__(
        self,
        *,
        url: str | None = None,
        middleware: list[Middleware] | None = None,
        namespace: str = "tether",
        hash_tag: bool = True,
        maintenance_chance: int = 0,
        heartbeat_interval: int = _DEFAULTS.heartbeat_interval,
        heartbeat_timeout: int = _DEFAULTS.heartbeat_timeout,
        stall_timeout: int = _DEFAULTS.stall_timeout,
        dead_message_ttl: int | None = _DEFAULTS.dead_message_ttl,
        client: redis.Redis | None = None,
        **parameters: Any,
    ) -> None:
        """
        Args:
          url: Redis's URL; takes precedence over ``parameters``.
          middleware: All middleware, instead of Dramatiq's defaults. ``TraceContext`` is prepended if
            missing.
          namespace: Prefix of all keys.
          hash_tag: Whether the namespace is in braces (one slot on Redis Cluster). False gives exactly the
            keys of ``RedisBroker(namespace=...)``, for migrating programs with messages in their queues.
          maintenance_chance: Out of a million commands, how many also check for dead workers; needed only if
            no worker runs, since every worker's heartbeat checks.
          heartbeat_interval: Milliseconds between heartbeats.
          heartbeat_timeout: Milliseconds without a heartbeat after which a disconnected worker is dead.
          stall_timeout: Milliseconds without a heartbeat after which it is dead although it is connected.
          dead_message_ttl: Milliseconds for which dead letters are kept; None: until removed.
          client: A client to use instead of a new one.
          parameters: Passed to :class:`redis.Redis`.

        Raises:
          InvalidName: The namespace is invalid.
          ConfigError: The client decodes responses.
        """
        self.holdings = Holdings("")
        self._deliveries: Deliveries | None = None
        self.infer_consumers: Callable[[int, int], Consumer] | None = None
        self.scheduler: Scheduler | None = None
        self.infer_results: Callable[[ResultBackend | None], ResultBackend] | None = None
        if middleware is None:
            middleware = [kind() for kind in default_middleware]
        if not any(isinstance(given, TraceContext) for given in middleware):
            middleware = [TraceContext(), *middleware]
        super().__init__(
            Keys(namespace, hash_tag),
            url=url,
            middleware=middleware,
            maintenance_chance=maintenance_chance,
            heartbeat_timeout=heartbeat_timeout,
            dead_message_ttl=dead_message_ttl,
            client=client,
            **parameters,
        )
        self.heartbeat_interval = heartbeat_interval
        self.stall_timeout = stall_timeout
        self._born_in = os.getpid()
        self._lock = threading.Lock()
        self.intake = Intake(self)
        self._consumers = 0
        self._second_look = SecondLook()
        self._on_this_thread = threading.local()
        self._heart: BrokerHeartbeat | None = None
        # Last in the list: it sees the start of an attempt after all others, and the end before them.
        self._deliveries = Deliveries(self)
        super().add_middleware(self._deliveries)

    @classmethod
    def from_settings(cls, settings: Settings, *, middleware: list[Middleware] | None = None) -> Self:
        """Return a broker configured by the sections ``redis`` and ``broker`` of the settings."""
        address = settings.redis
        return cls(
            url=address.url,
            namespace=address.namespace,
            hash_tag=address.hash_tag,
            **dict(settings.broker),
            middleware=middleware,
        )

    @property
    def broker_id(self) -> str:
        """The name under which this broker holds messages. A new one is a new life, which holds nothing."""
        return self.holdings.broker_id

    @broker_id.setter
    def broker_id(self, broker_id: str) -> None:
        self.holdings = Holdings(broker_id)

    def add_middleware(
        self,
        middleware: Middleware,
        *,
        before: type[Middleware] | None = None,
        after: type[Middleware] | None = None,
    ) -> None:
        if before is None and after is None and self._deliveries is not None:
            before = Deliveries
        if isinstance(middleware, Scheduler):
            self.scheduler = middleware
        super().add_middleware(middleware, before=before, after=after)

    def get_results_backend(self) -> ResultBackend:
        """Return where results are: those of ``infer`` and those of the program's ``Results`` middleware.

        Raises:
          RuntimeError: There are neither.
        """
        if self.infer_results is None:
            return super().get_results_backend()
        backends = (each.backend for each in self.middleware if isinstance(each, Results))
        return self.infer_results(next(backends, None))

    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue.

        Raises:
          InvalidName: Users' queues cannot have that name.
        """
        if queue_name in self.queues:
            return
        if queue_name == INFER and self.scheduler and not self.infer_consumers:
            # What is sent there becomes a job: this program's workers have nothing to consume.
            return
        if queue_name == INFER and self.infer_consumers:
            # A delayed job waits in the database: there is no delay queue.
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)
            return
        check_queue_name(queue_name)
        super().declare_queue(queue_name)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        """Return a consumer of ``queue_name`` for one worker. Nothing is sent before its first message."""
        if queue_name == INFER:
            return self._consume_infer(prefetch, timeout)
        self._be_born_again_after_fork()
        # A worker forgets its delayed messages when it loses its connection.
        self.holdings.drop_delayed(queue_name)
        return TetherConsumer(self, queue_name, prefetch, timeout)

    def _consume_infer(self, prefetch: int, timeout: int) -> Consumer:
        if self.infer_consumers is None:
            raise ConfigError(
                f"this program's workers cannot run jobs of the queue {INFER!r}: start a worker with "
                "`tether worker`, and leave that queue out here (-Q with the names of the others)"
            )
        return self.infer_consumers(prefetch, timeout)

    def start_consuming(self, queue_name: str) -> None:
        """Requeue stranded messages, and start the heartbeat.

        Messages in this broker's ack set that this process no longer has in memory are requeued: after a lost
        connection these are the ones that were being delivered.

        Raises:
          OUTAGE_ERRORS: Redis is unavailable.
        """
        self.intake.reclaim(queue_name)
        self._start_heart()

    def count_consumer(self, change: int) -> None:
        """Record that a consumer has started (1) or was closed (-1)."""
        with self._lock:
            self._consumers += change

    def stop_heart_if_unused(self) -> None:
        """End the heartbeat unless consumers of other workers in this process need it."""
        if self._consumers == 0:
            self.stop_heart()

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Enqueue a message, delayed by ``delay`` milliseconds if given.

        A message that replaces a held one whose attempt is not running (a retry, a promotion), and those that
        middleware enqueues after an attempt, are sent atomically with the acknowledgement of the held one.

        Raises:
          InvalidName: Users' queues cannot have that name.
          InvalidMessage: The message cannot be encoded, or the delay is not a number of milliseconds.
          BrokerUnavailable: Redis is unavailable, or rejects writes.
        """
        if message.queue_name == INFER and self.scheduler is not None:
            (answer,) = self.scheduler.enqueue_jobs(self, [message], delay)
            if isinstance(answer, Exception):
                raise answer
            return answer
        canonical = check_outgoing(message, delay)
        held = holding_of(message) or self.ending
        queue_name = message.queue_name
        options: dict[str, Any] = {"redis_message_id": str(uuid4())}
        if delay is not None:
            queue_name = dq_name(queue_name)
            options["eta"] = current_millis() + delay
        message = message.copy(queue_name=queue_name, options=options)

        self.logger.debug("Enqueueing message %r on queue %r.", message.message_id, queue_name)
        self.emit_before("enqueue", message, delay)
        redis_id, data = options["redis_message_id"], encode(message)
        if held is None or not held.follow(Successor(queue_name, redis_id, data)):
            try:
                self.do_enqueue(queue_name, redis_id, data)
            except OUTAGE_ERRORS as error:
                remedy = "check that it is running and accepts writes"
                if isinstance(error, redis.AuthenticationError):
                    remedy = "check the user and the password in its address"
                raise RedisUnavailable(
                    f"no confirmation from Redis at {address_of(self.client)} for a message to queue "
                    f"{canonical!r} ({error}): {remedy}, then send the message again"
                ) from error
        metrics.MESSAGES_ENQUEUED.labels(queue=canonical).inc()
        self.emit_after("enqueue", message, delay)
        return message

    def enqueue_many(
        self, messages: Sequence[Message[Any]], *, delay: int | None = None
    ) -> list[Message[Any] | Exception]:
        """Enqueue messages independently: a rejected one does not affect the others. Jobs for ``infer`` share
        commits.

        Returns:
          For each message the enqueued message, or the error why it was not; see :meth:`enqueue`.

        Raises:
          StoreUnavailable: No job was accepted; if it is a ``CommitUnknown``, it is unknown whether any was.
        """
        for_scheduler = [message for message in messages if self.scheduler and message.queue_name == INFER]
        jobs = iter(self.scheduler.enqueue_jobs(self, for_scheduler, delay) if self.scheduler else ())
        answers: list[Message[Any] | Exception] = []
        for message in messages:
            if self.scheduler and message.queue_name == INFER:
                answers.append(next(jobs))
                continue
            try:
                answers.append(self.enqueue(message, delay=delay))
            except Exception as error:
                answers.append(error)
        return answers

    @property
    def ending(self) -> Holding | None:
        """The message whose attempt has ended on this thread, until it is acknowledged."""
        return getattr(self._on_this_thread, "ending", None)

    @ending.setter
    def ending(self, holding: Holding | None) -> None:
        self._on_this_thread.ending = holding

    def ack(self, holding: Holding) -> None:
        """Acknowledge a held message, and enqueue its follow-up messages atomically."""
        self._answer("ack", self.do_ack, holding)

    def nack(self, holding: Holding) -> None:
        """Move a held message to the dead letters, and enqueue its follow-up messages atomically."""
        self._answer("nack", self.do_nack, holding)

    def _answer(self, command: str, end: Callable[..., int], holding: Holding) -> None:
        self.ending = None
        successors = holding.answer()
        if holding.phase is HoldingPhase.LOST:
            metrics.FENCED_WRITES.labels(command=command).inc()
            return
        followers = [part for s in successors for part in (s.queue_name, s.redis_id, s.data)]
        # Under the name that holds it, also if this process is given up in this very moment.
        self._thread_state.answers_as = holding.broker_id
        try:
            end(holding.queue_name, holding.redis_id, *followers)
        finally:
            self._thread_state.answers_as = None
        self.holdings.drop([holding])

    def close(self) -> None:
        """Stop the heart and close the connections that the broker opened for itself."""
        self.stop_heart()
        super().close()

    # The life of this broker as others see it.

    def die(self) -> int:
        """Give up what others took over, continue under a new name, and return how many messages that was.

        Messages that a thread takes under the old name in this very moment are lost to others too: nobody
        sends heartbeats for that name any more.
        """
        former, self.broker_id = self.holdings, str(uuid4())
        return former.lose_all()

    def make_sure_of_heartbeat(self) -> None:
        """Check whether others declared this process dead, if its last heartbeat is old enough for that."""
        heart = self._heart
        if heart is not None:
            heart.make_sure()

    def mark_begun(self, holding: Holding) -> None:
        """Mark in Redis that an actor is about to get the message."""
        # Lost to an outage it makes a death go uncounted, and nothing worse.
        with contextlib.suppress(*OUTAGE_ERRORS):
            begun = self.keys.begun(self.broker_id, holding.queue_name)
            self.lines.post("SADD", begun, holding.redis_id)

    def maintain(self) -> None:
        patience = self.heartbeat_timeout / 1000
        look_after_queues(self, self.client, "", lambda who: self._second_look.confirms(who, patience))

    def _start_heart(self) -> None:
        with self._lock:
            if self._heart is None:
                heart = BrokerHeartbeat(self)
                heart.start()
                self._heart = heart

    def stop_heart(self) -> None:
        """End the heartbeat; the next consumer starts it again."""
        with self._lock:
            heart, self._heart = self._heart, None
        if heart is not None:
            heart.stop()

    def _be_born_again_after_fork(self) -> None:
        if os.getpid() == self._born_in:
            return
        # Two processes with one id would take each other's messages for stranded ones.
        self._born_in = os.getpid()
        self.broker_id = str(uuid4())
        self._lock = threading.Lock()
        self.intake = Intake(self)
        self._consumers = 0
        self._heart = None
        self.open_connections()
