"""The way into the metadata store: open it, write in groups, read from any thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from typing import Concatenate, ParamSpec, Self, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from tether.errors import StoreError, StoreUnavailable
from tether.store.addresses import database_url, make_room
from tether.store.bad_rows import Key, Value, read_each
from tether.store.engines import is_sqlite, reading_engine, writing_engine
from tether.store.failures import Meaning, failure, meaning_of
from tether.store.migrations import check_revision, current_revision, upgrade
from tether.store.room import PROBE_BYTES, has_room_beside, try_to_write
from tether.store.transactions import Transactor
from tether.store.turns import WriteTurns
from tether.store.writer import Item, Operation, Result, Writer

_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")


class Store:
    """The metadata store in one database. Any thread may use it between :meth:`open` and :meth:`close`.

    Owns one thread, ``tether-store-writer``.

    Args:
      url: ``sqlite:///path/to/file.db`` or ``postgresql://user:password@host/database``.
      echo: Whether every statement is logged, without its values.

    Raises:
      StoreError: The address is not one of these.
    """

    def __init__(self, url: str, *, echo: bool = False) -> None:
        self._url = database_url(url)
        self._echo = echo
        self.place = self._url.set(query={}).render_as_string(hide_password=True)
        """The address without password and options, for logs and messages."""
        self._turns: WriteTurns | None = None
        self._readers: Engine | None = None
        self._writers: Engine | None = None
        self._writer: Writer | None = None
        self._transactor: Transactor | None = None
        self._process = os.getpid()

    def open(self, *, migrate: bool = True) -> Self:
        """Connect, and migrate the tables to this version's schema if they are outdated.

        Args:
          migrate: Whether tables may be created or changed. Without, an outdated database is an error.

        Raises:
          StoreError: The schema is newer than this version, or outdated and must not be migrated.
          StoreUnavailable: The database cannot be reached.
        """
        if self._writer is not None:
            raise StoreError("the store is open already")
        self._process = os.getpid()
        if is_sqlite(self._url):
            make_room(self._url)
        self._writers = writing_engine(self._url, echo=self._echo)
        self._readers = reading_engine(self._url, echo=self._echo)
        try:
            if not self._read_from(self._writers, check_revision, may_be_behind=migrate):
                upgrade(self._url)
        except BaseException:
            self._dispose()
            raise
        # A database in memory has no other processes.
        if is_sqlite(self._url) and self._url.database not in (None, "", ":memory:"):
            self._turns = WriteTurns(Path(str(self._url.database)))
        turn = nullcontext if self._turns is None else self._turns.take
        self._transactor = transactor = Transactor(self._writers, self.place, turn)
        self._writer = Writer(transactor, shares_transaction=is_sqlite(self._url))
        self._writer.start()
        return self

    def found_revision(self) -> str | None:
        """The version of the tables as they are; None where there are none yet. The store need not be open.

        Raises:
          StoreUnavailable: The database cannot be reached.
        """
        engine = reading_engine(self._url, echo=self._echo)
        try:
            return self._read_from(engine, current_revision)
        finally:
            engine.dispose()

    def close(self) -> None:
        """Flush pending writes, then stop the writer thread and close all connections. Idempotent.

        In a child of the process that opened it, it only drops them.
        """
        writer, self._writer = self._writer, None
        # Where the process was forked, thread and connections are the parent's.
        if writer is not None and self._process == os.getpid():
            writer.close()
        self._dispose()

    def __enter__(self) -> Self:
        return self if self._writer is not None else self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def cannot_write(self) -> bool:
        """Whether the last transaction failed since the database is full, locked or away."""
        return self._transactor is not None and self._transactor.is_failing

    def has_room(self) -> bool:
        """Whether the disk has room for a job, where the database is a file."""
        return not is_sqlite(self._url) or has_room_beside(self._url.database)

    def can_write(self) -> bool:
        """Whether something can be written that needs room. Nothing of it stays. Blocks.

        Raises:
          StoreError: The database is unusable, or the store is closed.
        """
        try:
            return self.write(try_to_write, PROBE_BYTES).result()
        except StoreUnavailable:
            return False

    def write(self, operation: Operation[Item, Result], item: Item) -> Future[Result]:
        """Have ``operation`` write ``item``, in one transaction with other pending writes.

        The operation gets a list of items and returns a list of results in the same order. It may be
        retried after a failure, with the same items or with some of them, so it must do nothing but use
        the connection. Items are batched by the operation's identity: a ``functools.partial`` must
        be created once and reused. Two writes keep their order if the second is submitted after the first's
        future is done.

        Returns:
          A future that completes after the commit: with this item's result; with :class:`StoreUnavailable` or
          :class:`CommitUnknown`; or with the error of this item alone, while others in the same transaction
          succeeded.

        Raises:
          StoreError: The store is not open, or was opened by the process that this one was forked from.
        """
        return self._open_writer().write(operation, (item,))[0]

    def write_many(self, operation: Operation[Item, Result], items: Iterable[Item]) -> list[Future[Result]]:
        """Like :meth:`write`, for several items: a future each, in order."""
        return self._open_writer().write(operation, items)

    def write_each(
        self, operation: Operation[Item, Result], items: Iterable[Item]
    ) -> list[Result | Exception]:
        """Like :meth:`write_many`, and wait for all. Return an error in the place of each item that failed on
        its own; the others are written.

        Raises:
          StoreUnavailable: The database is not available; nothing, or not all, was written.
          StoreError: The store is not open, or was opened by the process that this one was forked from.
        """
        return each_result(self.write_many(operation, items))

    def write_alone(
        self,
        function: Callable[Concatenate[Connection, _Arguments], _Answer],
        *args: _Arguments.args,
        **kwargs: _Arguments.kwargs,
    ) -> Future[_Answer]:
        """Like :meth:`write`, for a function that takes its arguments themselves and not a list of items."""

        def run(connection: Connection, _: list[None]) -> list[_Answer]:
            return [function(connection, *args, **kwargs)]

        return self.write(run, None)

    def read(
        self,
        function: Callable[Concatenate[Connection, _Arguments], _Answer],
        *args: _Arguments.args,
        **kwargs: _Arguments.kwargs,
    ) -> _Answer:
        """Return ``function(connection, *args)``, on a read-only connection. Blocks: never call it on an
        event loop.

        Raises:
          StoreUnavailable: The database cannot be reached, or all connections are in use for too long.
          StoreError: The store is not open, was opened by the process that this one was forked from, or the
            database rejects the query.
        """
        return self._read_from(self._open_readers(), function, *args, **kwargs)

    def read_each(
        self, function: Callable[[Connection, list[Key]], Iterable[Value]], keys: Sequence[Key]
    ) -> tuple[list[Value], dict[Key, Exception]]:
        """Return ``function(connection, keys)``, without the rows that cannot be fetched:
        ``rows, errors = store.read_each(due_dispatches, job_ids)``.

        All are read at once. Where that fails with an error that is no outage, halves are read until what
        fails stands alone: ``function`` must only read, and return what there is of any of the keys. Blocks
        like :meth:`read`.

        Args:
          function: Reads rows by their keys.
          keys: Which rows, by job id for instance. One that is given twice is read once; without any, nothing
            is read.

        Returns:
          The rows, in the order of ``keys`` where the function keeps it and one read was enough, otherwise in
          The rows, in no order; and for each key that alone has failed, its error. A key of which there is no
          row is in neither.

        Raises:
          StoreUnavailable: The database cannot be reached, or all connections are in use for too long.
          StoreError: The store is not open, or was opened by the process that this one was forked from.
        """
        readers = self._open_readers()
        return read_each(lambda some: self._read_from(readers, function, some), keys)

    def _open_readers(self) -> Engine:
        if self._readers is None:
            raise StoreError("the store is not open: call open() first")
        self._check_process()
        return self._readers

    def _read_from(
        self,
        engine: Engine,
        function: Callable[Concatenate[Connection, _Arguments], _Answer],
        *args: _Arguments.args,
        **kwargs: _Arguments.kwargs,
    ) -> _Answer:
        # A connection that was kept may have been lost since: that says nothing of the database as it is.
        for is_last in (False, True):
            try:
                with engine.connect() as connection:
                    return function(connection, *args, **kwargs)
            except SQLAlchemyError as error:
                if is_last or meaning_of(error) is not Meaning.LOST:
                    raise failure(error, self.place) from None
        raise AssertionError("the last attempt answers or raises")

    def _open_writer(self) -> Writer:
        if self._writer is None:
            raise StoreError("the store is not open: call open() first")
        self._check_process()
        return self._writer

    def _check_process(self) -> None:
        """Threads do not come along where a process forks, and its connections serve one process only."""
        if self._process != os.getpid():
            raise StoreError(
                f"the store was opened by process {self._process}, from which this one was "
                "forked: create the "
                "client in the child, after the fork"
            )

    def _dispose(self) -> None:
        for engine in (self._readers, self._writers):
            if engine is not None:
                engine.dispose(close=self._process == os.getpid())
        self._readers = self._writers = None
        if self._turns is not None:
            self._turns.close()
            self._turns = None


def each_result(futures: Iterable[Future[Result]]) -> list[Result | Exception]:
    """Wait for the futures of :meth:`Store.write_many`. Return an error in the place of each item that failed
    on its own.

    Raises:
      StoreUnavailable: The database is not available; nothing, or not all, was written.
    """
    answers: list[Result | Exception] = []
    away: StoreUnavailable | None = None
    for future in futures:
        try:
            answers.append(future.result())
        except StoreUnavailable as error:
            away = away or error
        except Exception as error:
            answers.append(error)
    if away is not None:
        raise away
    return answers
