"""Which test files of the source distribution run, which do not and why, and what each test runs on."""

from __future__ import annotations

import pytest

RUN = frozenset(
    {
        "test_actors.py",
        "test_barrier.py",
        "test_broker.py",
        "test_bucket_rate_limiter.py",
        "test_callbacks.py",
        "test_cli.py",
        "test_composition.py",
        "test_concurrent_rate_limiter.py",
        "test_encoders.py",
        "test_generic_actors.py",
        "test_messages.py",
        "test_redis.py",
        "test_results.py",
        "test_watch.py",
        "test_window_rate_limiter.py",
        "test_worker.py",
    }
)

LEFT_OUT = {
    "test_canteen.py": "shared memory between processes: no broker",
    "test_common.py": "names of queues: no broker",
    "test_pidfile.py": "the command line's PID file, on the stub broker: no Redis",
    "test_rabbitmq.py": "RabbitMQ",
    "test_stub_broker.py": "the stub broker itself",
    "test_types.py": "for a type checker; holds no test",
}

ONLY_IN_MEMORY = frozenset(
    {
        "test_actors_can_be_sent_messages",
        "test_messages_belonging_to_missing_actors_are_rejected",
        "test_worker_handles_none_eta",
        "test_worker_handles_non_numeric_eta_and_logs_warning",
        "test_workers_process_messages_in_order",
    }
)
"""Tests that read or write the stub broker's own queues, or give a message one millisecond to arrive. All
others that ask for the stub broker get TetherBroker."""


def ground_of(test: pytest.Function) -> str:
    """What a test runs on: TetherBroker, the stub broker, or no broker of ours."""
    if test.originalname in ONLY_IN_MEMORY:
        return "the stub broker"
    asks_for_broker = {"redis_broker", "redis_worker", "stub_broker", "stub_worker"} & set(test.fixturenames)
    if asks_for_broker or hasattr(test.module, "RedisBroker"):
        return "TetherBroker"
    return "no broker"
