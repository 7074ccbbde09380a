"""What the source distribution's tests expect of their helper module."""

from __future__ import annotations

import contextlib
import platform
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from dramatiq import Broker, Worker

RABBITMQ_CREDENTIALS = None


def skip_in_ci(test: Callable[..., Any]) -> Callable[..., Any]:
    """These tests are slow or sensitive to time; here they run all the same."""
    return test


skip_on_pypy = pytest.mark.skipif(platform.python_implementation() == "PyPy", reason="needs CPython")
skip_on_windows = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")


@contextlib.contextmanager
def worker(broker: Broker, **settings: Any) -> Iterator[Worker]:
    """A running worker on ``broker``, stopped at the end."""
    running = Worker(broker, **settings)
    running.start()
    try:
        yield running
    finally:
        running.stop()
