"""What a client that was closed answers, before a call and in the middle of one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tether.errors import ClientClosed, StoreError


def closed() -> ClientClosed:
    """Return the error of every call of a client that was closed."""
    return ClientClosed("the client was closed: create another one; jobs continue, and can be followed again")


class Lifetime:
    """From a client's opening to its closing. Safe to use from many threads."""

    def __init__(self) -> None:
        self._is_over = False

    def end(self) -> None:
        """From now on calls raise :class:`ClientClosed`. Comes before what they use is closed."""
        self._is_over = True

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Run one call.

        Raises:
          ClientClosed: The client was closed; perhaps meanwhile, so that the call met a database that was
            closed.
        """
        if self._is_over:
            raise closed()
        try:
            yield
        except StoreError as error:
            meant = self.meant(error)
            if meant is error:
                raise
            raise meant from error

    def meant(self, error: Exception) -> Exception:
        """Return what to raise for an error that a call met."""
        # Subclasses say what became of a write, which the caller must still be told.
        return closed() if self._is_over and type(error) is StoreError else error
