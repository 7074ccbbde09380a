"""Taking messages from queues, at once or when their bell rings, and giving back what got stranded."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tether.broker.queues.holdings import Holding, Holdings
from tether.broker.redis.raw_connections import RawConnection, encode_command
from tether.broker.scripts import rows
from tether.telemetry import metrics

if TYPE_CHECKING:
    from tether.broker.tether_broker import TetherBroker


class Intake:
    """What one broker takes from its queues. Safe to use from many threads."""

    def __init__(self, broker: TetherBroker) -> None:
        self._broker = broker
        self._lock = threading.Lock()
        self._under_way: Counter[str] = Counter()
        self._owed: set[str] = set()

    def reclaim(self, queue_name: str) -> None:
        """Give back what the broker's ack set holds and this process no longer has in memory.

        Raises:
          OUTAGE_ERRORS: Redis is away.
        """
        with self._lock:
            if self._under_way[queue_name]:
                # What another consumer of this process receives in this moment looks like what is stranded.
                self._owed.add(queue_name)
                return
            self._owed.discard(queue_name)
            holdings = self._broker.holdings
            returned = self._broker.run(
                "reclaim",
                queue_name,
                holdings.broker_id,
                *holdings.ids(queue_name),
                client=self._broker.careful_client,
            )
        if returned:
            metrics.MESSAGES_RETURNED.labels(queue=queue_name).inc(returned)
            self._broker.logger.warning("Gave %d stranded messages back to queue %r.", returned, queue_name)

    def take(self, queue_name: str, count: int) -> list[tuple[Holding, bytes]]:
        """Take up to ``count`` messages: each delivery with its bytes."""
        with self._taking(queue_name) as holdings:
            answer = self._broker.lines.run("take", queue_name, holdings.broker_id, count)
            return self._hold(holdings, queue_name, answer)

    def wait_and_take(
        self, line: RawConnection, queue_name: str, count: int, seconds: float
    ) -> list[tuple[Holding, bytes]]:
        """Wait for the queue's bell, at most for ``seconds``, then take up to ``count`` messages.

        Both commands are sent at once. Redis goes on with the second when the first has ended, so that
        messages come with the wake-up and not a round trip later.
        """
        with self._taking(queue_name) as holdings:
            arguments = (queue_name, holdings.broker_id, count)
            wait = encode_command("BLPOP", self._broker.keys.bell(queue_name), round(seconds, 3))
            try:
                line.send(wait, self._broker.lines.script("take", *arguments))
                line.read()
                answer = self._broker.lines.read_script(line, "take", *arguments)
            except BaseException:
                line.close()
                raise
            return self._hold(holdings, queue_name, answer)

    @contextlib.contextmanager
    def _taking(self, queue_name: str) -> Iterator[Holdings]:
        with self._lock:
            self._under_way[queue_name] += 1
            holdings = self._broker.holdings
        try:
            yield holdings
        finally:
            with self._lock:
                self._under_way[queue_name] -= 1
        if queue_name in self._owed:
            self.reclaim(queue_name)

    def _hold(self, holdings: Holdings, queue_name: str, answer: list[bytes]) -> list[tuple[Holding, bytes]]:
        taken = [
            (Holding(redis_id.decode(), queue_name, holdings.broker_id, int(crashes)), data)
            for redis_id, data, crashes in rows(answer, 3)
        ]
        holdings.add(holding for holding, _ in taken)
        return taken
