"""The way into the metadata store: open it, write in groups, read from any thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Concatenate, ParamSpec, Self, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from tether.errors import StoreError
from tether.store.addresses import database_url, make_room
from tether.store.engines import is_sqlite, reading_engine, writing_engine
from tether.store.failures import Meaning, failure, meaning_of
from tether.store.migrations import check_revision, upgrade
from tether.store.transactions import Transactor
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
        self._readers: Engine | None = None
        self._writers: Engine | None = None
        self._writer: Writer | None = None
        self._process = os.getpid()

    def open(self, *, migrate: bool = True) -> Self:
        """Connect, and bring the tables to this version's form where they are behind.

        Args:
          migrate: Whether tables may be made or changed. Without, a database that is behind is an error.

        Raises:
          StoreError: The tables are of a newer version than this one knows, or behind and not to be changed.
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
        transactor = Transactor(self._writers, self.place)
        self._writer = Writer(transactor, shares_transaction=is_sqlite(self._url))
        self._writer.start()
        return self

    def close(self) -> None:
        """Write what was given before, then end the writer thread and all connections. May be repeated.

        In a child of the process that opened it, it only forgets them.
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

    def write(self, operation: Operation[Item, Result], item: Item) -> Future[Result]:
        """Have ``operation`` write ``item``, in one transaction with whatever else waits.

        The operation gets a list of items and answers with a list of results in the same order. It may be
        run again after a failure, with the same items or with some of them, so it must do nothing but use
        the connection. Items are brought together by the operation's identity: a ``functools.partial`` must
        be made once and kept. Two writes keep their order where the second is made after the first's future
        has ended.

        Returns:
          A future that ends after the commit: with this item's result; with :class:`StoreUnavailable` or
          :class:`CommitUnknown`; or with the error of this item alone, where others in the same transaction
          succeeded.

        Raises:
          StoreError: The store is not open, or was opened by the process that this one was forked from.
        """
        return self._open_writer().write(operation, (item,))[0]

    def write_many(self, operation: Operation[Item, Result], items: Iterable[Item]) -> list[Future[Result]]:
        """Like :meth:`write`, for several items: a future each, in order."""
        return self._open_writer().write(operation, items)

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
        """Answer ``function(connection, *args)``, on a connection that cannot write. Blocks: never call it
        on an event loop.

        Raises:
          StoreUnavailable: The database cannot be reached, or all connections are in use for too long.
          StoreError: The store is not open, was opened by the process that this one was forked from, or the
            database refuses the query.
        """
        if self._readers is None:
            raise StoreError("the store is not open: call open() first")
        self._check_process()
        return self._read_from(self._readers, function, *args, **kwargs)

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
                f"the store was opened by process {self._process}, from which this one was forked: make the "
                "client in the child, after the fork"
            )

    def _dispose(self) -> None:
        for engine in (self._readers, self._writers):
            if engine is not None:
                engine.dispose(close=self._process == os.getpid())
        self._readers = self._writers = None
