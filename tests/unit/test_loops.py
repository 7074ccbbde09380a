import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tether.errors import StoreUnavailable
from tether.loops import IDLE, LEASE_LOOK_SECONDS, MAX_PAUSE_SECONDS, Loop, Outage, Signal, seconds_until
from tether.telemetry import metrics
from tether.telemetry.logs import get_logger
from tether.threads import OwnedThread

LOG = get_logger("test")
SECONDS = 20


class Steps:
    """A step that does what it is told to, one after the other; then it is idle."""

    def __init__(self, *results):
        self.results = list(results)
        self.calls = 0

    def __call__(self):
        self.calls += 1
        result = self.results.pop(0) if self.results else IDLE
        if isinstance(result, Exception):
            raise result
        return result


@pytest.fixture
def open_loop():
    opened = []

    def make(step, **settings):
        loop = Loop(settings.pop("name", "under-test"), step, **settings)
        opened.append(loop)
        return loop, loop.observe()

    yield make
    for loop in opened:
        assert loop.stop(SECONDS)


def thread_names():
    return [thread.name for thread in threading.enumerate()]


def failures(loop, reason):
    return metrics.LOOP_FAILURES.labels(loop=loop.name, reason=reason).value


def test_a_loop_steps_in_its_own_thread_until_it_is_stopped(open_loop):
    names = []
    loop, signals = open_loop(lambda: names.append(threading.current_thread().name) or 0)
    assert not loop.is_alive
    loop.start()
    for _ in range(3):
        assert signals.stepped.wait() == 0
    assert loop.is_alive
    assert loop.stop()
    assert set(names) == {"tether-under-test"}
    assert "tether-under-test" not in thread_names()


def test_a_loop_rests_as_long_as_its_step_says_and_never_longer_than_its_interval(open_loop):
    waits = []

    def wait(condition, predicate, seconds):
        waits.append(seconds)
        if len(waits) == 4:
            condition.wait_for(predicate)

    loop, signals = open_loop(Steps(0, 0.25, 60.0, IDLE), interval=5.0, wait=wait)
    loop.start()
    assert [signals.idle.wait() for _ in range(4)] == [0.25, 5.0, 5.0, 5.0]
    assert waits[:3] == [0.25, 5.0, 5.0]


def test_without_an_interval_an_idle_loop_waits_without_end(open_loop):
    loop, signals = open_loop(Steps())
    loop.start()
    assert signals.idle.wait() == math.inf


def test_a_resting_loop_steps_when_it_is_woken(open_loop):
    loop, signals = open_loop(Steps())
    loop.start()
    for _ in range(3):
        signals.idle.wait()
        signals.stepped.wait()
        loop.wake()
    signals.stepped.wait()


def test_a_loop_that_is_woken_within_a_step_steps_once_more(open_loop):
    step = Steps()

    def waking():
        if step.calls == 0:
            loop.wake()
            loop.wake()
        return step()

    loop, signals = open_loop(waking)
    loop.start()
    signals.stepped.wait()
    signals.stepped.wait()
    # The first rest is cut short at once; the second is the one that lasts.
    signals.idle.wait()
    signals.idle.wait()
    assert step.calls == 2


def test_nothing_that_was_given_before_a_wake_up_is_overlooked(open_loop):
    given, taken = [], []
    lock = threading.Lock()
    has_all = threading.Event()

    def step():
        with lock:
            taken.extend(given)
            given.clear()
        if len(taken) == 4_000:
            has_all.set()
        return IDLE

    loop, _ = open_loop(step)
    loop.start()

    def give(number):
        for place in range(1_000):
            with lock:
                given.append((number, place))
            loop.wake()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(give, range(4)))
    assert has_all.wait(SECONDS)
    assert len(set(taken)) == 4_000


def test_the_first_step_waits_for_the_delay_or_a_wake_up(open_loop):
    step = Steps()
    loop, signals = open_loop(step, delay=IDLE)
    loop.start()
    assert signals.idle.wait() == IDLE
    assert step.calls == 0
    loop.wake()
    signals.stepped.wait()


