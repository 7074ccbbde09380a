"""Which functions run beside the workers, and what becomes of one that ends."""

import errno
import signal

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from tether_workers import forks
from tether_workers.forks import fork_paths, run_fork


def beside():
    return 0


def failing():
    return 4


class Forking(dramatiq.Middleware):
    def __init__(self, *functions):
        self._functions = functions

    @property
    def forks(self):
        return list(self._functions)


def broker_with(*functions):
    return StubBroker(middleware=[Forking(*functions)])


def test_a_function_that_another_process_cannot_import_is_left_out(capsys):
    def within():
        return 0

    assert fork_paths(broker_with(within, beside, lambda: 0)) == [f"{__name__}:beside"]
    assert capsys.readouterr().out.count("define it at the top of a module") == 2


class Stopped(Exception):
    pass


@pytest.fixture
def paused(monkeypatch):
    """The process waits no longer than a test can."""

    def pause():
        raise Stopped

    monkeypatch.setattr(signal, "pause", pause)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(forks, "follow_parent", lambda on_death: None)


def test_a_function_that_has_returned_is_not_run_again(paused):
    with pytest.raises(Stopped):
        run_fork(f"{__name__}:beside")


def test_a_function_that_answers_a_status_ends_its_process(paused):
    assert run_fork(f"{__name__}:failing") == 4


def listening():
    raise OSError(errno.EADDRINUSE, "Address already in use")


def broken():
    raise OSError(errno.EACCES, "Permission denied")


@pytest.mark.parametrize(
    ("function", "said"), [("listening", "its port is in use"), ("broken", "failed: [Errno 13]")]
)
def test_why_a_function_cannot_run_is_said_and_it_is_tried_again(paused, capsys, monkeypatch, function, said):
    monkeypatch.setattr(forks, "configure_logs", lambda **_: None)
    options = forks.ForkOptions(f"{__name__}:{function}", (), "human", "info")
    assert forks.main(options.command()[3:]) == 1
    assert said in capsys.readouterr().out
