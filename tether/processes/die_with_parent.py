"""Runs a program that the kernel kills when its parent ends: ``die_with_parent.py PARENT PROGRAM ...``

Run as a file, so that nothing else is loaded. Source: prctl(2), PR_SET_PDEATHSIG; it outlives execve, and
means the end of the parent's thread that started this, which therefore must be its main thread, or one that
is to live as long as this.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends. End it where the parent is gone already.

    Args:
      parent: The process that must be this one's parent.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    # It may have ended before the kernel was told.
    if os.getppid() != parent:
        sys.exit(1)


def main(parent: int, command: list[str]) -> None:
    """Become the program, with this parent."""
    die_with_parent(parent)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
