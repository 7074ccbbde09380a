"""The consumer: takes messages for one queue, and blocks on the queue's bell while there are none."""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Self

from dramatiq.broker import Consumer, MessageProxy
from dramatiq.common import current_millis
from dramatiq.errors import ConnectionClosed
from dramatiq.logging import get_logger

from tether.broker.queues.holdings import Holding, HoldingPhase, holding_of
from tether.broker.queues.messages import decode
from tether.broker.redis.connections import OUTAGE_ERRORS, max_block_seconds
from tether.errors import InvalidMessage

if TYPE_CHECKING:
    from tether.broker.tether_broker import TetherBroker


class TetherConsumer(Consumer):
    """Takes messages of one queue for one worker.

    It owns one connection, closed by :meth:`close`, and no thread. It blocks in :meth:`__next__` for at most
    ``timeout`` milliseconds, on Redis while the queue is empty, or until a message is answered for while it
    holds as many as it may.
    """

    def __init__(self, broker: TetherBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        self.logger = get_logger(__name__, type(self))
        self.broker = broker
        self.queue_name = queue_name
        self.prefetch = prefetch
        self.timeout = timeout
        self.message_cache: deque[tuple[Holding, bytes]] = deque()
        self.queued_message_ids: set[str] = set()
        self._room = threading.Condition()
        self._etas: list[tuple[float, str]] = []
        self._has_started = False
        self._life = broker.holdings
        self._known_empty = False
        self._max_block_seconds = max_block_seconds(broker.lines.settings)
        self._line = broker.lines.borrow()
        # Taking one message for each that ends would cost a round trip each. Half of what it may hold keeps
        # a worker's threads busy. Delayed messages must not wait for others to come due.
        self._enough = prefetch if queue_name.endswith(".DQ") else prefetch // 2 + 1

    @property
    def outstanding_message_count(self) -> int:
        return len(self.queued_message_ids) + len(self.message_cache)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> MessageProxy | None:
        try:
            if not self._has_started:
                self.start()
            if self.broker.holdings is not self._life:
                raise ConnectionClosed(RuntimeError("other workers took over this worker's messages"))
            deadline = time.monotonic() + self._patience()
            while True:
                if self.message_cache:
                    message = self._hand_out()
                    if message is not None:
                        return message
                    continue
                left = deadline - time.monotonic()
                if self._is_full():
                    self._wait_for_room(left)
                    if self._is_full():
                        return None
                    continue
                room = self.prefetch - self.outstanding_message_count
                if not self._known_empty:
                    self._take(room)
                elif left <= 0 or not self._wait_and_take(room, left):
                    return None
        except OUTAGE_ERRORS as error:
            self._known_empty = False
            self.broker.lines.close_idle()
            raise ConnectionClosed(error) from None

    def start(self) -> None:
        """Give back what is stranded, and begin to beat: what the first :meth:`__next__` does first."""
        self.broker.start_consuming(self.queue_name)
        self.broker.count_consumer(1)
        self._life = self.broker.holdings
        self._has_started = True

    def _patience(self) -> float:
        """Seconds until the worker wants to look around: its idle timeout, or the next delayed message."""
        while self._etas and self._etas[0][1] not in self.queued_message_ids:
            heapq.heappop(self._etas)
        patience = self.timeout / 1000
        if self._etas:
            patience = min(patience, (self._etas[0][0] - current_millis()) / 1000)
        return max(patience, 0.001)

    def _keep(self, taken: list[tuple[Holding, bytes]], room: int) -> bool:
        self.message_cache.extend(taken)
        # The script has silenced the bell if it found the queue's end: what comes next will ring.
        self._known_empty = len(taken) < room
        return bool(taken)

    def _take(self, room: int) -> None:
        self._keep(self.broker.intake.take(self.queue_name, room), room)

    def _wait_and_take(self, room: int, seconds: float) -> bool:
        # Redis may round a wait of less than a millisecond to none, which means for ever.
        seconds = max(min(seconds, self._max_block_seconds), 0.002)
        return self._keep(self.broker.intake.wait_and_take(self._line, self.queue_name, room, seconds), room)

    def _is_full(self) -> bool:
        # While more waits in the queue, half is enough; what comes one by one may fill all of it.
        return self.outstanding_message_count >= (self.prefetch if self._known_empty else self._enough)

    def _wait_for_room(self, seconds: float) -> None:
        with self._room:
            self._room.wait_for(lambda: not self._is_full(), max(seconds, 0))

    def _hand_out(self) -> MessageProxy | None:
        holding, data = self.message_cache.popleft()
        if holding.phase is HoldingPhase.LOST:
            return None
        try:
            message = decode(data, holding)
        except InvalidMessage as error:
            # Left in the ack set it would come back for ever; as a dead letter it can be looked at.
            self.logger.error(
                "Moving message %s of queue %r to the dead-letter queue: %s",
                holding.redis_id,
                self.queue_name,
                error,
            )
            try:
                self.broker.nack(holding)
            except BaseException:
                # Kept where close finds it: it comes again once Redis is back.
                self.message_cache.appendleft((holding, data))
                raise
            return None
        self.queued_message_ids.add(message.message_id)
        eta = message.options.get("eta")
        if isinstance(eta, int | float):
            heapq.heappush(self._etas, (eta, message.message_id))
        return MessageProxy(message)

    def ack(self, message: MessageProxy) -> None:
        """End a held message; what follows it is placed in the same step."""
        self._answer(self.broker.ack, message)

    def nack(self, message: MessageProxy) -> None:
        """Move a held message to the dead letters; what follows it is placed in the same step."""
        self._answer(self.broker.nack, message)

    def _answer(self, answer: Callable[[Holding], None], message: MessageProxy) -> None:
        holding = holding_of(message) or Holding(message.options["redis_message_id"], self.queue_name)
        try:
            answer(holding)
        except OUTAGE_ERRORS as error:
            raise ConnectionClosed(error) from None
        finally:
            self._forget(message)

    def _forget(self, message: MessageProxy) -> None:
        with self._room:
            self.queued_message_ids.discard(message.message_id)
            self._room.notify_all()

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Give messages back to the head of their queue, in the order given."""
        self._give_back([holding for message in messages if (holding := holding_of(message)) is not None])

    def close(self) -> None:
        """Give back what was taken and never handed out."""
        holdings = [holding for holding, _ in self.message_cache]
        self.message_cache.clear()
        self._line.close()
        if self._has_started:
            self._has_started = False
            self.broker.count_consumer(-1)
        # Dropped first: if Redis is away, the next consumer finds them in the ack set and not in memory.
        self.broker.holdings.drop(holdings)
        self._give_back(holdings)

    def _give_back(self, holdings: list[Holding]) -> None:
        redis_ids = [holding.redis_id for holding in holdings if holding.phase is not HoldingPhase.LOST]
        if not redis_ids:
            return
        try:
            self.broker.do_requeue(self.queue_name, *redis_ids)
        except OUTAGE_ERRORS as error:
            raise ConnectionClosed(error) from None
        self.broker.holdings.drop(holdings)
