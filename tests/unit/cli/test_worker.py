"""How long `tether worker` waits for its processes."""

import pytest

from tether_cli.worker import INFERENCE_WORKER, longest_work_seconds
from tether_workers.process import WorkerOptions


@pytest.mark.parametrize(
    ("broker", "modules", "shutdown_ms", "expected"),
    [
        (INFERENCE_WORKER, (), 600_000, 15.0),
        (INFERENCE_WORKER, (), 5_000, 5.0),
        (INFERENCE_WORKER, ("my.actors",), 600_000, 600.0),
        ("my.program", (), 600_000, 600.0),
    ],
)
def test_actors_get_their_own_time_also_beside_the_models(broker, modules, shutdown_ms, expected):
    options = WorkerOptions(
        broker=broker,
        modules=modules,
        threads=1,
        queues=(),
        shutdown_timeout=shutdown_ms,
        paths=(),
        log_form="human",
        log_level="info",
    )
    assert longest_work_seconds(options, 15.0) == expected
