"""Waiting for what happens in other processes, where nothing tells us when it does."""

import threading
import time

PAUSE_SECONDS = 0.02


def eventually(condition, within, what):
    """Return the first true value of ``condition()``; fail, naming ``what``, after ``within`` seconds."""
    never = threading.Event()
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {within} s: {what}")
        never.wait(PAUSE_SECONDS)
