"""Clients and forks: a client's threads stay in the process in which it was made."""

from __future__ import annotations

import os

from tether.errors import ClientClosed


def check_process(process: int) -> None:
    """Whether this is the process in which a client was made: its threads do not come along in a fork.

    Raises:
      ClientClosed: It is another one.
    """
    if os.getpid() != process:
        raise ClientClosed(
            f"the client was created in process {process}, from which this one was forked: create the client "
            "in the child, after the fork"
        )
