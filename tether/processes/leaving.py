"""The end of a process, without taking the interpreter apart."""

from __future__ import annotations

import atexit
import os
import sys
import threading


def leave(status: object) -> None:
    """End the process with what ``sys.exit`` was told, without taking the interpreter apart: that takes a
    tenth of a short command's time, and aborts the process where a daemon thread is amid C++ that may not be
    unwound, as torch is while it loads a model.

    All that a program relies on is done first: functions registered with ``atexit``, and the flush of
    standard output and error. Where anything is unusual this returns, for the interpreter to end in its own
    way: threads that are to be waited for, a stream that cannot be written, a status that is a message.
    """
    if status is None:
        status = 0
    if not isinstance(status, int) or any(
        not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()
    ):
        return
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):
        return
    os._exit(status & 0xFF)
