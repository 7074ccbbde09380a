"""The fixtures that the source distribution's tests ask for, on the private Redis server."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.broker import Broker, MessageProxy
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import Middleware
from dramatiq.rate_limits.backends import RedisBackend as RateLimiterRedisBackend
from dramatiq.results.backends import RedisBackend as ResultRedisBackend

from tether.broker import TetherBroker
from tether_conformance.common import worker
from tether_conformance.selection import ONLY_IN_MEMORY
from tether_conformance.substitution import FILES_VARIABLE, PORT_VARIABLE

STOP_SECONDS = 20.0
"""How long a command line may take to end after SIGTERM; the test fails where it takes longer."""


class DeadLetterErrors(Middleware):
    """Keeps the errors of dead-lettered messages, for a ``join`` that raises them as the stub's does."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []

    def before_nack(self, broker: Broker, message: MessageProxy) -> None:
        self.errors.append(message._exception or Exception("message failed without an exception"))


def _redis_url() -> str:
    return f"redis://127.0.0.1:{os.environ[PORT_VARIABLE]}/0"


def _tether_broker() -> TetherBroker:
    # The tests read keys, so the namespace must be the one that they know.
    broker = TetherBroker(url=_redis_url(), namespace="dramatiq", hash_tag=False)
    assert type(broker) is TetherBroker
    return broker


def _join_like_stub(broker: TetherBroker) -> Callable[..., None]:
    plain = broker.join
    dead = DeadLetterErrors()
    broker.add_middleware(dead)

    @functools.wraps(plain)
    def join(queue_name: str, *, fail_fast: bool = True, timeout: int | None = None) -> None:
        plain(queue_name, interval=10, timeout=timeout)
        errors, dead.errors = dead.errors, []
        if fail_fast and errors:
            raise errors[0] from None

    return join


@contextlib.contextmanager
def _as_global_broker(broker: Broker) -> Iterator[None]:
    broker.emit_after("process_boot")
    dramatiq.set_broker(broker)
    try:
        yield
    finally:
        dramatiq.set_broker(None)  # type: ignore[arg-type]
        broker.close()


@pytest.fixture(autouse=True)
def empty_redis() -> Iterator[redis.Redis]:
    """Each test starts with an empty server, and without files that an earlier one left."""
    for left_over in Path(os.environ[FILES_VARIABLE]).iterdir():
        left_over.unlink()
    with redis.Redis.from_url(_redis_url()) as client:
        client.flushall()
        yield client


@pytest.fixture
def redis_broker(empty_redis: redis.Redis) -> Iterator[TetherBroker]:
    broker = _tether_broker()
    with _as_global_broker(broker):
        yield broker


@pytest.fixture
def redis_worker(redis_broker: TetherBroker) -> Iterator[dramatiq.Worker]:
    with worker(redis_broker, worker_timeout=100, worker_threads=32) as running:
        yield running


@pytest.fixture
def stub_broker(request: pytest.FixtureRequest, empty_redis: redis.Redis) -> Iterator[Broker]:
    """TetherBroker, except for tests that only a broker in memory can pass."""
    broker: Any
    if request.function.__name__ in ONLY_IN_MEMORY:
        broker = StubBroker()
    else:
        broker = _tether_broker()
        broker.join = _join_like_stub(broker)
    with _as_global_broker(broker):
        yield broker


@pytest.fixture
def stub_worker(stub_broker: Broker) -> Iterator[dramatiq.Worker]:
    with worker(stub_broker, worker_timeout=100, worker_threads=32) as running:
        yield running


@pytest.fixture
def redis_result_backend(empty_redis: redis.Redis) -> ResultRedisBackend:
    return ResultRedisBackend(client=empty_redis)


@pytest.fixture
def result_backend(redis_result_backend: ResultRedisBackend) -> ResultRedisBackend:
    return redis_result_backend


@pytest.fixture
def rate_limiter_backend(empty_redis: redis.Redis) -> RateLimiterRedisBackend:
    return RateLimiterRedisBackend(client=empty_redis)


@pytest.fixture
def start_cli(empty_redis: redis.Redis) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts Dramatiq's command line, and ends what was started."""
    started = contextlib.ExitStack()
    # On reload the command line looks for "python" on PATH.
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"}

    def start(
        broker_path: str, *, extra_args: list[str] | tuple[str, ...] = (), **settings: Any
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "dramatiq", broker_path, *extra_args],
            env=environment,
            start_new_session=True,
            **settings,
        )
        started.callback(_end_cli, process)
        return process

    with started:
        yield start


def _end_cli(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
