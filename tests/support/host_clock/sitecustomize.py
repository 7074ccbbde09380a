"""Loaded by Python programs at their start: their wall clock is off by what a file says, in milliseconds.

The file's name is in the environment (``HOST_CLOCK_OFFSET``). It is read at each look at the clock, so that
the clock can be set while the program runs.
"""

import os
import time

_FILE = os.environ.get("HOST_CLOCK_OFFSET")
_true_time_ns = time.time_ns


def _time_ns():
    with open(_FILE) as file:
        return _true_time_ns() + int(file.read() or 0) * 1_000_000


if _FILE:
    time.time_ns = _time_ns
    time.time = lambda: _time_ns() / 1e9
