"""Which broker a worker process takes from the program that it was given."""

import signal
import sys
import types

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from tether.errors import ConfigError
from tether_workers.process import WorkerOptions, load_broker, run_worker


@pytest.fixture
def program(monkeypatch):
    """A module of the test's own, while no broker is set."""
    monkeypatch.setattr(dramatiq.broker, "global_broker", None)
    module = types.ModuleType("program_of_a_test")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_the_only_broker_of_a_module_is_taken(program):
    program.broker = program.again = StubBroker()
    assert load_broker(program.__name__) is program.broker


def test_a_broker_that_is_set_comes_before_it(program):
    program.broker = StubBroker()
    dramatiq.set_broker(StubBroker())
    assert load_broker(program.__name__) is dramatiq.get_broker()


def test_of_several_brokers_one_must_be_named(program):
    program.one, program.two = StubBroker(), StubBroker()
    with pytest.raises(ConfigError, match="one, two"):
        load_broker(program.__name__)
    assert load_broker(f"{program.__name__}:two") is program.two


def test_a_program_without_a_queue_is_told_so_and_is_not_ready(program):
    program.broker = StubBroker()
    options = WorkerOptions(
        broker=program.__name__,
        modules=(),
        threads=1,
        queues=(),
        shutdown_timeout=1,
        paths=(),
        log_form="json",
        log_level="error",
    )
    with pytest.raises(ConfigError, match="declares no queue"):
        run_worker(options)
