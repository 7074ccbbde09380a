"""The child's side of supervision: say when ready, and learn when the parent is gone.

A supervisor hands each child two pipes, named in its environment. The child writes one line to the first
when it is ready: a word, and the names of what shall run beside it. It closes that pipe once it has loaded
all that it is to load at its start. The second one has a word for a child that is to end otherwise than by
SIGTERM, and reaches its end when the parent dies, however it dies.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from enum import Enum

from tether.threads import OwnedThread

READY_VARIABLE = "TETHER_CHILD_READY_FD"
"""Environment variable with the file descriptor on which a child says that it is ready."""

LIFELINE_VARIABLE = "TETHER_CHILD_LIFELINE_FD"
"""Environment variable with the file descriptor that ends when the parent does."""

NAME_VARIABLE = "TETHER_CHILD_NAME"
"""Environment variable with the name that the supervisor calls the child by."""

SOCKET_VARIABLE = "TETHER_CHILD_SOCKET_FD"
"""Environment variable with the file descriptor of the socket that a child shall listen at."""

READY_WORD = "ready"
READY_LINE = f"{READY_WORD}\n".encode()

UNLOADED_LINE = b"unloaded\n"

MAX_READY_BYTES = 4096
"""Of the line with which a child says that it is ready: so much arrives at once."""


class LifelineWord(Enum):
    """What a supervisor says on a child's lifeline.

    Values:
      RETIRE: Another process has taken this one's place: stop as at SIGTERM, and be patient with clients.
      HURRY: Whoever stops it waits no longer: hand over what is not finished, and end.
    """

    RETIRE = b"-"
    HURRY = b"!"


class LoadState(Enum):
    """How far a child is that loads something at its start, such as models.

    Values:
      LOADING: It has not loaded all of it.
      FAILED: It cannot, for now.
      LOADED: It has.
    """

    LOADING = "loading"
    FAILED = "failed"
    LOADED = "loaded"


class LoadingReport:
    """Tells the supervisor how far a child that is ready is with what it loads at its start."""

    def __init__(self, descriptor: int | None) -> None:
        """
        Args:
          descriptor: Of the pipe, which it owns from now on; None where there is no supervisor.
        """
        self._descriptor = descriptor
        self._is_failure_told = False

    def tell(self, state: LoadState) -> None:
        """Say how far it is. The same again, and all after :attr:`LoadState.LOADED`, is not said."""
        if self._descriptor is None:
            return
        if state is LoadState.LOADED:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)
        elif state is LoadState.FAILED and not self._is_failure_told:
            self._is_failure_told = True
            os.write(self._descriptor, UNLOADED_LINE)


def announce_ready(companions: Sequence[str] = ()) -> None:
    """Tell the supervisor, where there is one, that this process does its work now.

    Args:
      companions: Names, without spaces, of what the supervisor shall run beside it, once for all children
        that ask for it.
    """
    announce_loading(companions).tell(LoadState.LOADED)


def announce_loading(companions: Sequence[str] = ()) -> LoadingReport:
    """As :func:`announce_ready`, where something is still being loaded. A reload of all children waits for
    that before it goes on to the next one."""
    descriptor = os.environ.pop(READY_VARIABLE, None)
    if descriptor is None:
        return LoadingReport(None)
    os.set_inheritable(int(descriptor), False)
    os.write(int(descriptor), f"{' '.join((READY_WORD, *companions))}\n".encode())
    return LoadingReport(int(descriptor))


def companions_in(line: bytes) -> list[str] | None:
    """The names in what :func:`announce_ready` wrote; None where that is not what was written."""
    first, end, _ = line.partition(b"\n")
    word, *companions = first.decode("utf-8", "replace").split() or [""]
    return companions if word == READY_WORD and end else None


def follow_parent(
    on_death: Callable[[], None],
    *,
    on_retire: Callable[[], None] | None = None,
    on_hurry: Callable[[], None] | None = None,
) -> None:
    """Call ``on_death`` from the thread ``tether-lifeline`` once the supervisor is gone.

    The thread is a daemon: it ends with this process. Does nothing where there is no supervisor.

    Args:
      on_retire, on_hurry: Called from the same thread when the supervisor says so, see
        :class:`LifelineWord`; by default ``on_death`` and nothing.
    """
    descriptor = os.environ.pop(LIFELINE_VARIABLE, None)
    if descriptor is None:
        return
    answers = {LifelineWord.RETIRE.value: on_retire or on_death, LifelineWord.HURRY.value: on_hurry}

    def wait_for_the_end() -> None:
        while word := os.read(int(descriptor), 1):
            answer = answers.get(word)
            if answer is not None:
                answer()
        on_death()

    OwnedThread("lifeline", wait_for_the_end).start()