def test_a_wake_up_before_the_start_counts(open_loop):
    loop, signals = open_loop(Steps(), delay=IDLE)
    loop.wake()
    loop.start()
    signals.stepped.wait()


def test_a_step_that_fails_is_logged_counted_and_tried_again_after_growing_pauses(open_loop, caplog):
    pauses = []

    def wait(condition, predicate, seconds):
        if seconds is None:
            condition.wait_for(predicate)
        else:
            pauses.append(seconds)

    bugs = [RuntimeError("a bug") for _ in range(7)]
    loop, signals = open_loop(Steps(*bugs, 0, RuntimeError("one more")), wait=wait, name="failing")
    before = failures(loop, "error")
    loop.start()
    assert [signals.failed.wait() for _ in range(7)] == bugs
    signals.stepped.wait()
    signals.failed.wait()
    signals.stepped.wait()
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, MAX_PAUSE_SECONDS, 0.05]
    assert failures(loop, "error") - before == 8
    assert caplog.text.count("A step failed. Continuing.") == 8
    assert "RuntimeError: a bug" in caplog.text


def test_a_wake_up_does_not_cut_the_pause_after_a_failure_short(open_loop):
    may_end = threading.Event()

    def wait(condition, predicate, seconds):
        if seconds is None:
            condition.wait_for(predicate)
        else:
            loop.wake()
            assert not predicate()
            condition.release()
            may_end.wait(SECONDS)
            condition.acquire()

    step = Steps(RuntimeError("a bug"))
    loop, signals = open_loop(step, wait=wait)
    loop.start()
    signals.failed.wait()
    assert step.calls == 1
    may_end.set()
    signals.stepped.wait()


def test_stopping_ends_a_pause_at_once(open_loop):
    loop, signals = open_loop(Steps(RuntimeError("a bug")), max_pause_seconds=math.inf)
    loop._pause = 3_600.0
    loop.start()
    signals.failed.wait()
    assert loop.stop(SECONDS)


def test_an_outage_is_told_once_until_it_is_over(open_loop, caplog):
    caplog.set_level("INFO")
    away = [StoreUnavailable("away") for _ in range(3)]
    outage = Outage((StoreUnavailable,), LOG, begins="It is away.", ends="It is back.")
    loop, signals = open_loop(
        Steps(*away, 0, StoreUnavailable("again")),
        outage=outage,
        wait=lambda condition, predicate, seconds: condition.wait_for(predicate) if seconds is None else None,
        name="away",
    )
    before = failures(loop, "outage")
    loop.start()
    for _ in range(3):
        signals.failed.wait()
    signals.stepped.wait()
    signals.failed.wait()
    signals.stepped.wait()
    assert not outage.is_on
    told = [record.message for record in caplog.records if "It is" in record.message]
    assert ["away" in line for line in told] == [True, False, True, False]
    assert "A step failed" not in caplog.text
    assert failures(loop, "outage") - before == 4


def test_an_outage_is_none_where_nothing_is_away(caplog):
    caplog.set_level("INFO")
    outage = Outage((StoreUnavailable,), LOG, begins="It is away.", ends="It is back.")
    outage.end()
    assert not caplog.records


def test_a_loop_without_its_lease_does_nothing_until_it_has_it(open_loop):
    holds = threading.Event()
    step = Steps()
    loop, signals = open_loop(step, may_run=holds.is_set)
    loop.start()
    assert [signals.idle.wait() for _ in range(2)] == [LEASE_LOOK_SECONDS] * 2
    assert step.calls == 0
    holds.set()
    signals.stepped.wait()


def test_who_loses_a_lease_after_a_step_is_told_once(open_loop):
    holds, lapses = threading.Event(), []
    step = Steps()
    loop, signals = open_loop(step, may_run=holds.is_set, at_lapse=lambda: lapses.append(step.calls))
    loop.start()
    signals.idle.wait()
    assert lapses == [], "it never had the lease"
    holds.set()
    signals.stepped.wait()
    holds.clear()
    loop.wake()
    while signals.idle.wait() != LEASE_LOOK_SECONDS or not lapses:
        loop.wake()
    signals.idle.wait()
    assert lapses == [step.calls]


