"""One transaction at a time on one connection, with errors that say what was and was not written."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from tether.errors import StoreUnavailable
from tether.store.failures import Meaning, commit_failure, failure, meaning_of

_Result = TypeVar("_Result")

_ATTEMPTS = 8
"""How often a transaction is begun that Postgres ends for a deadlock; each time another one got on."""


class Transactor:
    """Runs functions in transactions on a connection of its own, which it opens again where it was lost.

    One thread owns it.

    Attributes:
      is_failing: Whether the last transaction failed since the database is full, locked or away.
    """

    def __init__(
        self,
        engine: Engine,
        place: str,
        turn: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """
        Args:
          turn: What is entered for each transaction.
        """
        self._engine = engine
        self._place = place
        self._turn = turn
        self._connection: Connection | None = None
        self.is_failing = False

    def run(self, function: Callable[[Connection], _Result]) -> _Result:
        """Run ``function`` in a transaction, and commit. It may run more than once: it must only use the
        connection.

        Raises:
          StoreUnavailable: Nothing was written; the same can succeed later.
          CommitUnknown: It is not known whether it was written.
          StoreError: The database refuses it. Nothing was written.
        """
        try:
            with self._turn():
                result = self._run(function)
        except StoreUnavailable:
            self.is_failing = True
            raise
        self.is_failing = False
        return result

    def _run(self, function: Callable[[Connection], _Result]) -> _Result:
        attempt = 1
        has_reconnected = False
        while True:
            try:
                connection = self._connect()
                result = function(connection)
            except SQLAlchemyError as error:
                self._undo()
                meaning = meaning_of(error)
                if meaning is Meaning.LOST and not has_reconnected:
                    has_reconnected = True
                    self.close()
                    continue
                if meaning is Meaning.AGAIN and attempt < _ATTEMPTS:
                    attempt += 1
                    continue
                raise failure(error, self._place) from None
            except BaseException:
                self._undo()
                raise
            try:
                connection.commit()
            except SQLAlchemyError as error:
                self._undo()
                if meaning_of(error) is Meaning.AGAIN and attempt < _ATTEMPTS:
                    attempt += 1
                    continue
                raise commit_failure(error, self._place) from None
            return result

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except SQLAlchemyError:
                connection.invalidate()

    def _connect(self) -> Connection:
        if self._connection is None:
            self._connection = self._engine.connect()
        return self._connection

    def _undo(self) -> None:
        if self._connection is None:
            return
        try:
            self._connection.rollback()
        except SQLAlchemyError:
            self._connection.invalidate()
        if self._connection.invalidated:
            self.close()
