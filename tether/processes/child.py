"""The child's side of supervision: say when ready, and learn when the parent is gone.

A supervisor hands each child two pipes, named in its environment. The child writes one line to the first
when it is ready. The second is never written to: it reaches its end when the parent dies, however it dies.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from tether.threads import OwnedThread

READY_VARIABLE = "TETHER_CHILD_READY_FD"
"""Environment variable with the file descriptor on which a child says that it is ready."""

LIFELINE_VARIABLE = "TETHER_CHILD_LIFELINE_FD"
"""Environment variable with the file descriptor that ends when the parent does."""

NAME_VARIABLE = "TETHER_CHILD_NAME"
"""Environment variable with the name that the supervisor calls the child by."""

SOCKET_VARIABLE = "TETHER_CHILD_SOCKET_FD"
"""Environment variable with the file descriptor of the socket that a child shall listen at."""

READY_LINE = b"ready\n"


def announce_ready() -> None:
    """Tell the supervisor, where there is one, that this process does its work now."""
    descriptor = os.environ.pop(READY_VARIABLE, None)
    if descriptor is not None:
        os.write(int(descriptor), READY_LINE)
        os.close(int(descriptor))


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