def test_the_last_thing_is_done_in_the_thread_after_the_last_step(open_loop):
    done = []
    step = Steps()
    loop, signals = open_loop(step, at_end=lambda: done.append((threading.current_thread().name, step.calls)))
    loop.start()
    signals.stepped.wait()
    loop.stop()
    assert done == [("tether-under-test", 1)]


def test_a_last_thing_that_fails_is_logged(open_loop, caplog):
    def fail():
        raise RuntimeError("a bug at the end")

    loop, signals = open_loop(Steps(), at_end=fail)
    loop.start()
    signals.stepped.wait()
    assert loop.stop()
    assert "a bug at the end" in caplog.text


def test_a_step_that_rests_is_ended_by_stopping(open_loop):
    def step():
        resting.set()
        loop.rest(3_600)
        assert loop.is_stopping
        return IDLE

    resting = threading.Event()
    loop, signals = open_loop(step)
    loop.start()
    assert resting.wait(SECONDS)
    assert loop.stop(SECONDS)
    signals.stepped.wait(0.001)


def test_a_loop_can_be_started_and_stopped_twice_and_stopped_without_a_start(open_loop):
    loop, signals = open_loop(Steps())
    assert loop.stop()
    other, signals = open_loop(Steps())
    other.start()
    other.start()
    signals.stepped.wait()
    assert thread_names().count("tether-under-test") == 1
    assert other.stop()
    assert other.stop()
    other.start()
    assert not other.is_alive


def test_a_loop_that_was_stopped_before_its_start_does_not_step(open_loop):
    step = Steps()
    loop, _ = open_loop(step)
    loop.stop()
    loop.start()
    assert loop.join(SECONDS)
    assert step.calls == 0


def test_stopping_waits_no_longer_than_it_may_and_says_so(open_loop, caplog):
    may_end, began = threading.Event(), threading.Event()

    def step():
        began.set()
        may_end.wait(SECONDS)
        return IDLE

    loop, _ = open_loop(step)
    loop.start()
    assert began.wait(SECONDS)
    assert not loop.stop(0.01)
    assert "A thread does not stop" in caplog.text
    may_end.set()
    assert loop.stop(SECONDS)


def test_a_step_may_stop_its_own_loop(open_loop):
    def step():
        loop.stop()
        return 0

    loop, _ = open_loop(step)
    loop.start()
    assert loop.join(SECONDS)


def test_loops_start_stop_and_wake_at_any_time_from_many_threads():
    steps = [Steps(0, 0, 0) for _ in range(100)]
    loops = [Loop(f"stress-{place}", step) for place, step in enumerate(steps)]

    def work(number):
        for place, loop in enumerate(loops):
            match (number + place) % 4:
                case 0:
                    loop.wake()
                    loop.start()
                case 1:
                    loop.start()
                    loop.wake()
                case 2:
                    loop.start()
                    assert loop.stop(SECONDS)
                case 3:
                    assert loop.stop(SECONDS)
                    loop.start()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert all(loop.stop(SECONDS) for loop in loops)
    assert not [name for name in thread_names() if name.startswith("tether-stress")]


def test_a_signal_that_does_not_come_is_an_error():
    with pytest.raises(TimeoutError, match="no signal within"):
        Signal().wait(0.001)


def test_seconds_until_what_is_due():
    assert seconds_until(None, 1_000) == IDLE
    assert seconds_until(1_250, 1_000) == 0.25
    assert seconds_until(900, 1_000) == 0.0


def test_a_thread_is_named_started_once_and_ended():
    asked, ran = threading.Event(), []
    thread = OwnedThread("owned", lambda: ran.append(asked.wait(SECONDS)), ask_to_stop=asked.set)
    assert thread.join()
    thread.start()
    thread.start()
    assert thread.is_alive
    assert thread_names().count("tether-owned") == 1
    assert not thread.is_current
    assert thread.stop(SECONDS)
    assert thread.stop(SECONDS)
    assert ran == [True]


def test_what_a_thread_raises_is_logged(caplog):
    def fail():
        raise RuntimeError("a bug")

    thread = OwnedThread("failing", fail)
    thread.start()
    assert thread.join(SECONDS)
    assert "A thread ended by an error." in caplog.text
