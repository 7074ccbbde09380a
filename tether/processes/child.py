"""The child's side of supervision: say when ready, and learn when the parent is gone.

A supervisor hands each child two pipes, named in its environment. The child writes one line to the first
when it is ready: a word, and the names of what shall run beside it. The second is never written to: it
reaches its end when the parent dies, however it dies.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

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

MAX_READY_BYTES = 4096
"""Of the line with which a child says that it is ready: so much arrives at once."""


def announce_ready(companions: Sequence[str] = ()) -> None:
    """Tell the supervisor, where there is one, that this process does its work now.

    Args:
      companions: Names, without spaces, of what the supervisor shall run beside it, once for all children
        that ask for it.
    """
    descriptor = os.environ.pop(READY_VARIABLE, None)
    if descriptor is not None:
        os.write(int(descriptor), f"{' '.join((READY_WORD, *companions))}\n".encode())
        os.close(int(descriptor))


def companions_in(line: bytes) -> list[str] | None:
    """The names in what :func:`announce_ready` wrote; None where that is not what was written."""
    word, *companions = line.decode("utf-8", "replace").split() or [""]
    return companions if word == READY_WORD and line.endswith(b"\n") else None


def follow_parent(on_death: Callable[[], None]) -> None:
    """Call ``on_death`` from the thread ``tether-lifeline`` once the supervisor is gone.

    The thread is a daemon: it ends with this process. Does nothing where there is no supervisor.
    """
    descriptor = os.environ.pop(LIFELINE_VARIABLE, None)
    if descriptor is None:
        return

    def wait_for_the_end() -> None:
        while os.read(int(descriptor), 1):
            pass
        on_death()

    OwnedThread("lifeline", wait_for_the_end).start()
