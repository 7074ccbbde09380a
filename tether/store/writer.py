"""Group commit: one thread writes, and what comes while it commits shares the next transaction."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Connection

from tether.errors import StoreError, StoreUnavailable
from tether.store.transactions import Transactor
from tether.threads import OwnedThread

MAX_GROUP = 256
"""Most items in one transaction: beyond it throughput hardly grows, and every member waits for all."""

MAX_GROUP_BYTES = 4_194_304
"""Items are no more in one transaction once their bodies have so many bytes together."""

MAX_GROUP_SECONDS = 0.05
"""Where one transaction at a time writes, no more items share one than are written in so long, as far as the
last ones tell: other processes wait meanwhile."""

Item = TypeVar("Item")
Result = TypeVar("Result")
Operation: TypeAlias = Callable[[Connection, list[Item]], Sequence[Result]]


@dataclass(frozen=True, eq=False)
class _Write:
    operation: Operation[Any, Any]
    item: Any
    future: Future[Any]


class Writer:
    """Owns the thread ``tether-store-writer``, from :meth:`start` to :meth:`close`.

    Args:
      transactor: What it writes through; closed by that thread when it ends.
      shares_transaction: Whether different operations may share a transaction. They may where one
        transaction at a time writes (SQLite). Where several do (Postgres), each operation takes its locks in
        the one order that all keep, and two in one transaction would not.
    """

    def __init__(
        self,
        transactor: Transactor,
        *,
        shares_transaction: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transactor = transactor
        self._shares_transaction = shares_transaction
        self._clock = clock
        self._max_group = MAX_GROUP
        self._queue: deque[_Write] = deque()
        self._news = threading.Condition()
        self._is_closed = False
        self._thread = OwnedThread("store-writer", self._work, ask_to_stop=self._ask_to_stop)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Write what was given, then end the thread."""
        self._thread.stop()

    def _ask_to_stop(self) -> None:
        with self._news:
            self._is_closed = True
            self._news.notify()

    def write(self, operation: Operation[Item, Result], items: Iterable[Item]) -> list[Future[Result]]:
        """Queue items for one operation; each future ends after the commit of its own item.

        Raises:
          StoreError: The writer is closed.
        """
        writes = [_Write(operation, item, Future()) for item in items]
        with self._news:
            if self._is_closed:
                raise StoreError("the store is closed: open it again before writing to it")
            self._queue.extend(writes)
            self._news.notify()
        return [write.future for write in writes]

    def _take(self) -> list[_Write]:
        with self._news:
            while not self._queue and not self._is_closed:
                self._news.wait()
            taken: list[_Write] = []
            size = 0
            while self._queue and len(taken) < self._max_group and size < MAX_GROUP_BYTES:
                taken.append(self._queue.popleft())
                size += getattr(taken[-1].item, "body_bytes", 0)
            return taken

    def _work(self) -> None:
        try:
            while taken := self._take():
                # A member that was cancelled while it waited is not written.
                writes = [write for write in taken if write.future.set_running_or_notify_cancel()]
                groups = _by_operation(writes)
                if self._shares_transaction and groups:
                    self._carry_out(groups)
                else:
                    for group in groups:
                        self._carry_out([group])
        finally:
            self._transactor.close()

    def _carry_out(self, groups: list[list[_Write]]) -> None:
        """Write all in one transaction; if that fails, halve it until what fails stands alone."""
        writes = [write for group in groups for write in group]
        try:
            results = self._transactor.run(lambda connection: self._run_timed(connection, groups))
        except StoreUnavailable as error:
            # The database is away, not a member wrong: to try each alone would only take longer.
            for write in writes:
                write.future.set_exception(_copy_of(error))
        except Exception as error:
            if len(writes) == 1:
                writes[0].future.set_exception(error)
            else:
                for half in _halves(groups):
                    self._carry_out(half)
        else:
            for write, result in zip(writes, results, strict=True):
                write.future.set_result(result)

    def _run_timed(self, connection: Connection, groups: list[list[_Write]]) -> list[Any]:
        """Write all, and note how many of the like can be written in :data:`MAX_GROUP_SECONDS`."""
        begun_at = self._clock()
        results = _run(connection, groups)
        if self._shares_transaction:
            count, seconds = sum(map(len, groups)), self._clock() - begun_at
            fitting = MAX_GROUP if seconds <= 0 else int(count * MAX_GROUP_SECONDS / seconds)
            # It may grow to twice as many at a time: one slow transaction is no rule.
            self._max_group = max(1, min(fitting, 2 * max(count, self._max_group), MAX_GROUP))
        return results


def _by_operation(writes: list[_Write]) -> list[list[_Write]]:
    groups: dict[Operation[Any, Any], list[_Write]] = {}
    for write in writes:
        groups.setdefault(write.operation, []).append(write)
    return list(groups.values())


def _halves(groups: list[list[_Write]]) -> list[list[list[_Write]]]:
    if len(groups) > 1:
        return [[group] for group in groups]
    middle = len(groups[0]) // 2
    return [[groups[0][:middle]], [groups[0][middle:]]]


def _run(connection: Connection, groups: list[list[_Write]]) -> list[Any]:
    results: list[Any] = []
    for group in groups:
        answers = group[0].operation(connection, [write.item for write in group])
        if len(answers) != len(group):
            raise StoreError(
                f"the operation {group[0].operation!r} answered {len(answers)} of {len(group)} items: "
                "it must answer each, in order"
            )
        results.extend(answers)
    return results


def _copy_of(error: StoreError) -> StoreError:
    """The same error for one more caller, each of which adds its own traceback."""
    copy = type(error)(*error.args)
    copy.outward = error.outward
    return copy
