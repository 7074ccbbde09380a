"""A stop that a handler of signals asks for, whatever its thread does at that moment."""

import signal
import sys
import threading

from tether.processes.stop_request import StopRequest


def lines_of_wait(each_line, stop_request):
    """Wait once, calling ``each_line`` with a number before each line of Python that this runs."""
    count = 0

    def trace(frame, kind, _):
        nonlocal count
        if frame.f_code is StopRequest.wait.__code__ and kind == "line":
            each_line(count)
            count += 1
        return trace

    sys.settrace(trace)
    try:
        answer = stop_request.wait(timeout=0.01)
    finally:
        sys.settrace(None)
    return answer, count


def test_a_signal_at_any_moment_of_the_wait_ends_it():
    _, lines = lines_of_wait(lambda line: None, StopRequest())
    assert lines >= 4

    def interrupt(at):
        return lambda line: signal.raise_signal(signal.SIGUSR2) if line == at else None

    for at in range(lines - 1):
        fresh = StopRequest()
        before = signal.signal(signal.SIGUSR2, lambda *_, fresh=fresh: fresh.set())
        assert lines_of_wait(interrupt(at), fresh)[0], f"line {at}"
        assert fresh.wait(), "it stays so"
        signal.signal(signal.SIGUSR2, before)


def test_another_thread_may_ask_and_nobody_asking_is_told():
    stop_request = StopRequest()
    assert not stop_request.wait(timeout=0.0)
    asking = threading.Thread(target=stop_request.set)
    asking.start()
    assert stop_request.wait(timeout=60.0)
    asking.join()
    assert stop_request.wait(timeout=0.0)
