"""Which broker a worker process takes from the program that it was given."""

import signal
import subprocess
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


def test_a_broker_that_is_set_boots_before_further_modules_are_imported(program, monkeypatch, tmp_path):
    """Metrics that these declare are kept as the Prometheus middleware says when it boots."""
    booted = []

    class Boots(dramatiq.Middleware):
        def after_process_boot(self, broker):
            booted.append("further_module_of_a_test" in sys.modules)

    (tmp_path / "further_module_of_a_test.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    program.broker = StubBroker(middleware=[Boots()])
    for path in (f"{program.__name__}:broker", program.__name__):
        load_broker(path, ["further_module_of_a_test"])
        sys.modules.pop("further_module_of_a_test")
    dramatiq.set_broker(program.broker)
    load_broker(program.__name__, ["further_module_of_a_test"])
    sys.modules.pop("further_module_of_a_test")
    # One that nobody set or named may yet be followed by one that is set.
    assert booted == [False, True, False]


ENDING = """
import atexit, os, threading
from tether_workers import process

class Kept:
    def __del__(self):
        os.write(1, b"taken apart ")

kept = Kept()
process.main = lambda arguments: 3
atexit.register(os.write, 1, b"atexit ")
threading.Thread(target=threading.Event().wait, daemon=True).start()
process.run_as_process()
"""


def test_a_worker_s_interpreter_is_not_taken_apart_under_threads_that_load():
    # Taking it apart unwinds daemon threads, which C++ code answers with an abort: that looks like a crash.
    ended = subprocess.run([sys.executable, "-c", ENDING], stdout=subprocess.PIPE, check=False)
    assert (ended.returncode, ended.stdout) == (3, b"atexit ")


@pytest.mark.parametrize("name", ["", ":make"])
def test_what_is_wrong_in_the_settings_is_told_as_it_is_without_a_traceback(name, monkeypatch, tmp_path):
    wrong = "def make():\n    try:\n        1 / 0\n    except ZeroDivisionError as error:\n"
    wrong += "        raise ConfigError('models[0].path does not exist') from error\n"
    ends = "" if name else "make()\n"
    (tmp_path / "wrongly_set_up.py").write_text(f"from tether.errors import ConfigError\n{wrong}{ends}")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_broker(f"wrongly_set_up{name}")
    sys.modules.pop("wrongly_set_up", None)
    assert (str(caught.value), caught.value.__cause__) == ("models[0].path does not exist", None)
