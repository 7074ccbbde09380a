"""The consumer: takes messages for one queue, and blocks on the queue's bell while there are none."""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Self

from dramatiq import Message
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.common import current_millis
from dramatiq.errors import ConnectionClosed, DecodeError
from dramatiq.logging import get_logger

from tether.broker.connections import OUTAGE_ERRORS, longest_block

if TYPE_CHECKING:
    from tether.broker.tether_broker import TetherBroker


class TetherConsumer(Consumer):
    """Takes messages of one queue for one worker.

    It owns no thread. It blocks in :meth:`__next__` for at most ``timeout`` milliseconds, on Redis while
    the queue is empty, or until a message is answered for while it holds ``prefetch`` of them.
    """

    def __init__(self, broker: TetherBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        self.logger = get_logger(__name__, type(self))
        self.broker = broker
        self.queue_name = queue_name
        self.prefetch = prefetch
        self.timeout = timeout
        self.message_cache: deque[tuple[str, bytes]] = deque()
        self.queued_message_ids: set[str] = set()
        self._room = threading.Condition()
        self._etas: list[tuple[float, str]] = []
        self._known_empty = False
        self._longest_block = longest_block(broker.blocking_client)

    @property
    def outstanding_message_count(self) -> int:
        return len(self.queued_message_ids) + len(self.message_cache)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> MessageProxy | None:
        try:
            deadline = time.monotonic() + self._patience()
            while True:
                if self.message_cache:
                    message = self._hand_out()
                    if message is not None:
                        return message
                    continue
                left = deadline - time.monotonic()
                room = self.prefetch - self.outstanding_message_count
                if room <= 0:
                    self._wait_for_room(left)
                    if self.outstanding_message_count >= self.prefetch:
                        return None
                elif not self._known_empty:
                    self._take(room)
                elif left <= 0 or not self._wait_for_bell(left):
                    return None
                else:
                    self._known_empty = False
        except OUTAGE_ERRORS as error:
            self._known_empty = False
            raise ConnectionClosed(error) from None

    def _patience(self) -> float:
        """Seconds until the worker wants to look around: its idle timeout, or the next delayed message."""
        while self._etas and self._etas[0][1] not in self.queued_message_ids:
            heapq.heappop(self._etas)
        patience = self.timeout / 1000
        if self._etas:
            patience = min(patience, (self._etas[0][0] - current_millis()) / 1000)
        return max(patience, 0.001)

    def _take(self, room: int) -> None:
        taken = self.broker.take(self.queue_name, room)
        self.message_cache.extend(taken)
        self._known_empty = not taken

    def _wait_for_bell(self, seconds: float) -> bool:
        bell = self.broker.keys.bell(self.queue_name)
        return (
            self.broker.blocking_client.blpop([bell], timeout=min(seconds, self._longest_block)) is not None
        )

    def _wait_for_room(self, seconds: float) -> None:
        with self._room:
            self._room.wait_for(lambda: self.outstanding_message_count < self.prefetch, max(seconds, 0))

    def _hand_out(self) -> MessageProxy | None:
        redis_id, data = self.message_cache.popleft()
        try:
            message = Message.decode(data)
        except DecodeError:
            # Left in the ack set it would come back for ever; as a dead letter it can be looked at.
            self.logger.error(
                "Message %s on queue %r is not readable. Moving it to the dead letters.",
                redis_id,
                self.queue_name,
            )
            self.broker.do_nack(self.queue_name, redis_id)
            self.broker.holdings.drop([redis_id])
            return None
        # Scripts know the message by this id, whatever another program wrote into its options.
        message.options["redis_message_id"] = redis_id
        self.queued_message_ids.add(message.message_id)
        eta = message.options.get("eta")
        if isinstance(eta, int | float):
            heapq.heappush(self._etas, (eta, message.message_id))
        return MessageProxy(message)

    def ack(self, message: MessageProxy) -> None:
        """End a held message; what takes its place is placed in the same step."""
        redis_id = message.options["redis_message_id"]
        holding = self.broker.holdings.get(redis_id)
        try:
            if holding is not None and holding.successors:
                self.broker.replace(self.queue_name, redis_id, holding.successors)
            else:
                self.broker.do_ack(self.queue_name, redis_id)
        except OUTAGE_ERRORS as error:
            raise ConnectionClosed(error) from None
        finally:
            self._forget(message)
        self.broker.holdings.drop([redis_id])

    def nack(self, message: MessageProxy) -> None:
        """Move a held message to the dead letters of its queue."""
        redis_id = message.options["redis_message_id"]
        holding = self.broker.holdings.get(redis_id)
        try:
            for successor in holding.successors if holding is not None else ():
                self.broker.do_enqueue(successor.queue_name, successor.redis_id, successor.data)
            self.broker.do_nack(self.queue_name, redis_id)
        except OUTAGE_ERRORS as error:
            raise ConnectionClosed(error) from None
        finally:
            self._forget(message)
        self.broker.holdings.drop([redis_id])

    def _forget(self, message: MessageProxy) -> None:
        with self._room:
            self.queued_message_ids.discard(message.message_id)
            self._room.notify_all()

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Give messages back to the head of their queue, in the order given."""
        redis_ids = [message.options["redis_message_id"] for message in messages]
        self._give_back(redis_ids)

    def close(self) -> None:
        """Give back what was taken and never handed out."""
        redis_ids = [redis_id for redis_id, _ in self.message_cache]
        self.message_cache.clear()
        # Dropped first: if Redis is away, the next consumer finds them in the ack set and not in memory.
        self.broker.holdings.drop(redis_ids)
        self._give_back(redis_ids)

    def _give_back(self, redis_ids: list[str]) -> None:
        if not redis_ids:
            return
        try:
            self.broker.do_requeue(self.queue_name, *redis_ids)
        except OUTAGE_ERRORS as error:
            raise ConnectionClosed(error) from None
        self.broker.holdings.drop(redis_ids)
