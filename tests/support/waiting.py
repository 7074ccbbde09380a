"""Waiting for what happens in other threads and processes."""

import threading
import time

FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.001, 0.02

PATIENCE_SECONDS = 180
"""What a busy machine may take for what a quiet one does at once. Nothing is measured by it."""


def eventually(condition, within, what):
    """Return the first true value of ``condition()``; fail, naming ``what``, after ``within`` seconds.

    For what happens elsewhere, where nothing tells us when it does.
    """
    never = threading.Event()
    deadline = time.monotonic() + within
    pause = FIRST_PAUSE_SECONDS
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {within} s: {what}")
        never.wait(pause)
        pause = min(2 * pause, MAX_PAUSE_SECONDS)


def join(thread):
    """Wait until a thread has ended; fail where it does not."""
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive(), f"thread {thread.name} does not end"
